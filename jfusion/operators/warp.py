"""Warps: an image seen from a grid that is shifted or deformed."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from jfusion.operators.linear import LinearOperator, as_image, pytree


@pytree
class Warp(LinearOperator):
    """Bilinear sampling at displaced positions: ``y[p] = x(p + displacement[p])``, edges repeated.

    Linear in the image and differentiable in the displacement.

    Attributes:
        displacement: (row, column) in pixels, ``(2,)`` for one shift of the whole image or ``(height, width, 2)``.
    """

    displacement: Array

    def __call__(self, x: Array) -> Array:
        x = as_image(x, "the image to warp")
        height, width = x.shape[-3:-1]
        d = self.displacement
        row = jnp.clip(jnp.arange(height)[:, None] + d[..., 0], 0, height - 1)
        column = jnp.clip(jnp.arange(width)[None, :] + d[..., 1], 0, width - 1)
        top = jnp.clip(jnp.floor(row).astype(int), 0, max(height - 2, 0))
        left = jnp.clip(jnp.floor(column).astype(int), 0, max(width - 2, 0))
        bottom, right = jnp.minimum(top + 1, height - 1), jnp.minimum(left + 1, width - 1)
        v, u = (row - top)[..., None].astype(x.dtype), (column - left)[..., None].astype(x.dtype)
        above = x[..., top, left, :] * (1 - u) + x[..., top, right, :] * u
        below = x[..., bottom, left, :] * (1 - u) + x[..., bottom, right, :] * u
        return above * (1 - v) + below * v

    def input_shape(self, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        return output_shape
