"""Resizing inside networks: the step down that belongs to `jfusion.operators.upsample`."""

from __future__ import annotations

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jfusion.operators import Grid
from jfusion.operators.resample import Interpolation, phase_weights
from jfusion.operators.spatial import check_divisible


def sample(image: Array, grid: Grid, method: Interpolation = "cubic") -> Array:
    """The image at the centres of the low-resolution pixels: interpolated between pixels, not blurred.

    It is what the resizing of deep learning libraries does on the way down, at the true place; where centres coincide
    with pixels it only picks them. It is no model of a sensor, which sees the whole of its pixel.

    Args:
        image: ``(..., height, width, band)``, height and width multiples of the ratio; edges are repeated outside.
        grid: ratio and centre.
        method: of `jfusion.operators.upsample`.

    Returns:
        ``(..., height / ratio, width / ratio, band)``.

    Raises:
        InputError: height or width is not a multiple of the ratio.
    """
    check_divisible(image.shape, grid.ratio)
    for axis, phase, shift in zip((-3, -2), grid.phase, grid.shift, strict=True):
        first, weights = phase_weights(1, -shift, method)
        size, taps = image.shape[axis], np.arange(weights.shape[1]) + first
        pads = [(0, 0)] * image.ndim
        pads[axis] = before, _ = max(-int(taps[0]), 0), max(int(taps[-1]), 0)
        padded = jnp.pad(image, pads, mode="edge")
        picked = (
            float(w) * jax.lax.slice_in_dim(padded, before + phase + k, before + size + k, grid.ratio, axis)
            for k, w in zip(taps.tolist(), weights[0], strict=True)
            if w
        )
        image = reduce(jnp.add, picked)
    return image
