"""Deep hyperspectral prior: Sidorov and Hardeberg, "Deep Hyperspectral Prior", ICCV Workshops 2019, the 2-D variant.

The deep image prior (`priors.dip`) for images of many bands: its code has as many channels as the image has bands, its
skip network is lighter, and its output is linear. The original restores one image, ``|X - Y|^2`` over what is observed
of X; the pair's loss is ours, see `priors.observed`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from flax import nnx

from jfusion.catalogue import Bands, Fitted, Paper, System
from jfusion.operators import Observation, ObservationModel
from jfusion.tasks import SPATIOSPECTRAL
from priors.fit import Plan, Schedule, Stage, fitter
from priors.observed import Code, observation_loss, plan_observed
from priors.skip import Skip


def hyperspectral_prior(bands: Bands, *, rngs: nnx.Rngs, **sizes: Any) -> Skip:
    """A skip network from as many channels as the image has bands to the image.

    Args:
        bands: of the pair.
        rngs: of the parameters.
        sizes: of `Skip`.
    """
    return Skip(bands.lr, bands.lr, pointwise=False, rngs=rngs, **sizes)


STAGE = Stage(partial(observation_loss, deviation=0.03), 1801, Schedule(1e-2), average=0.99)


@fitter
def fit_dhp(
    observation: Observation,
    model: ObservationModel,
    **sizes: Any,
) -> Plan:
    """Fits a deep hyperspectral prior to a pair; see `jfusion.catalogue.Fitter`, `priors.fit.fit` and `plan_observed`.

    Args:
        observation: `lr` and `guide`.
        model: parts that are None are learned and returned, the others are used as they are.
        sizes: of `Skip`.
    """

    def build(bands: Bands, size: tuple[int, int], rngs: nnx.Rngs) -> tuple[nnx.Module, Code]:
        return hyperspectral_prior(bands, rngs=rngs, **sizes), Code((*size, bands.lr), rngs=rngs)

    return plan_observed(build, STAGE, observation, model)


DHP = System(
    name="dhp",
    title="Deep hyperspectral prior",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="O. Sidorov, J. Y. Hardeberg",
        year=2019,
        title="Deep Hyperspectral Prior: Single-Image Denoising, Inpainting, Super-Resolution",
        venue="IEEE/CVF International Conference on Computer Vision Workshops",
        doi="10.48550/arXiv.1902.00301",
        code="https://github.com/acecreamu/deep-hs-prior",
    ),
    summary="An untrained skip network with as many input channels as bands makes the image from random numbers and "
    "is fitted by |B X - Y|^2 + |R X - Z|^2, with noise on its input at every step; the product is the average of its "
    "outputs.",
    method=Fitted(
        generator=hyperspectral_prior,
        fit=fit_dhp,
        steps=STAGE.steps,
        note="Adam at 1e-2, 1801 steps; Gaussian noise on the code at every step, 0.03; exponential average of the "
        "outputs with decay 0.99.",
        tiny={"width": 8, "scales": 2},
        compact={"width": 64},
    ),
    differences="The original restores one image; the loss of a pair is ours, and so is the learning (softmax) of "
    "operators that the fit is not told. Network, steps and average are those of its 2-D denoising; its 3-D variant, "
    "which the release advises against, is not here. The release's roll-back (a rise of 5 dB against the observed "
    "image) is left out, and so is the cut of the product to between 0 and 1. Images of any size are taken as they "
    "are, where the release asks for multiples of 32. The pair is scaled to a largest magnitude of one; the release "
    "scales each band to between 0 and 1.",
    parameters=(2_342_047, Bands(191, 4, 4)),
    needs_model=True,
)
