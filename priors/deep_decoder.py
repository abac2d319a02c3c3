"""Deep decoder: Heckel and Hand, "Deep Decoder: Concise Image Representations from Untrained Non-convolutional
Networks", ICLR 2019.

A small random code is enlarged in steps; between them every pixel's channels are mixed, rectified and normalised. No
layer sees a neighbour but through the interpolation, and there are so few parameters that noise cannot be represented.
The original restores one image; the pair's loss is ours, see `priors.observed`.
"""

from __future__ import annotations

import dataclasses
import sys

import jax
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands, Fitted, Paper, System
from jfusion.layers.conv import Conv
from jfusion.layers.untrained import Norm, enlarge
from jfusion.operators import Observation, ObservationModel
from jfusion.tasks import SPATIOSPECTRAL
from priors.fit import Plan, Schedule, Stage, Stopping, fitter
from priors.observed import Code, observation_loss, plan_observed


def code_size(size: tuple[int, int], levels: int) -> tuple[int, int]:
    """Height and width of an image of that size, halved so often, each time rounded up."""
    return -(-size[0] // 2**levels), -(-size[1] // 2**levels)


class DeepDecoder(nnx.Module):
    """``norm(relu(enlarge(mix(x))))`` in each level, once more without enlarging, then a mixture and a sigmoid.

    Mixtures are 1x1 convolutions without a bias.

    Args:
        bands: of the pair.
        width: channels of the code and of every layer.
        levels: doublings of the code.
        size: height and width of the image; those of the code, doubled, by default.
    """

    def __init__(
        self,
        bands: Bands,
        *,
        width: int = 128,
        levels: int = 5,
        size: tuple[int, int] | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.size = size
        self.mixtures = nnx.List([Conv(width, width, 1, use_bias=False, rngs=rngs) for _ in range(levels + 1)])
        self.norms = nnx.List([Norm(width) for _ in range(levels + 1)])
        self.output = Conv(width, bands.lr, 1, use_bias=False, rngs=rngs)

    def __call__(self, code: Array) -> Array:
        """The image, between 0 and 1, of a code ``(batch, *code_size, width)``."""
        x, levels = code, len(self.mixtures) - 1
        size = self.size or (code.shape[1] * 2**levels, code.shape[2] * 2**levels)
        for left, mixture, norm in zip(range(levels, -1, -1), self.mixtures, self.norms, strict=True):
            x = mixture(x)
            if left:
                x = enlarge(x, code_size(size, left - 1))
            x = norm(jax.nn.relu(x))
        return jax.nn.sigmoid(self.output(x))


STAGE = Stage(observation_loss, 5000, Schedule(1e-2))

LOWEST = Stopping(every=50, patience=sys.maxsize, tolerance=5e-3)
"""Never stops; keeps the parameters with the lowest loss."""


@fitter
def fit_deep_decoder(
    observation: Observation,
    model: ObservationModel,
    *,
    width: int = 128,
    levels: int = 5,
) -> Plan:
    """Fits a deep decoder to a pair; see `jfusion.catalogue.Fitter`, `priors.fit.fit` and `plan_observed`.

    Where nothing is said of stopping, the parameters with the lowest loss are kept.

    Args:
        observation: `lr` and `guide`.
        model: parts that are None are learned and returned, the others are used as they are.
        width, levels: of `DeepDecoder`.
    """

    def build(bands: Bands, size: tuple[int, int], rngs: nnx.Rngs) -> tuple[nnx.Module, Code]:
        generator = DeepDecoder(bands, width=width, levels=levels, size=size, rngs=rngs)
        return generator, Code((*code_size(size, levels), width), rngs=rngs)

    return dataclasses.replace(plan_observed(build, STAGE, observation, model), stopping=LOWEST)


DEEP_DECODER = System(
    name="deep_decoder",
    title="Deep decoder",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="R. Heckel, P. Hand",
        year=2019,
        title="Deep Decoder: Concise Image Representations from Untrained Non-convolutional Networks",
        venue="International Conference on Learning Representations",
        doi="10.48550/arXiv.1810.03982",
        code="https://github.com/reinhardh/supplement_deep_decoder",
    ),
    summary="An untrained decoder without convolutions enlarges a small random code to the image, by interpolation "
    "and mixtures of each pixel's channels, and is fitted by |B X - Y|^2 + |R X - Z|^2; it has too few parameters for "
    "the noise.",
    method=Fitted(
        generator=DeepDecoder,
        fit=fit_deep_decoder,
        steps=STAGE.steps,
        note="Adam at 1e-2, 5000 steps, no noise on the code; the parameters with the lowest loss are kept.",
        tiny={"width": 16, "levels": 2},
    ),
    differences="The original restores one image; the loss of a pair is ours, and so is the learning (softmax) of "
    "operators that the fit is not told. The parameters with the lowest loss are looked for every 50 steps, in the "
    "release at every step. Images of any size are taken as they are: each level is cut to half of the next, rounded "
    "up. The pair is scaled to a largest magnitude of one, which the product, between 0 and 1, does not exceed.",
    parameters=(100_224, Bands(3, 3, 4)),
    needs_model=True,
)
