"""What all metrics share: images and masks that fit, and means over the pixels that count."""

from __future__ import annotations

from typing import get_args

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jfusion.errors import InputError

PIXELS = (-3, -2)


def check_convention(convention: str, conventions: object) -> None:
    """Raises InputError unless ``convention`` is one of the literal type ``conventions``."""
    if convention not in get_args(conventions):
        raise InputError(f"the convention must be one of {', '.join(get_args(conventions))}, but is {convention!r}.")


def image_pair(product: ArrayLike, reference: ArrayLike, mask: ArrayLike | None) -> tuple[Array, Array, Array | None]:
    """Both images in floating point with zeros outside the mask, and the mask as ``(height, width, 1)``.

    Integers and half precision become float32; float32 and float64 are kept.

    Raises:
        InputError: the shapes differ, an image has fewer than three axes, or the mask is not a boolean
            ``(height, width)``.
    """
    x, y = jnp.asarray(product), jnp.asarray(reference)
    if x.ndim < 3 or x.shape != y.shape:
        raise InputError(
            "product and reference must be images (..., height, width, band) of one shape, but are "
            f"{x.shape} and {y.shape}; crop or resample one to the other."
        )
    dtype = jnp.promote_types(jnp.result_type(x, y), jnp.float32)
    x, y = x.astype(dtype), y.astype(dtype)
    if mask is None:
        return x, y, None
    valid = pixel_mask(mask, x.shape)
    return jnp.where(valid, x, 0), jnp.where(valid, y, 0), valid


def pixel_mask(mask: ArrayLike, shape: tuple[int, ...]) -> Array:
    """The mask as ``(height, width, 1)``.

    Raises:
        InputError: the mask is not boolean or not of the height and width of ``shape``.
    """
    valid = jnp.asarray(mask)
    if valid.dtype != bool or valid.shape != shape[-3:-1]:
        raise InputError(
            f"the mask must be boolean of shape {shape[-3:-1]}, True where a pixel is valid, "
            f"but is {valid.dtype} of shape {valid.shape}."
        )
    return valid[..., None]


def valid_mean(x: Array, valid: Array | None, axes: tuple[int, ...] = PIXELS) -> Array:
    """Mean over ``axes`` of the entries that are valid (all where ``valid`` is None); nan where none is."""
    if valid is None:
        return x.mean(axes)
    return jnp.where(valid, x, 0).sum(axes) / jnp.broadcast_to(valid, x.shape).sum(axes)


def valid_max(x: Array, valid: Array | None) -> Array:
    """Largest valid value of each band, ``(..., band)``."""
    return x.max(PIXELS) if valid is None else jnp.max(x, PIXELS, where=valid, initial=-jnp.inf)


def is_constant(x: Array, valid: Array | None) -> Array:
    """Whether all valid pixels of a band hold one value, ``(..., band)``."""
    return valid_max(x, valid) == -valid_max(-x, valid)


def valid_windows(valid: Array | None, size: int) -> Array | None:
    """Which ``size`` x ``size`` windows inside ``(height, width, 1)`` have valid pixels only; None stays None."""
    if valid is None:
        return None
    for axis in (0, 1):
        window = [1, 1, 1]
        window[axis] = size
        valid = lax.reduce_window(valid, True, lax.bitwise_and, window, (1, 1, 1), "valid")
    return valid
