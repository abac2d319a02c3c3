"""Deep image prior: Ulyanov, Vedaldi and Lempitsky, "Deep Image Prior", CVPR 2018.

A convolutional network turns random numbers into the image. Its parameters are found by gradient descent from random
ones, so that the sensors see in the image what was observed; natural images come first on the way, noise last. The
original restores one image, ``|D X - Y|^2``; the pair's second term is ours, see `priors.observed`.
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

DEPTH = 32
"""Channels of the code."""


def deep_image_prior(bands: Bands, *, rngs: nnx.Rngs, **sizes: Any) -> Skip:
    """A skip network that turns a code of 32 channels into numbers between 0 and 1.

    Args:
        bands: of the pair.
        rngs: of the parameters.
        sizes: of `Skip`.
    """
    return Skip(DEPTH, bands.lr, bounded=True, rngs=rngs, **sizes)


FINE = Stage(partial(observation_loss, deviation=0.03), 2000, Schedule(1e-2), average=0.99)
"""Of ratios up to 4."""

COARSE = Stage(partial(observation_loss, deviation=0.05), 4000, Schedule(1e-2), average=0.99)
"""Of larger ratios."""


@fitter
def fit_dip(
    observation: Observation,
    model: ObservationModel,
    **sizes: Any,
) -> Plan:
    """Fits a deep image prior to a pair; see `jfusion.catalogue.Fitter`, `priors.fit.fit` and `plan_observed`.

    Args:
        observation: `lr` and `guide`.
        model: parts that are None are learned and returned, the others are used as they are.
        sizes: of `Skip`.
    """

    def build(bands: Bands, size: tuple[int, int], rngs: nnx.Rngs) -> tuple[nnx.Module, Code]:
        return deep_image_prior(bands, rngs=rngs, **sizes), Code((*size, DEPTH), rngs=rngs)

    return plan_observed(build, FINE if model.ratio <= 4 else COARSE, observation, model)


DIP = System(
    name="dip",
    title="Deep image prior",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="D. Ulyanov, A. Vedaldi, V. Lempitsky",
        year=2018,
        title="Deep Image Prior",
        venue="IEEE Conference on Computer Vision and Pattern Recognition",
        doi="10.1109/CVPR.2018.00984",
        code="https://github.com/DmitryUlyanov/deep-image-prior",
    ),
    summary="An untrained skip network makes the image from random numbers, X = f(z), and is fitted by |B X - Y|^2 + "
    "|R X - Z|^2; noise on z at every step, and the average of the outputs, keep it from following the noise.",
    method=Fitted(
        generator=deep_image_prior,
        fit=fit_dip,
        steps=FINE.steps,
        note="Adam at 1e-2, 2000 steps (4000 at ratios above 4); Gaussian noise on the code at every step, 0.03 "
        "(0.05); exponential average of the outputs with decay 0.99.",
        tiny={"width": 8, "scales": 2},
    ),
    differences="The original restores one image, |D X - Y|^2; the loss of a pair is ours. D is Lanczos resampling in "
    "its super-resolution, here the pair's own PSF and phase; parts that the fit is not told are learned (softmax), "
    "which the original does not do. Settings and steps are those of its super-resolution at ratio 4 (8), the average "
    "is that of its denoising; its roll-back (a rise of 5 dB) is left out. Images of any size are taken as they are, "
    "where the original crops to multiples of 32. The pair is scaled to a largest magnitude of one, which the product, "
    "between 0 and 1, does not exceed.",
    parameters=(2_217_831, Bands(3, 3, 4)),
    needs_model=True,
)
