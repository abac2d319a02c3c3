"""Patches that a loss draws from an image, on the device and from the key of its step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax


def corners(key: Array, extent: tuple[int, ...], size: tuple[int, ...], count: int) -> Array:
    """First row and column of so many patches, uniform over those that lie in the image.

    Args:
        key: random key.
        extent: height and width of the image.
        size: height and width of a patch, at most the image's.
        count: of patches.

    Returns:
        ``(count, 2)``, integers.
    """
    keys = jax.random.split(key)
    drawn = [jax.random.randint(k, (count,), 0, n - m + 1) for k, n, m in zip(keys, extent, size, strict=True)]
    return jnp.stack(drawn, -1)


def cut(image: Array, corners: Array, size: tuple[int, ...]) -> Array:
    """Patches of one image.

    Args:
        image: ``(1, height, width, band)``.
        corners: ``(count, 2)``.
        size: height and width of a patch.

    Returns:
        ``(count, *size, band)``.
    """

    def patch(corner: Array) -> Array:
        return lax.dynamic_slice(image[0], (corner[0], corner[1], 0), (*size, image.shape[-1]))

    return jax.vmap(patch)(corners)
