"""Responses of sensors that are learned: modules that produce an operator of the observation model."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array, lax

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.operators import Grid, SpatialResponse, SpectralResponse, box_psf, psf_kernel

Constraint = Literal["softmax", "projected", "clipped", "detached", "free"]

OUTSIDE = -1e6
"""Stands for a weight outside the support, so far below the others that no projection reaches it."""

BAND_SIGMA = 3.5
"""Standard deviation, in bands, of the Gaussian with which UDALN starts a response on its support."""


class Weights(nnx.Module):
    """Rows of weights of a response, on a support.

    Attributes:
        constraint: what keeps a row of the result on the simplex (not negative, sum one).
            "softmax": by construction; a weight starts at 1/100 of the largest at least.
            "projected": `project`, called after the optimiser's step, takes the nearest point of the simplex.
            "clipped": `project` clips at 0 and divides by the sum, as MIAE does; where the gradients of a row have
            one sign, this drives it towards a single weight.
            "detached": nothing keeps the sign, and no gradient flows through the sum that divides the row.
            "free": nothing.
    """

    def __init__(self, initial: Array, constraint: Constraint, support: Array | None = None) -> None:
        if constraint not in get_args(Constraint):
            raise InputError(f"the constraint must be one of {', '.join(get_args(Constraint))}, but is {constraint!r}.")
        self.constraint = constraint
        self.support = nnx.Variable(jnp.ones(initial.shape, bool) if support is None else support)
        initial = jnp.where(self.support[...], initial, 0)
        floor = initial.max(-1, keepdims=True) / 100
        self.weight = nnx.Param(jnp.log(jnp.maximum(initial, floor)) if constraint == "softmax" else initial)

    def __call__(self) -> Array:
        """``(..., row, weight)``."""
        weight, support = self.weight[...], self.support[...]
        if self.constraint == "softmax":
            return jax.nn.softmax(jnp.where(support, weight, -jnp.inf), axis=-1)
        weight = jnp.where(support, weight, 0)
        return weight / lax.stop_gradient(weight.sum(-1, keepdims=True)) if self.constraint == "detached" else weight

    def project(self) -> None:
        """Puts the rows back onto the simplex, in place; does nothing under the other constraints."""
        support, weight = self.support[...], self.weight[...]
        if self.constraint == "projected":
            onto_simplex = jnp.vectorize(optax.projections.projection_simplex, signature="(n)->(n)")
            self.weight[...] = onto_simplex(jnp.where(support, weight, OUTSIDE))
        elif self.constraint == "clipped":
            weight = jnp.where(support, jnp.maximum(weight, 0), 0)
            total = weight.sum(-1, keepdims=True)
            uniform = support / support.sum(-1, keepdims=True)
            self.weight[...] = jnp.where(total > 0, weight / jnp.where(total > 0, total, 1), uniform)


class LearnedPsf(nnx.Module):
    """A PSF kernel, one for all bands, that starts as a mean over the low-resolution pixel.

    On nested grids the kernel covers exactly that pixel, ``ratio`` x ``ratio`` taps without overlap; elsewhere it has
    ``2 ratio + 1`` taps around `Grid.phase`.

    Args:
        size: taps a side, where the default does not serve; one more where it is even and the grid is not nested, so
            that there are as many on both sides of the phase.
    """

    def __init__(self, grid: Grid, constraint: Constraint = "softmax", size: int | None = None) -> None:
        nested = grid == Grid.nested(grid.ratio)
        size = size or (grid.ratio if nested else 2 * grid.ratio)
        self.grid, self.size = grid, size if nested else size | 1
        with jax.ensure_compile_time_eval():
            box = np.asarray(psf_kernel(box_psf(grid)))
        start = self.size // 2 - box.shape[0] // 2
        index = np.arange(self.size) - start
        inside = (index >= 0) & (index < box.shape[0])
        index = np.clip(index, 0, box.shape[0] - 1)
        kernel = box[np.ix_(index, index)] * np.outer(inside, inside)
        self.weights = Weights(jnp.asarray(kernel / kernel.sum()).reshape(1, -1), constraint)

    def __call__(self) -> SpatialResponse:
        """The operator, with reflected borders."""
        kernel = self.weights().reshape(self.size, self.size)
        return SpatialResponse(kernel, self.grid.ratio, self.grid.phase, "reflect")


class LearnedSrf(nnx.Module):
    """The spectral response of the guide, a row of weights for each of its bands.

    Args:
        bands: of the pair.
        support: which bands of `lr` each band of the guide may see, ``(guide band, lr band)``; None for all.
        middle: whether a row starts as a Gaussian in the middle of its support, and not flat.
    """

    def __init__(
        self, bands: Bands, constraint: Constraint = "softmax", support: Array | None = None, middle: bool = False
    ) -> None:
        shape = (bands.guide, bands.lr)
        mask = np.ones(shape, bool) if support is None else np.asarray(support, bool)
        if mask.shape != shape or not mask.any(1).all():
            raise InputError(
                f"the support of the spectral response must be (guide band, lr band) = {shape}, no row empty, but it "
                f"is {mask.shape} with {int((~mask.any(-1)).sum())} empty rows; give wider bands."
            )
        index = np.arange(bands.lr)
        centre = np.array([index[row].mean() for row in mask])[:, None]
        initial = np.exp(-0.5 * ((index - centre) / BAND_SIGMA) ** 2) if middle else np.ones(shape)
        initial = np.where(mask, np.maximum(initial, 1e-6), 0)
        initial = initial / initial.sum(1, keepdims=True)
        self.weights = Weights(jnp.asarray(initial, jnp.float32), constraint, jnp.asarray(mask))

    def __call__(self) -> SpectralResponse:
        """The operator."""
        return SpectralResponse(self.weights())
