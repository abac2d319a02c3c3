"""Quality indices over windows: SSIM, the universal image quality index and its hypercomplex extension Q2n.

Images are ``(..., height, width, band)``, results ``(...)``. With a mask (boolean ``(height, width)``, True where a
pixel counts) only windows without an invalid pixel count; with none left the result is nan.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jfusion.errors import InputError
from jfusion.metrics.pixels import check_convention, image_pair, valid_mean, valid_windows

SsimConvention = Literal["wang", "uniform7"]


@partial(jax.jit, static_argnames="convention")
def ssim(
    product: ArrayLike,
    reference: ArrayLike,
    *,
    data_range: ArrayLike = 1.0,
    convention: SsimConvention = "wang",
    mask: ArrayLike | None = None,
) -> Array:
    """Structural similarity (Wang et al., 2004), mean over windows inside the image and over bands; one is best.

    Args:
        data_range: largest value that the data can have; it sets the constants ``(0.01 R)^2`` and ``(0.03 R)^2``.
        convention: the window.

            - "wang": 11 x 11 Gaussian of sigma 1.5, the paper's and that of ``cal_ssim`` and ``tf.image.ssim``.
            - "uniform7": 7 x 7 mean with sample covariance, scikit-image's default (MHF-Net, PZRes).

    Raises:
        InputError: unknown convention, shapes that do not fit, or images smaller than the window.
    """
    check_convention(convention, SsimConvention)
    x, y, valid = image_pair(product, reference, mask)
    if convention == "wang":
        profile = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
        profile, sample = profile / profile.sum(), 1.0
    else:
        profile, sample = np.full(7, 1 / 7), 49 / 48
    check_window(len(profile), x.shape)

    # Second moments about a level near the data, so that float32 keeps small variances of bright images.
    level = valid_mean(y, valid)[..., None, None, :]
    x, y = x - level, y - level
    moments = _smooth(jnp.stack([x, y, x * x + y * y, x * y]), profile)
    mean_x, mean_y = moments[0], moments[1]
    variances = sample * (moments[2] - mean_x**2 - mean_y**2)
    covariance = sample * (moments[3] - mean_x * mean_y)
    mean_x, mean_y = mean_x + level, mean_y + level
    peak = jnp.asarray(data_range, x.dtype)
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    quality = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1) * (2 * covariance + c2) / (variances + c2)
    return valid_mean(quality, valid_windows(valid, len(profile))).mean(-1)


@partial(jax.jit, static_argnames="block")
def uiqi(product: ArrayLike, reference: ArrayLike, *, block: int = 32, mask: ArrayLike | None = None) -> Array:
    """Universal image quality index Q (Wang and Bovik, 2002), mean over windows and bands; one is best.

    Windows of ``block`` x ``block`` pixels slide by one pixel inside the image (``img_qi``; DLPan-Toolbox's Q_avg).
    Two windows that are both constant have equal structure, two of mean zero equal luminance: that factor is one.

    Raises:
        InputError: shapes that do not fit, or images smaller than the window.
    """
    x, y, valid = image_pair(product, reference, mask)
    check_window(block, x.shape)
    moments = _window_moments(x, y, block)
    return valid_mean(quality_index(moments), valid_windows(valid, block)).mean(-1)


@partial(jax.jit, static_argnames="block")
def q2n(product: ArrayLike, reference: ArrayLike, *, block: int = 32, mask: ArrayLike | None = None) -> Array:
    """Hypercomplex quality index Q2n (Garzelli and Nencini, 2009; Q4 of Alparone et al., 2004); one is best.

    The bands are the components of one hypercomplex number, padded by constant bands to a power of two. Per distinct
    block both images are normalised by the reference's mean and standard deviation of each band, and the modulus of
    their hypercomplex correlation is multiplied by contrast and mean bias; then the mean over blocks. Rows and
    columns that the last blocks lack are mirrored, as in DLPan-Toolbox; values are not rounded to integers.

    A band that is constant in the reference's block has no deviation and is divided by its mean (the toolbox divides
    by the machine epsilon). Blocks that are constant in all bands of both images have their mean bias as quality.

    Raises:
        InputError: shapes that do not fit, or a block of fewer than 2 pixels.
    """
    x, y, valid = image_pair(product, reference, mask)
    if block < 2:
        raise InputError(f"the block must have a side of at least 2 pixels, but has {block}.")
    bands = x.shape[-1]
    x, y = (blocks(_mirror(image, block), block) for image in (x, y))

    mean_x, x = center(x)
    mean_y, y = center(y)
    deviation = jnp.sqrt((y**2).sum(-2, keepdims=True) / (block**2 - 1))
    scale = jnp.where(deviation > 0, deviation, jnp.where(mean_y == 0, 1, jnp.abs(mean_y)))
    x, y, shift = x / scale, y / scale, (mean_x - mean_y) / scale

    size = 1 << (bands - 1).bit_length()
    norm_y = jnp.sqrt(jnp.asarray(size, x.dtype))
    norm_x = jnp.sqrt(((1 + shift) ** 2).sum((-2, -1)) + size - bands)
    mean_bias = 2 * norm_x * norm_y / (norm_x**2 + norm_y**2)
    covariance = hypercomplex_modulus(cross_covariance(y, x))
    variance = ((x**2).mean(-2) + (y**2).mean(-2)).sum(-1)
    quality = mean_bias * _ratio(2 * covariance, variance)
    if valid is None:
        return quality.mean(-1)
    return valid_mean(quality, blocks(_mirror(valid, block), block).all((-2, -1)), (-1,))


class Moments(NamedTuple):
    """Means of two images over windows, their covariance, and the sum of their variances."""

    mean_x: Array
    mean_y: Array
    covariance: Array
    variances: Array


def quality_index(m: Moments) -> Array:
    """Wang and Bovik's Q of one window: covariance and contrast times luminance, in [-1, 1]."""
    return _ratio(2 * m.covariance, m.variances) * _ratio(2 * m.mean_x * m.mean_y, m.mean_x**2 + m.mean_y**2)


