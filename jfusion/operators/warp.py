"""Warps: an image seen from a grid that is shifted or deformed."""

from __future__ import annotations

from typing import Literal, get_args

import jax.numpy as jnp
from jax import Array

from jfusion.errors import InputError
from jfusion.operators.linear import LinearOperator, as_image, pytree, static_field

Border = Literal["edge", "zero"]
"""What lies outside an image: its edge pixels repeated, or zeros, from the first pixel outside on."""


def warp(image: Array, displacement: Array, border: Border = "edge") -> Array:
    """Bilinear sampling at displaced positions: ``y[p] = x(p + displacement[p])``.

    Linear in the image and differentiable in the displacement, at whole pixels from one side.

    Args:
        image: x, ``(..., height, width, band)``.
        displacement: (row, column) in pixels of the image, ``(height, width, 2)``, or ``(2,)`` for one shift.
        border: see `Border`.

    Returns:
        y, of the image's shape.

    Raises:
        InputError: shapes that do not fit, or another border.
    """
    x = as_image(image, "the image to warp")
    size = x.shape[-3:-1]
    if border not in get_args(Border):
        raise InputError(f"the border must be one of {', '.join(get_args(Border))}, but is {border!r}.")
    if displacement.shape not in ((2,), (*size, 2)):
        raise InputError(
            f"the displacement must be (2,) or (height, width, 2) = {(*size, 2)}, but its shape is "
            f"{displacement.shape}; give the field of this image, and vmap over fields."
        )
    row = jnp.arange(size[0])[:, None] + displacement[..., 0]
    column = jnp.arange(size[1])[None, :] + displacement[..., 1]
    if border == "edge":
        return _sampled(x, row, column)
    return _sampled(jnp.pad(x, (*((0, 0),) * (x.ndim - 3), (1, 1), (1, 1), (0, 0))), row + 1, column + 1)


def _sampled(x: Array, row: Array, column: Array) -> Array:
    """The image at these positions, edges repeated."""
    height, width = x.shape[-3:-1]
    row, column = jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)
    top = jnp.clip(jnp.floor(row).astype(int), 0, max(height - 2, 0))
    left = jnp.clip(jnp.floor(column).astype(int), 0, max(width - 2, 0))
    bottom, right = jnp.minimum(top + 1, height - 1), jnp.minimum(left + 1, width - 1)
    v, u = (row - top)[..., None].astype(x.dtype), (column - left)[..., None].astype(x.dtype)
    above = x[..., top, left, :] * (1 - u) + x[..., top, right, :] * u
    below = x[..., bottom, left, :] * (1 - u) + x[..., bottom, right, :] * u
    return above * (1 - v) + below * v


@pytree
class Warp(LinearOperator):
    """`warp` as an operator.

    Attributes:
        displacement: (row, column) in pixels, ``(2,)`` for one shift of the whole image or ``(height, width, 2)``.
        border: see `Border`.
    """

    displacement: Array
    border: Border = static_field(default="edge")

    def __call__(self, x: Array) -> Array:
        return warp(x, self.displacement, self.border)

    def input_shape(self, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        return output_shape
