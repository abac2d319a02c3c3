"""Point spread functions, as arrays that `jfusion.operators.spatial` takes.

A one-dimensional profile of ``size`` taps has its origin at tap ``size // 2``; a `shift` moves the response towards
larger pixel indices, which is how a grid whose centre lies between two pixels is described.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jfusion.operators.grid import Grid

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))

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
    profile = jnp.exp(-0.5 * (offset / sigma) ** 2)
    return profile / profile.sum(0)


def gaussian_psf(sigma: ArrayLike, grid: Grid, truncate: float = 3.0) -> Profiles:
    """Gaussian PSF centred on the low-resolution pixels of ``grid``.

    Args:
        sigma: standard deviation in high-resolution pixels, a number or one per band.
        grid: ratio and centre of the pair.
        truncate: half width in standard deviations (of the widest band).
    """
    half = math.ceil(truncate * float(np.max(np.asarray(sigma)))) + 1
    vertical, horizontal = (gaussian_profile(sigma, 2 * half + 1, s) for s in grid.shift)
    return vertical, horizontal


def mtf_sigma(gain: ArrayLike, ratio: int) -> np.ndarray:
    """Standard deviation, in high-resolution pixels, of the Gaussian whose MTF is ``gain`` at the LR Nyquist frequency.

    Aiazzi et al., "MTF-tailored multiscale fusion of high-resolution MS and Pan imagery", PE&RS 72(5), 2006. The
    frequency-designed 41-tap filters of common toolboxes are this Gaussian with 41/40 of its standard deviation.
    """
    return ratio * np.sqrt(-2 * np.log(np.asarray(gain, np.float64))) / np.pi


def mtf_psf(gain: ArrayLike, grid: Grid) -> Profiles:
    """Gaussian PSF matched to the MTF gain at the Nyquist frequency, a number or one per band; see `mtf_sigma`."""
    return gaussian_psf(mtf_sigma(gain, grid.ratio), grid)


def box_psf(grid: Grid) -> Profiles:
    """Mean over ``ratio`` pixels around each centre, with fractional end taps where the centre asks for them."""
    ratio = grid.ratio
    size = 2 * (ratio // 2 + 1) + 1

    def profile(shift: float) -> Array:
        offset = size // 2 - np.arange(size) - shift
        cover = np.minimum(offset + 0.5, ratio / 2) - np.maximum(offset - 0.5, -ratio / 2)
        return jnp.asarray(np.clip(cover, 0, 1) / ratio, jnp.float32)

    return profile(grid.shift[0]), profile(grid.shift[1])