def _ratio(a: Array, b: Array) -> Array:
    """``a / b``, and one where ``b`` is zero."""
    return jnp.where(b == 0, 1, a / jnp.where(b == 0, 1, b))


def _merge(a: Moments, b: Moments, weight: float) -> Moments:
    """Moments of the union of two windows, of which ``b`` holds the share ``weight`` of the pixels (Chan, 1979)."""
    dx, dy = b.mean_x - a.mean_x, b.mean_y - a.mean_y
    between = weight * (1 - weight)
    return Moments(
        a.mean_x + weight * dx,
        a.mean_y + weight * dy,
        (1 - weight) * a.covariance + weight * b.covariance + between * dx * dy,
        (1 - weight) * a.variances + weight * b.variances + between * (dx**2 + dy**2),
    )


def _window_moments(x: Array, y: Array, size: int) -> Moments:
    """Moments over all windows of ``size`` x ``size`` pixels inside the image.

    Windows are merged from halves, so that no large squares cancel: constant windows have variance exactly zero.
    """
    moments = Moments(x, y, jnp.zeros_like(x), jnp.zeros_like(x))
    for axis in (x.ndim - 3, x.ndim - 2):
        moments = _moments_along(moments, size, axis)
    return moments


def _moments_along(moments: Moments, size: int, axis: int) -> Moments:
    def part(m: Moments, start: int, length: int) -> Moments:
        return jax.tree.map(lambda a: lax.slice_in_dim(a, start, start + length, axis=axis), m)

    outputs = moments.mean_x.shape[axis] - size + 1
    result, done, width = moments, 0, 1
    while True:
        if size & width:
            piece = part(moments, done, outputs)
            result = _merge(result, piece, width / (done + width)) if done else piece
            done += width
        if done == size:
            return result
        length = moments.mean_x.shape[axis] - width
        moments = _merge(part(moments, 0, length), part(moments, width, length), 0.5)
        width *= 2


