"""MIAE: Liu, Wu, Xiao and Wu, "Model Inspired Autoencoder for Unsupervised Hyperspectral Image Super-Resolution", 2022.

Every pixel of the product is a mixture X = E S of endmembers E, the parameters of a decoder. Its abundances S come from
the same pixel of the interpolated low-resolution image and of the guide Z, by an encoder that is the unrolled algorithm
of a fusion of the two by nonnegative matrix factorisation. No layer sees a neighbour: B and R alone tie the pixels of X
to those of Y and Z. Where they are unknown, |R Y - B Z| finds them first.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.nn.initializers import constant

from jfusion.catalogue import Bands, Fitted, Paper, System
from jfusion.errors import InputError
from jfusion.layers.conv import Conv
from jfusion.layers.init import normal
from jfusion.layers.untrained import activate
from jfusion.operators import Observation, ObservationModel, upsample
from jfusion.tasks import SPATIOSPECTRAL
from priors.coupled import clamp, clamp_kernels
from priors.degradation import Degradation, unknown_parts
from priors.fit import Plan, Schedule, Stage, fitter
from priors.pair import Pair, misfits, sum_l1
from priors.sensing import SIMPLEX_SENSORS, project_sensors, sensing_loss


class _Mixing(nnx.Module):
    """``lrelu(conv1x1(x))`` of all inputs together; weights are normal, of variance 1 / channels."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        self.conv = Conv(inputs, outputs, 1, kernel_init=normal(1 / math.sqrt(inputs)), rngs=rngs)

    def __call__(self, *inputs: Array) -> Array:
        return activate(self.conv(jnp.concatenate(inputs, -1)))


class ModelInspiredAutoencoder(nnx.Module):
    """The encoder, unrolled over ``stages``, and the endmembers.

    Args:
        bands: of the pair.
        endmembers: components of a pixel, and channels of every layer.
        stages: iterations of the encoder, at least 1.

    Raises:
        InputError: no stage.
    """

    def __init__(self, bands: Bands, *, endmembers: int = 80, stages: int = 3, rngs: nnx.Rngs) -> None:
        if stages < 1:
            raise InputError(f"the encoder needs at least 1 stage, but has {stages}.")
        k = endmembers
        self.spectral = nnx.List([_Mixing(bands.lr, k, rngs=rngs), _Mixing(k, k, rngs=rngs)])
        self.spatial = _Mixing(bands.guide, k, rngs=rngs)
        self.first = _Mixing(2 * k, k, rngs=rngs)
        self.gradients = nnx.List([_Mixing(k, k, rngs=rngs) for _ in range(stages - 1)])
        self.merges = nnx.List([_Mixing(3 * k, k, rngs=rngs) for _ in range(stages - 1)])
        self.endmembers = Conv(k, bands.lr, 1, use_bias=False, kernel_init=constant(1 / k), rngs=rngs)

    def abundances(self, interpolated: Array, guide: Array) -> Array:
        """S, between 0 and 1: ``(batch, height, width, endmember)``."""
        y, z = interpolated, self.spatial(guide)
        for layer in self.spectral:
            y = layer(y)
        s = self.first(y, z)
        for gradient, merge in zip(self.gradients, self.merges, strict=True):
            s = merge(gradient(s), y, z)
        return clamp(s)

    def __call__(self, interpolated: Array, guide: Array) -> Array:
        """X, between 0 and 1.

        Args:
            interpolated: the low-resolution image on the guide's grid, ``(batch, height, width, band)``.
            guide: ``(batch, height, width, guide band)``.
        """
        return clamp(self.endmembers(self.abundances(interpolated, guide)))


class Miae(nnx.Module):
    """The autoencoder, the image that it interpolates, and the learned parts of the observation model."""

    def __init__(self, pair: Pair, bands: Bands, degradation: Degradation, *, rngs: nnx.Rngs, **sizes: Any) -> None:
        self.generator = ModelInspiredAutoencoder(bands, rngs=rngs, **sizes)
        self.interpolated = nnx.Variable(upsample(pair.observation["lr"], pair.model.grid, "bilinear"))
        self.degradation = degradation


