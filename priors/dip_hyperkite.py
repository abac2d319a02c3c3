"""DIP-HyperKite, first stage: Bandara, Valanarasu and Patel, "Hyperspectral Pansharpening Based on Improved Deep Image
Prior and Residual Reconstruction", 2022.

A deep image prior (`priors.dip`) enlarges the image Y, and the guide Z holds it in space: X = f(z) is fitted by
``|B X - Y| + 0.6 |R X - Z|``. The response R is learned with it where it is not known: a small network predicts it from
the mean spectrum of X. The paper's second stage, a network trained with truth on what comes of this, is not here.
"""

from __future__ import annotations

from typing import Any

from flax import nnx
from jax import Array

from jfusion.catalogue import Bands, Fitted, Paper, System
from jfusion.layers.predicted import PredictedSrf
from jfusion.operators import Observation, ObservationModel
from jfusion.tasks import SPATIOSPECTRAL
from priors.degradation import LOGITS, unknown_parts, unknown_psf
from priors.dip import DEPTH
from priors.fit import Falling, Plan, Stage, fitter
from priors.observed import Code, Learned, with_learned
from priors.pair import Pair, mean_l1, misfits
from priors.skip import Skip

SPATIAL = 0.6
"""Weight of the loss against the guide (lambda in the paper)."""

DEVIATION = 0.03
"""Standard deviation of the noise on the code."""


def enlarging_prior(bands: Bands, *, rngs: nnx.Rngs, **sizes: Any) -> Skip:
    """The skip network of a deep image prior, whose output is linear here.

    Args:
        bands: of the pair.
        rngs: of the parameters.
        sizes: of `Skip`.
    """
    return Skip(DEPTH, bands.lr, rngs=rngs, **sizes)


class DipHyperkite(nnx.Module):
    """The network, its code, and what is learned of the sensors."""

    def __init__(self, pair: Pair, bands: Bands, *, rngs: nnx.Rngs, **sizes: Any) -> None:
        unknown, grid = unknown_parts(pair.model), pair.model.grid
        height, width = pair.observation["guide"].shape[1:3]
        self.generator = enlarging_prior(bands, rngs=rngs, **sizes)
        self.code = Code((height, width, DEPTH), rngs=rngs)
        self.psf = unknown_psf("pixel", grid, size=2 * grid.ratio + grid.ratio % 2) if "lr" in unknown else None
        self.srf = PredictedSrf(bands, rngs=rngs) if "guide" in unknown else None

    def learned(self, product: Array) -> Learned:
        """The operators that were unknown, for a product ``(1, height, width, band)``."""
        psf, srf = self.psf, self.srf
        return ({} if psf is None else {"lr": psf()}) | ({} if srf is None else {"guide": srf(product)})


def enlarging_loss(module: DipHyperkite, pair: Pair, key: Array) -> tuple[Array, tuple[Array, Learned]]:
    """``|B X - Y| + 0.6 |R X - Z|``, means over pixels and bands; the output is X and the learned operators."""
    product = module.generator(module.code(key, DEVIATION))
    learned = module.learned(product)
    model = pair.model.replace(operators=pair.model.operators | learned)
    lr, guide = misfits(mean_l1, model, product, pair)
    return lr + SPATIAL * guide, (product, learned)


STAGE = Stage(enlarging_loss, 1500, Falling(1e-3, 0.1, 1500 / 1300), rates=(("psf", LOGITS),))


@fitter
def fit_dip_hyperkite(
    observation: Observation,
    model: ObservationModel,
    **sizes: Any,
) -> Plan:
    """Fits the first stage of DIP-HyperKite to a pair; see `jfusion.catalogue.Fitter` and `priors.fit.fit`.

    Args:
        observation: `lr` and `guide`.
        model: parts that are None are learned and returned, the others are used as they are. A learned PSF reaches half
            a low-resolution pixel beyond its own on every side and is kept on the simplex by softmax.
        sizes: of `Skip`.
    """
    pair, scale = Pair.of(observation, model).normalised()
    bands = Bands.of(observation, model)

    def build(key: Array) -> DipHyperkite:
        return DipHyperkite(pair, bands, rngs=nnx.Rngs(key), **sizes)

    return Plan(build, pair, (STAGE,), scale, with_learned(model))


DIP_HYPERKITE = System(
    name="dip_hyperkite",
    title="DIP-HyperKite, first stage",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="W. G. C. Bandara, J. M. J. Valanarasu, V. M. Patel",
        year=2022,
        title="Hyperspectral Pansharpening Based on Improved Deep Image Prior and Residual Reconstruction",
        venue="IEEE Transactions on Geoscience and Remote Sensing 60",
        doi="10.1109/TGRS.2021.3139292",
        code="https://github.com/wgcban/DIP-HyperKite",
    ),
    summary="An untrained skip network makes the image from random numbers, X = f(z), and is fitted by "
    "|B X - Y| + 0.6 |R X - Z| (means), with noise on z at every step; an unknown R is predicted from the mean "
    "spectrum of X by a small network that is fitted with it.",
    method=Fitted(
        generator=enlarging_prior,
        fit=fit_dip_hyperkite,
        steps=STAGE.steps,
        note="Adam at 1e-3, 1e-4 after 1300 of 1500 steps; Gaussian noise on the code at every step, 0.03.",
        tiny={"width": 8, "scales": 2},
        compact={"width": 64},
    ),
    differences="The stage that needs no truth alone; the residual network that follows in the paper is trained. The "
    "release keeps the iterate with the best PSNR against the truth, here the last one is taken. Its optimiser leaves "
    "out the network that predicts R, which so stays random; here it is fitted. The weight 0.6 is the release's "
    "default (0.8 for Pavia, 0 for Chikusei in its scripts). A guide of several bands has a predicted row for each; a "
    "known R is used as it is. B is the pair's own PSF and phase where the release has Lanczos resampling; an unknown "
    "one, which the paper does not have, is learned, at a hundred times the rate, which acts on logits. Images of any "
    "size are taken as they are. The pair is scaled to a largest magnitude of one, and the product is not cut to "
    "between 0 and 1.",
    parameters=(2_230_602, Bands(102, 1, 4)),
)
