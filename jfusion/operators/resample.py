"""Interpolation of the low-resolution image onto the high-resolution grid, with its phase."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args

import jax
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


TAPS: dict[str, int] = {"nearest": 1, "bilinear": 2, "cubic": 4, "interp23": 12}


@lru_cache(maxsize=64)
def phase_weights(ratio: int, centre: float, method: Interpolation) -> tuple[int, np.ndarray]:
    """A local interpolator along one axis: fine sample ``ratio * i + p`` is ``sum_k weights[p, k] x[i + first + k]``.

    The centre of sample i lies at ``ratio * i + centre`` on the fine axis.

    Returns:
        first, and the weights ``(ratio, taps)`` in float64, whose rows sum to one.
    """
    taps = TAPS[method]
    position = (np.arange(ratio) - centre) / ratio
    base = np.floor(position + 0.5 if method == "nearest" else position).astype(int)
    fraction = (position - base)[:, None]
    node = np.arange(taps)[None, :] - (max(taps // 2, 1) - 1)
    if method == "nearest":
        weight = np.ones((ratio, 1))
    elif method == "bilinear":
        weight = np.maximum(1 - np.abs(fraction - node), 0)
    elif method == "cubic":
        weight = _keys(fraction - node)
    else:
        weight = _lagrange(fraction, node, taps)
    sample = base[:, None] + node
    first = int(sample.min())
    table = np.zeros((ratio, int(sample.max()) - first + 1))
    np.add.at(table, (np.arange(ratio)[:, None], sample - first), weight)
    return first, table


def _along(x: Array, axis: int, ratio: int, centre: float, method: Interpolation) -> Array:
    """Interpolates one axis; edge samples are repeated outside."""
    doublings = ratio.bit_length() - 1
    if method == "interp23" and doublings > 1 and ratio == 2**doublings and centre == int(centre):
        for k in reversed(range(doublings)):
            x = _along(x, axis, 2, int(centre) >> k & 1, method)
        return x
    first, weights = phase_weights(ratio, centre, method)
    size, taps = x.shape[axis], weights.shape[1]
    reached = np.clip(np.arange(first, size + first + taps - 1), 0, size - 1)
    # not jnp.take: in a loop its masks of what is out of bounds keep XLA from seeing that two results are the same
    padded = x.at[(slice(None),) * axis + (reached,)].get(mode="promise_in_bounds")
    shifted = [jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k in range(taps)]
    phases = [sum(float(w) * s for w, s in zip(row, shifted, strict=True) if w) for row in weights]
    return jnp.stack(phases, axis + 1).reshape(*x.shape[:axis], size * ratio, *x.shape[axis + 1 :])


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
    for axis, centre in zip((image.ndim - 3, image.ndim - 2), grid.centre, strict=True):
        image = _along(image, axis, grid.ratio, float(centre), method)
    return image
