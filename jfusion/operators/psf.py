"""Point spread functions, as arrays that `jfusion.operators.spatial` takes.

A one-dimensional profile of ``size`` taps has its origin at tap ``size // 2``; a `shift` moves the response towards
larger pixel indices, which is how a grid whose centre lies between two pixels is described.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jfusion.operators.grid import Grid

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))

MOMENTS = 17
"""Points of a motion's line that stand for all of it."""

Profiles = tuple[Array, Array]
"""A separable PSF: vertical and horizontal profile, each ``(taps,)`` or ``(taps, band)``."""


def gaussian_profile(sigma: ArrayLike, size: int, shift: float = 0.0) -> Array:
    """Sampled Gaussian that sums to one.

    Args:
        sigma: standard deviation in pixels, a number or one per band ``(band,)``.
        size: number of taps.
        shift: displacement of the response in pixels.

    Returns:
        ``(size,)`` or ``(size, band)``.
    """
    sigma = jnp.asarray(sigma)
    offset = jnp.arange(size) - size // 2 + shift
    offset = offset.reshape((size,) + (1,) * sigma.ndim)
    return jax.nn.softmax(-0.5 * (offset / sigma) ** 2, axis=0)


def gaussian_psf(
    sigma: ArrayLike, grid: Grid, truncate: float = 3.0, beside: tuple[float, float] = (0.0, 0.0)
) -> Profiles:
    """Gaussian PSF centred on the low-resolution pixels of ``grid``.

    Args:
        sigma: standard deviation in high-resolution pixels, a number or one per band.
        grid: ratio and centre of the pair.
        truncate: half width in standard deviations (of the widest band).
        beside: (row, column) from those centres to the PSF's own, in high-resolution pixels.
    """
    half = math.ceil(truncate * float(np.max(np.asarray(sigma))) + max(map(abs, beside))) + 1
    vertical, horizontal = (
        gaussian_profile(sigma, 2 * half + 1, s + b) for s, b in zip(grid.shift, beside, strict=True)
    )
    return vertical, horizontal


def moving_psf(
    sigma: ArrayLike, angle: ArrayLike, motion: ArrayLike, way: ArrayLike, shift: ArrayLike, *, taps: int
) -> Array:
    """PSF of a Gaussian blur, round or not, while the sensor moves along a line at constant speed.

    Args:
        sigma: two standard deviations, in pixels.
        angle: of the first of them against the columns' direction (downwards), radians.
        motion: length of the line, in pixels.
        way: its angle, in the same sense.
        shift: displacement of the response along rows and columns, in pixels; see the module.
        taps: rows and columns.

    Returns:
        ``(taps, taps)``, of sum one.
    """
    sigma, angle, way, shift = (jnp.asarray(x) for x in (sigma, angle, way, shift))
    offset = jnp.stack(jnp.meshgrid(*[jnp.arange(taps) - taps // 2] * 2, indexing="ij"), -1) + shift
    axes = jnp.array([[jnp.cos(angle), jnp.sin(angle)], [-jnp.sin(angle), jnp.cos(angle)]])
    along = jnp.linspace(-0.5, 0.5, MOMENTS)[:, None] * jnp.asarray(motion) * jnp.stack([jnp.cos(way), jnp.sin(way)])
    distance = jnp.matmul(offset - along[:, None, None], axes.T, precision="highest") / sigma
    exponent = -0.5 * jnp.sum(distance**2, -1)
    kernel = jnp.exp(exponent - exponent.max()).sum(0)
    return kernel / kernel.sum()


def mtf_sigma(gain: ArrayLike, ratio: int) -> np.ndarray:
    """Standard deviation, in high-resolution pixels, of the Gaussian whose MTF is ``gain`` at the LR Nyquist frequency.

    Aiazzi et al., "MTF-tailored multiscale fusion of high-resolution MS and Pan imagery", PE&RS 72(5), 2006. The
    frequency-designed 41-tap filters of common toolboxes are this Gaussian with 41/40 of its standard deviation.
    """
    return ratio * np.sqrt(-2 * np.log(np.asarray(gain, np.float64))) / np.pi


def mtf_psf(gain: ArrayLike, grid: Grid, beside: tuple[float, float] = (0.0, 0.0)) -> Profiles:
    """Gaussian PSF matched to the MTF gain at the Nyquist frequency, a number or one per band.

    See `mtf_sigma`, and `gaussian_psf` for ``beside``.
    """
    return gaussian_psf(mtf_sigma(gain, grid.ratio), grid, beside=beside)


def box_psf(grid: Grid) -> Profiles:
    """Mean over ``ratio`` pixels around each centre, with fractional end taps where the centre asks for them."""
    ratio = grid.ratio
    size = 2 * (ratio // 2 + 1) + 1

    def profile(shift: float) -> Array:
        offset = size // 2 - np.arange(size) - shift
        cover = np.minimum(offset + 0.5, ratio / 2) - np.maximum(offset - 0.5, -ratio / 2)
        return jnp.asarray(np.clip(cover, 0, 1) / ratio, jnp.float32)

    return profile(grid.shift[0]), profile(grid.shift[1])
