"""Warps: an image seen from a grid that is shifted or deformed, and a sensor whose image is so displaced."""

from __future__ import annotations

import math
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np
from jax import Array

from jfusion.errors import InputError
from jfusion.operators.linear import LinearOperator, as_image, pytree, static_field
from jfusion.operators.spatial import Blur, SpatialResponse

Border = Literal["edge", "zero"]
"""What lies outside an image: its edge pixels repeated, or zeros, from the first pixel outside on."""

POLE, REACH = math.sqrt(3) - 2, 10
"""Of the filter from samples to the controls of the cubic spline through them; how many pixels it has to each side."""


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
    row, column = _displaced(displacement, size)
    if border == "edge":
        return sampled(x, row, column)
    return sampled(jnp.pad(x, (*((0, 0),) * (x.ndim - 3), (1, 1), (1, 1), (0, 0))), row + 1, column + 1)


def _displaced(displacement: Array, size: tuple[int, ...]) -> tuple[Array, Array]:
    """Row and column that each pixel of an image of this size is displaced to.

    Raises:
        InputError: shapes that do not fit.
    """
    if displacement.shape not in ((2,), (*size, 2)):
        raise InputError(
            f"the displacement must be (2,) or (height, width, 2) = {(*size, 2)}, but its shape is "
            f"{displacement.shape}; give the field of this image, and vmap over fields."
        )
    return jnp.arange(size[0])[:, None] + displacement[..., 0], jnp.arange(size[1])[None, :] + displacement[..., 1]


def sampled(x: Array, row: Array, column: Array) -> Array:
    """The image ``(..., height, width, band)`` at these rows and columns, of shape ``(h, w)``; edges are repeated."""
    height, width = x.shape[-3:-1]
    row, column = jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)
    top = jnp.clip(jnp.floor(row).astype(int), 0, max(height - 2, 0))
    left = jnp.clip(jnp.floor(column).astype(int), 0, max(width - 2, 0))
    bottom, right = jnp.minimum(top + 1, height - 1), jnp.minimum(left + 1, width - 1)
    v, u = (row - top)[..., None].astype(x.dtype), (column - left)[..., None].astype(x.dtype)
    above = x[..., top, left, :] * (1 - u) + x[..., top, right, :] * u
    below = x[..., bottom, left, :] * (1 - u) + x[..., bottom, right, :] * u
    return above * (1 - v) + below * v


def spline(place: Array) -> Array:
    """The uniform cubic B-spline about 0."""
    distance = jnp.abs(place)
    near = 2 / 3 - distance**2 + distance**3 / 2
    return jnp.where(distance < 1, near, jnp.maximum(2 - distance, 0) ** 3 / 6)


def controls(image: Array) -> Array:
    """What the splines of an image ``(..., height, width, band)`` are multiplied by, for `on_spline`.

    Unser, "Splines: a perfect fit for signal and image processing", IEEE Signal Processing Magazine 16(6), 1999.
    """
    half = min(REACH, *(n - 1 for n in image.shape[-3:-1]))
    taps = POLE ** np.abs(np.arange(-half, half + 1))
    profile = jnp.asarray(taps / taps.sum(), image.dtype)
    return Blur((profile, profile), "reflect")(image)


def on_spline(controls: Array, row: Array, column: Array) -> Array:
    """The cubic spline through an image at these rows and columns, of shape ``(h, w)``; edges are repeated.

    Twice continuously differentiable in the position.
    """
    size = controls.shape[-3:-1]
    row, column = (jnp.clip(at, 0, n - 1) for at, n in zip((row, column), size, strict=True))
    total: Array | float = 0.0
    for i in range(-1, 3):
        for j in range(-1, 3):
            down, along = jnp.floor(row).astype(int) + i, jnp.floor(column).astype(int) + j
            weight = spline(row - down) * spline(column - along)
            mirrored = [jnp.abs(at) for at in (down, along)]
            mirrored = [jnp.minimum(at, jnp.abs(2 * n - 2 - at)) for at, n in zip(mirrored, size, strict=True)]
            total = total + controls[..., mirrored[0], mirrored[1], :] * weight[..., None].astype(controls.dtype)
    return jnp.asarray(total)


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


@pytree
class Displaced(LinearOperator):
    """A spatial response whose image is displaced: ``y[p] = (blur x)(ratio (p + displacement[p]) + phase)``.

    The blurred image is sampled between its pixels, which are those of the high resolution, by cubic splines, so that
    next to nothing is lost to interpolation. Where the displacement is zero it is the response itself. Pixels whose
    content lies beyond the scene see its edge, so that a system has to leave them out; see `on_scene`.

    Attributes:
        response: of the sensor if its image were in place.
        displacement: (row, column) in low-resolution pixels, ``(2,)`` for one shift of the whole image or
            ``(h, w, 2)``: how far from each pixel its content lies.
    """

    response: SpatialResponse
    displacement: Array

    def __call__(self, x: Array) -> Array:
        blurred, ratio = controls(self.response.blur(x)), self.response.ratio
        size = blurred.shape[-3] // ratio, blurred.shape[-2] // ratio
        row, column = (
            ratio * place + start
            for place, start in zip(_displaced(self.displacement, size), self.response.phase, strict=True)
        )
        return on_spline(blurred, row, column)

    def on_scene(self, size: tuple[int, ...]) -> Array:
        """Which pixels of a low-resolution image of this height and width show a part of the scene, ``(h, w)``."""
        places = _displaced(self.displacement, size)
        return jnp.logical_and(*[(at >= -0.5) & (at <= n - 0.5) for at, n in zip(places, size, strict=True)])

    def input_shape(self, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.response.input_shape(output_shape)