def fusion_loss(module: Miae, pair: Pair, key: Array) -> tuple[Array, tuple[Array, ObservationModel]]:
    """``|Y - B X| + |Z - R X|``, summed over pixels and bands; the output is X and the model."""
    model = module.degradation(pair.model)
    product = module.generator(module.interpolated[...], pair.observation["guide"])
    lr, guide = misfits(sum_l1, model, product, pair)
    return lr + guide, (product, model)


def clip_endmembers(module: Miae) -> None:
    """Puts the endmembers back between 0 and 1."""
    clamp_kernels(module.generator.endmembers)


DECAYED_ADAM = optax.flatten(optax.chain(optax.add_decayed_weights(1e-3), optax.scale_by_adam()))
"""Adam with the weight decay in the gradient, as PyTorch's, and not beside it."""

SENSORS = {
    "clipped": Stage(sensing_loss, 5000, Schedule(5e-5), trainable=("degradation",), project=project_sensors),
    "softmax": SIMPLEX_SENSORS,
}
"""Stage 1."""

FUSION = Stage(
    fusion_loss,
    10_000,
    Schedule(5e-3, hold=0.1),
    optimiser=DECAYED_ADAM,
    trainable=("generator",),
    project=clip_endmembers,
)


@fitter
def fit_miae(
    observation: Observation,
    model: ObservationModel,
    *,
    constraint: Literal["clipped", "softmax"] = "clipped",
    **sizes: Any,
) -> Plan:
    """Fits MIAE to a pair; see `jfusion.catalogue.Fitter` and `priors.fit.fit`.

    Args:
        observation: `lr` and `guide`.
        model: parts that are None are learned and returned, the others are used as they are.
        constraint: what keeps learned responses on the simplex, see `jfusion.layers.responses.Weights`.
        sizes: of `ModelInspiredAutoencoder`.
    """
    pair, scale = Pair.of(observation, model).normalised()
    bands, known = Bands.of(observation, model), not unknown_parts(model)

    def build(key: Array) -> Miae:
        degradation = Degradation(model, bands, (constraint, constraint), psf="overlapping")
        return Miae(pair, bands, degradation, rngs=nnx.Rngs(key), **sizes)

    return Plan(build, pair, (FUSION,) if known else (SENSORS[constraint], FUSION), scale)


MIAE = System(
    name="miae",
    title="MIAE",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="J. Liu, Z. Wu, L. Xiao, X.-J. Wu",
        year=2022,
        title="Model Inspired Autoencoder for Unsupervised Hyperspectral Image Super-Resolution",
        venue="IEEE Transactions on Geoscience and Remote Sensing 60",
        doi="10.1109/TGRS.2022.3143156",
        code="https://github.com/liuofficial/MIAE",
    ),
    summary="An unrolled encoder of single pixels of the interpolated image and of the guide gives abundances S, a "
    "decoder has endmembers E, both between 0 and 1, and X = E S is fitted by |Y - B X| + |Z - R X| (sums); unknown B "
    "and R come from |R Y - B Z| first.",
    method=Fitted(
        generator=ModelInspiredAutoencoder,
        fit=fit_miae,
        steps=SENSORS["clipped"].steps + FUSION.steps,
        note="Adam; 5000 steps on B and R at 5e-5, 10,000 on the autoencoder at 5e-3 (linear to 0 from 1000) with "
        "weight decay 1e-3.",
        tiny={"endmembers": 8},
        compact={"endmembers": 30},
    ),
    differences="Every step sees the whole image, as the release can, and not a batch of patches; pixels next to the "
    "border count, since the operators know their boundary. A learned PSF, like the spectral response, is divided by "
    "its sum where it is used. Its taps are an odd number around the high-resolution pixel that the grid picks, which "
    "at even ratios is half a pixel off the middle of a nested low-resolution pixel (the release: an odd kernel at "
    "phase 0). Known operators are used as they are. The pair is scaled to a largest magnitude of one, which the "
    "product does not exceed.",
    parameters=(87_840, Bands(103, 4, 8)),
)
