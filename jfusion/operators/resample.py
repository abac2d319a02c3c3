"""Interpolation of the low-resolution image onto the high-resolution grid, with its phase."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np
from jax import Array

from jfusion.errors import InputError
from jfusion.operators.grid import Grid
from jfusion.operators.linear import as_image

Interpolation = Literal["nearest", "bilinear", "cubic", "interp23"]


def _keys(t: np.ndarray) -> np.ndarray:
    t = np.abs(t)
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


def _lagrange(fraction: np.ndarray, node: np.ndarray, taps: int) -> np.ndarray:
    others = np.arange(taps) - (taps // 2 - 1)
    terms = [(fraction - m) / np.where(node == m, 1, node - m) for m in others]
    return np.prod([np.where(node == m, 1, term) for m, term in zip(others, terms, strict=True)], axis=0)


def _weights(size: int, position: np.ndarray, taps: int, method: Interpolation) -> np.ndarray:
    """Matrix ``(positions, size)`` of a local interpolator at fractional positions, edges repeated."""
    base = np.floor(position + 0.5 if method == "nearest" else position).astype(int)
    fraction = (position - base)[:, None]
    node = np.arange(taps)[None, :] - (max(taps // 2, 1) - 1)
    if method == "nearest":
        weight = np.ones((len(position), 1))
    elif method == "bilinear":
        weight = np.maximum(1 - np.abs(fraction - node), 0)
    elif method == "cubic":
        weight = _keys(fraction - node)
    else:
        weight = _lagrange(fraction, node, taps)
    matrix = np.zeros((len(position), size))
    np.add.at(matrix, (np.arange(len(position))[:, None], np.clip(base[:, None] + node, 0, size - 1)), weight)
    return matrix


TAPS: dict[str, int] = {"nearest": 1, "bilinear": 2, "cubic": 4, "interp23": 12}


@lru_cache(maxsize=64)
def interpolation_matrix(size: int, ratio: int, centre: float, method: Interpolation) -> np.ndarray:
    """Interpolation along one axis as a matrix ``(size * ratio, size)``; float64, rows sum to one.

    The centre of sample i lies at ``ratio * i + centre`` on the fine axis. Edge samples are repeated outside.
    """
    doublings = ratio.bit_length() - 1
    if method == "interp23" and ratio == 2**doublings and centre == int(centre):
        matrix = np.eye(size)
        for k in reversed(range(doublings)):
            length = matrix.shape[0]
            position = (np.arange(2 * length) - (int(centre) >> k & 1)) / 2
            matrix = _weights(length, position, TAPS[method], method) @ matrix
        return matrix
    return _weights(size, (np.arange(size * ratio) - centre) / ratio, TAPS[method], method)


def upsample(image: Array, grid: Grid, method: Interpolation = "cubic") -> Array:
    """Interpolates the low-resolution image at every pixel of the high-resolution grid.

    Args:
        image: ``(..., height, width, band)``.
        grid: ratio and centre; a wrong centre shifts the result.
        method: "nearest", "bilinear", "cubic" (Keys, a = -1/2), or "interp23", the 23-tap half-band polynomial of
            Aiazzi et al., TGRS 40(10), 2002, applied log2(ratio) times where ratio is a power of two and the centre is
            an integer, and elsewhere the 12-point Lagrange polynomial that it samples.

    Returns:
        ``(..., height * ratio, width * ratio, band)``.

    Raises:
        InputError: not an image, or an unknown method.
    """
    image = as_image(image, "the image to interpolate")
    if method not in get_args(Interpolation):
        raise InputError(f"the interpolation must be one of {', '.join(get_args(Interpolation))}, but is {method!r}.")
    rows, columns = (
        jnp.asarray(interpolation_matrix(n, grid.ratio, float(c), method), image.dtype)
        for n, c in zip(image.shape[-3:-1], grid.centre, strict=True)
    )
    return jnp.einsum("ij,...jkc,lk->...ilc", rows, image, columns, precision="highest")
