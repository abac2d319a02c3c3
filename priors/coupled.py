"""Coupled unmixing autoencoders: what HyCoNet, CUCaNet and NonRegSRNet share.

Both images of a pair are encoded to abundances A_y and A_z of the same endmembers D, (endmember, band). D A_y is the
low-resolution image again, D A_z the product X. Losses are sums over pixels and bands, not means, and Adam steps are
followed by projections.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn.initializers import Initializer

from jfusion.catalogue import Bands, Fitter
from jfusion.layers.conv import Conv
from jfusion.layers.init import normal
from jfusion.layers.responses import Constraint
from jfusion.operators import Grid, Identity, Observation, ObservationModel
from jfusion.operators.linear import LinearOperator
from priors.degradation import Degradation, on_logits
from priors.fit import Loss, Plan, Schedule, Stage, fitter
from priors.pair import Pair, degraded, sum_l1

SLOPE = 0.2
WIDTHS = (128, 256, 512)

STEPS = 10_000
HOLD = 0.2
"""Share of the steps at the full learning rate, which then falls linearly to zero."""

SPARSITY = 0.01
"""Mean abundance that an endmember is drawn to."""

CONSTRAINED: tuple[Constraint, Constraint] = ("softmax", "softmax")
RELEASED: tuple[Constraint, Constraint] = ("free", "clipped")
"""Constraints on a learned PSF and on a learned spectral response; see `jfusion.layers.responses.Weights`."""


# ----------------------------------------------------------------------------------------------------------------------
# Parts


def he_normal(fan_in: int) -> Initializer:
    """The normal law of variance 2 / fan_in, PyTorch's ``kaiming_normal_``."""
    return normal(math.sqrt(2 / fan_in))


def he_conv(inputs: int, outputs: int, window: int = 1, *, use_bias: bool = True, rngs: nnx.Rngs) -> Conv:
    """A convolution that starts from `he_normal` and zero biases."""
    init = he_normal(window**2 * inputs)
    return Conv(inputs, outputs, window, use_bias=use_bias, kernel_init=init, rngs=rngs)


class Trunk(nnx.Module):
    """Convolutions, each with a leaky ReLU.

    Args:
        inputs: channels.
        widths: channels of the convolutions.
        windows: their windows' sides, one by default.
    """

    def __init__(
        self, inputs: int, widths: tuple[int, ...], windows: tuple[int, ...] | None = None, *, rngs: nnx.Rngs
    ) -> None:
        windows = windows or (1,) * len(widths)
        self.layers = nnx.List(
            [he_conv(a, b, k, rngs=rngs) for (a, b), k in zip(pairwise((inputs, *widths)), windows, strict=True)]
        )

    def __call__(self, x: Array) -> Array:
        """``(batch, height, width, inputs)`` to ``(batch, height, width, widths[-1])``."""
        for layer in self.layers:
            x = jax.nn.leaky_relu(layer(x), SLOPE)
        return x