def _smooth(x: Array, profile: np.ndarray) -> Array:
    """Weighted mean over the windows inside the image, by the same profile along both axes."""
    for axis in (x.ndim - 3, x.ndim - 2):
        outputs = x.shape[axis] - len(profile) + 1
        x = sum(  # type: ignore[assignment]
            float(w) * lax.slice_in_dim(x, k, k + outputs, axis=axis) for k, w in enumerate(profile)
        )
    return x


def check_window(size: int, shape: tuple[int, ...]) -> None:
    """Raises InputError unless a window of ``size`` x ``size`` pixels fits an image of this shape."""
    if not 2 <= size <= min(shape[-3:-1]):
        raise InputError(
            f"a window of {size} x {size} pixels does not fit an image of {shape[-3]} x {shape[-2]}; "
            "use a larger image or, where the metric has it, a smaller block (of at least 2)."
        )


def _mirror(x: Array, block: int) -> Array:
    """The image continued by its mirror image to multiples of the block."""
    missing = ((0, -x.shape[-3] % block), (0, -x.shape[-2] % block), (0, 0))
    return jnp.pad(x, (*((0, 0),) * (x.ndim - 3), *missing), mode="symmetric")


def blocks(x: Array, size: int) -> Array:
    """Distinct blocks ``(..., block, pixel, band)``; rows and columns that do not fill one are left out."""
    *batch, height, width, bands = x.shape
    rows, columns = height // size, width // size
    x = x[..., : rows * size, : columns * size, :].reshape(*batch, rows, size, columns, size, bands)
    return jnp.swapaxes(x, -4, -3).reshape(*batch, rows * columns, size * size, bands)


def center(x: Array) -> tuple[Array, Array]:
    """Mean over pixels ``(..., 1, band)`` and deviation ``(..., pixel, band)``, exactly zero for constants."""
    first = x[..., :1, :]
    deviation = x - first
    mean = deviation.mean(-2, keepdims=True)
    return first + mean, deviation - mean


def cross_covariance(x: Array, y: Array) -> Array:
    """Covariance ``(..., band of x, band of y)`` of deviations ``(..., pixel, band)``."""
    return jnp.einsum("...pi,...pj->...ij", x, y, precision="highest") / x.shape[-2]


@lru_cache
def cayley_dickson_signs(size: int) -> np.ndarray:
    """Signs s of the hypercomplex units: ``e_i e_j = s[i, j] e_(i xor j)``, for ``size`` units (a power of two).

    Doubling ``(a, b)(c, d) = (a c - conj(d) b, d a + b conj(c))``: complex numbers, quaternions, octonions, ...
    """
    if size == 1:
        return np.ones((1, 1), np.int8)
    half = cayley_dickson_signs(size // 2)
    conjugate = np.where(np.arange(size // 2) == 0, 1, -1).astype(np.int8)
    return np.block([[half, half.T], [half * conjugate, -half.T * conjugate]])


def hypercomplex_modulus(covariance: Array) -> Array:
    """Modulus of the mean of ``x conj(y)``, from the means of the products ``x_i y_j``: ``(..., i, j)``.

    Component k of the product is the signed sum over all i of entry ``(i, i xor k)``.
    """
    bands = covariance.shape[-1]
    size = 1 << (bands - 1).bit_length()
    signs = cayley_dickson_signs(size) * np.where(np.arange(size) == 0, 1, -1)
    covariance = covariance * signs[:bands, :bands].astype(covariance.dtype)
    row = np.arange(bands)
    column = row ^ np.arange(size)[:, None]
    inside = column < bands
    terms = covariance[..., row, np.where(inside, column, 0)]
    return jnp.linalg.norm(jnp.where(inside, terms, 0).sum(-1), axis=-1)
