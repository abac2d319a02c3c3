"""UDALN: Li, Zheng, Yao, Gao and Hong, "Deep Unsupervised Blind Hyperspectral and Multispectral Data Fusion", 2022.

A spectral generator G maps every pixel of the guide Z to a spectrum, X = G(Z). It learns from the one pair: the blurred
guide B Z must equal the spectrally degraded image R Y, which finds B and R (stage 1); G must map B Z to Y (stage 2);
then all is fitted together, with R G(Z) = Z and B G(Z) = Y (stage 3).
"""

from __future__ import annotations

import math
from itertools import pairwise

import jax
from flax import nnx
from jax import Array, lax

from jfusion.catalogue import Bands, Fitted, Paper, System
from jfusion.layers.conv import Conv
from jfusion.layers.init import torch_bias
from jfusion.layers.responses import Constraint
from jfusion.operators import Observation, ObservationModel, one_psf
from jfusion.tasks import SPATIOSPECTRAL
from priors.degradation import Degradation, SrfForm, on_logits, unknown_parts
from priors.fit import Plan, Schedule, Stage, fitter
from priors.pair import Pair, degraded, mean_l1, misfits

SLOPE = 0.2


def doubled(bands: Bands) -> list[int]:
    """Channels that begin with the guide's bands and double while they stay within the image's."""
    doublings = max(math.floor(math.log2(bands.lr / bands.guide)), 0)
    return [bands.guide * 2**i for i in range(doublings + 1)]


class SpectralGenerator(nnx.Module):
    """SpeUnet: 1x1 convolutions that double the bands while they stay within the image's, then one to the image's.

    Args:
        bands: of the pair.
    """

    def __init__(self, bands: Bands, *, rngs: nnx.Rngs) -> None:
        widths = [*doubled(bands), bands.lr]
        self.layers = nnx.List([Conv(a, b, 1, bias_init=torch_bias(a), rngs=rngs) for a, b in pairwise(widths)])

    def __call__(self, guide: Array) -> Array:
        """``(..., height, width, guide band)`` to ``(..., height, width, band)``."""
        x = guide
        for layer in self.layers:
            x = jax.nn.leaky_relu(layer(x), SLOPE)
        return x


class Udaln(nnx.Module):
    """The generator and the learned parts of the observation model."""

    def __init__(self, bands: Bands, degradation: Degradation, *, rngs: nnx.Rngs) -> None:
        self.generator = SpectralGenerator(bands, rngs=rngs)
        self.degradation = degradation


def degradation_loss(module: Udaln, pair: Pair, key: Array) -> tuple[Array, tuple[()]]:
    """Stage 1: ``|R Y - B Z|``, mean over pixels and bands."""
    return mean_l1(*degraded(module.degradation(pair.model), pair), pair.weight["lr"]), ()


def generator_loss(module: Udaln, pair: Pair, key: Array) -> tuple[Array, tuple[()]]:
    """Stage 2: ``|G(B Z) - Y|``; no gradient flows into B."""
    blurred = lax.stop_gradient(one_psf(module.degradation(pair.model)["lr"])(pair.observation["guide"]))
    return mean_l1(module.generator(blurred), pair.observation["lr"], pair.weight["lr"]), ()


def joint_loss(module: Udaln, pair: Pair, key: Array) -> tuple[Array, tuple[Array, ObservationModel]]:
    """Stage 3: ``|R Y - B Z| + |G(B Z) - Y| + |R G(Z) - Z| + |B G(Z) - Y|``; the output is G(Z) and the model."""
    model, y, weight = module.degradation(pair.model), pair.observation["lr"], pair.weight["lr"]
    (mixed, blurred), product = degraded(model, pair), module.generator(pair.observation["guide"])
    lr, guide = misfits(mean_l1, model, product, pair)
    loss = mean_l1(mixed, blurred, weight) + mean_l1(module.generator(blurred), y, weight) + guide + lr
    return loss, (product, model)


STAGES = (
    Stage(degradation_loss, 20_000, Schedule(1e-3, hold=1 / 2), trainable=("degradation",)),
    Stage(generator_loss, 30_000, Schedule(1e-3, hold=2 / 3), trainable=("generator",)),
    Stage(joint_loss, 15_000, Schedule(6e-5, hold=1 / 3)),
)


@fitter
def fit_udaln(
    observation: Observation,
    model: ObservationModel,
    *,
    constrained: bool = True,
    support: Array | None = None,
    size: int | None = None,
) -> Plan:
    """Fits UDALN to a pair; see `jfusion.catalogue.Fitter` and `priors.fit.fit`.

    Args:
        observation: `lr` and `guide`.
        model: parts that are None are learned and returned, the others are used as they are.
        constrained: keeps the learned PSF and spectral responses on the simplex; False leaves the signs free and
            divides the responses by their detached sums, as the release does.
        support: bands that each band of the guide may see, for an unknown spectral response; None for all.
        size: taps a side of an unknown PSF; None for the paper's, the ratio.
    """
    pair, scale = Pair.of(observation, model).normalised()
    bands = Bands.of(observation, model)
    known = not unknown_parts(model)
    constraints: tuple[Constraint, Constraint] = ("softmax", "softmax") if constrained else ("free", "detached")

    def build(key: Array) -> Udaln:
        form: SrfForm | None = None if support is None else "middle"
        return Udaln(bands, Degradation(model, bands, constraints, support, size, srf=form), rngs=nnx.Rngs(key))

    stages = tuple(map(on_logits, STAGES)) if constrained else STAGES
    return Plan(build, pair, stages[1:] if known else stages, scale)


UDALN = System(
    name="udaln",
    title="UDALN",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="J. Li, K. Zheng, J. Yao, L. Gao, D. Hong",
        year=2022,
        title="Deep Unsupervised Blind Hyperspectral and Multispectral Data Fusion",
        venue="IEEE Geoscience and Remote Sensing Letters 19",
        doi="10.1109/LGRS.2022.3151779",
        code="https://github.com/JiaxinLiCAS/UDALN_GRSL",
    ),
    summary="A pixelwise network maps the guide's bands to the spectrum, X = G(Z), so that a single band of it can "
    "tell but one curve of spectra; PSF B and spectral response R are learned from |R Y - B Z|, G from |G(B Z) - Y|, "
    "then all from these and |R G(Z) - Z| + |B G(Z) - Y| (mean L1).",
    method=Fitted(
        generator=SpectralGenerator,
        fit=fit_udaln,
        steps=sum(stage.steps for stage in STAGES),
        note="Adam; 20,000 steps on B and R at 1e-3 (linear to 0 from 10,000), 30,000 on G at 1e-3 (from 20,000), "
        "15,000 on all at 6e-5 (from 5,000).",
    ),
    differences="Learned PSF and responses are kept on the simplex by softmax, at a hundred times the rate, which acts "
    "on logits (constrained=False: as released, where responses may turn negative). Without a given support every band "
    "is eligible and the response starts flat. Known operators are used as they are, whatever their size; on grids "
    "that are not nested the learned PSF has 2 ratio + 1 taps a side. Adam's moments start afresh with each stage. The "
    "pair is scaled to a largest magnitude of one.",
    parameters=(2206, Bands(46, 8, 5)),
)