class Encoder(nnx.Module):
    """A pixelwise trunk and a last convolution to one channel for each endmember, without activation."""

    def __init__(self, inputs: int, endmembers: int, widths: tuple[int, ...], *, rngs: nnx.Rngs) -> None:
        self.trunk = Trunk(inputs, widths, rngs=rngs)
        self.head = he_conv(widths[-1], endmembers, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """``(batch, height, width, inputs)`` to ``(batch, height, width, endmember)``."""
        return self.head(self.trunk(x))


def clamp(x: Array) -> Array:
    """Into [0, 1]; no gradient flows where this changes anything."""
    return jnp.clip(x, 0, 1)


def learned(bands: Bands, *keys: str) -> Degradation:
    """The degradation of a pair on nested grids of which the operators of ``keys`` are not known."""
    operators: dict[str, LinearOperator | None] = {k: None if k in keys else Identity() for k in ("lr", "guide")}
    return Degradation(ObservationModel(operators, Grid.nested(bands.ratio)), bands)


# ----------------------------------------------------------------------------------------------------------------------
# Terms of losses


def sum_to_one(abundances: Array, weight: Array) -> Array:
    """``sum_p |sum_k A[p, k] - 1|`` of abundances ``(batch, height, width, endmember)`` and weights of a `Pair`."""
    return jnp.sum(jnp.abs(abundances.sum(-1, keepdims=True) - 1) * weight)


def sparsity(abundances: Array, weight: Array) -> Array:
    """Kullback-Leibler divergence of each endmember's mean abundance from `SPARSITY`, as Bernoulli laws, summed.

    Means are over weighted pixels.
    """
    mean = jnp.sum(abundances * weight, (0, 1, 2)) / jnp.maximum(weight.sum(), 1)
    mean = jnp.clip(mean, 1e-6, 1 - 1e-6)
    used, unused = SPARSITY * jnp.log(SPARSITY / mean), (1 - SPARSITY) * jnp.log((1 - SPARSITY) / (1 - mean))
    return jnp.sum(used + unused)


def sensor_mismatch(degradation: Degradation, model: ObservationModel, pair: Pair) -> Array:
    """``|R Y - B Z|``, sum over pixels and bands; 0 where neither B nor R is learned."""
    if degradation.psf is None and degradation.srf is None:
        return jnp.zeros(())
    return sum_l1(*degraded(model, pair), pair.weight["lr"])


# ----------------------------------------------------------------------------------------------------------------------
# Projections


class Coupled(Protocol):
    """An autoencoder of one set of endmembers, the weights of its decoder."""

    decoder: Conv
    degradation: Degradation


def clamp_kernels(*layers: Conv) -> None:
    """Clamps the weights of decoders into [0, 1], in place: endmembers are reflectances."""
    for layer in layers:
        layer.kernel[...] = clamp(layer.kernel[...])


def clamp_psf(degradation: Degradation) -> None:
    """Clamps a learned PSF that has no constraint into [0, 1], in place."""
    if degradation.psf is not None and degradation.psf.weights.constraint == "free":
        weight = degradation.psf.weights.weight
        weight[...] = clamp(weight[...])


def project(module: Coupled) -> None:
    """Puts endmembers and learned responses back into their sets, in place."""
    clamp_kernels(module.decoder)
    module.degradation.project()
    clamp_psf(module.degradation)


# ----------------------------------------------------------------------------------------------------------------------
# The fit


def stage(loss: Loss, rate: float, project: Callable[[Any], None], rates: tuple[tuple[str, float], ...]) -> Stage:
    """The one stage of all three papers: `STEPS` steps of Adam, each followed by projections."""
    return Stage(loss, STEPS, Schedule(rate, hold=HOLD), rates=rates, project=project)


def coupled_fitter(
    module: Callable[..., nnx.Module], stage: Stage, options: Callable[[Pair], dict[str, Any]] = lambda pair: {}
) -> Fitter:
    """The fit of an autoencoder whose output begins with the product and the completed model.

    Args:
        module: makes the autoencoder, ``module(bands, degradation, rngs=rngs, **options, **sizes)``.
        stage: of the fit.
        options: of the module, from the pair; none by default.
    """

    @fitter
    def fit_pair(
        observation: Observation,
        model: ObservationModel,
        *,
        constrained: bool = True,
        support: Array | None = None,
        size: int | None = None,
        **sizes: Any,
    ) -> Plan:
        """Fits the system to a pair; see `jfusion.catalogue.Fitter` and `priors.fit.fit`.

        Args:
            observation: `lr` and `guide`.
            model: parts that are None are learned and returned, the others are used as they are.
            constrained: keeps a learned PSF and spectral responses on the simplex by softmax; False clamps them after
                each step, as released.
            support: bands that each band of the guide may see, for an unknown spectral response; None for all.
            size: taps a side of an unknown PSF; None for the paper's, the ratio.
            sizes: of the module.
        """
        pair, scale = Pair.of(observation, model).normalised()
        bands, constraints = Bands.of(observation, model), CONSTRAINED if constrained else RELEASED

        def build(key: Array) -> nnx.Module:
            degradation = Degradation(model, bands, constraints, support, size)
            return module(bands, degradation, rngs=nnx.Rngs(key), **options(pair), **sizes)

        stages = (on_logits(stage) if constrained else stage,)
        return Plan(build, pair, stages, scale, lambda output: output[:2])

    return fit_pair
