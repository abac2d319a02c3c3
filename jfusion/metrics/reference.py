"""Metrics against a reference, pixel by pixel; those over windows are in `jfusion.metrics.quality`.

All take ``(..., height, width, band)`` and give one number per image, shape ``(...)``. ``mask`` is boolean
``(height, width)``, True where a pixel counts; what lies outside it, nan too, has no effect. With no valid pixel the
result is nan, and a nan inside the mask makes the result nan.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jfusion.errors import InputError
from jfusion.metrics.pixels import check_convention, image_pair, is_constant, valid_max, valid_mean, valid_windows

PsnrConvention = Literal["global", "band_mean", "image_max", "band_max", "dian8bit"]
ErgasConvention = Literal["wald", "squared_ratio", "peng"]
SccConvention = Literal["zhou", "toolbox"]


@jax.jit
def rmse(product: ArrayLike, reference: ArrayLike, *, mask: ArrayLike | None = None) -> Array:
    """Root mean squared error over all bands, in the units of the images."""
    x, y, valid = image_pair(product, reference, mask)
    return jnp.sqrt(valid_mean((x - y) ** 2, valid).mean(-1))


@partial(jax.jit, static_argnames="convention")
def psnr(
    product: ArrayLike,
    reference: ArrayLike,
    *,
    data_range: ArrayLike = 1.0,
    convention: PsnrConvention = "global",
    mask: ArrayLike | None = None,
) -> Array:
    """Peak signal-to-noise ratio ``10 log10(peak^2 / MSE)`` in dB; inf where the error is zero.

    Args:
        data_range: largest value that the data can have, such as 1 for reflectance or 2047 for 11 bits.
        convention: what peak and MSE are. The means over bands are inf as soon as one band is exact.

            - "global": one MSE over all bands, peak ``data_range`` (scikit-image, MHF-Net, MoG-DCN, DHIF-Net, GPPNN).
            - "band_mean": per band, peak ``data_range``, mean over bands (DLPan-Toolbox, PZRes).
            - "image_max": one MSE over all bands, the peak is the reference's maximum (SSR-NET).
            - "band_max": per band, the peak is the reference band's maximum, mean over bands (HyperKite,
              HyperTransformer).
            - "dian8bit": as "band_mean" after both images are clipped to the data range and rounded to 8 bits (NSSR,
              CSTF, LTTR, LTMR, CNN-Fus, TSFN). The rounding of the product alone caps it near 59 dB.

    Raises:
        InputError: unknown convention, or shapes that do not fit.
    """
    check_convention(convention, PsnrConvention)
    x, y, valid = image_pair(product, reference, mask)
    peak = jnp.asarray(data_range, x.dtype)
    if convention == "dian8bit":
        x, y = (jnp.floor(255 * jnp.clip(image / peak, 0, 1) + 0.5) for image in (x, y))
        peak = jnp.asarray(255, x.dtype)
    elif convention == "band_max":
        peak = valid_max(y, valid)
    elif convention == "image_max":
        peak = valid_max(y, valid).max(-1)
    mse = valid_mean((x - y) ** 2, valid)
    if convention in ("global", "image_max"):
        return 10 * jnp.log10(peak**2 / mse.mean(-1))
    return (10 * jnp.log10(peak**2 / mse)).mean(-1)


@partial(jax.jit, static_argnames="convention")
def ergas(
    product: ArrayLike,
    reference: ArrayLike,
    *,
    ratio: ArrayLike,
    convention: ErgasConvention = "wald",
    mask: ArrayLike | None = None,
) -> Array:
    """Relative dimensionless global error of synthesis (Wald, 2000); zero is best.

    Bands whose reference has mean zero have no relative error and are left out; nan if none remains.

    Args:
        ratio: high-resolution pixels per low-resolution pixel, at least 1.
        convention: with s the ratio, RMSE_b and mu_b the error and the reference's mean of band b:

            - "wald": ``100 / s sqrt(mean_b (RMSE_b / mu_b)^2)``, the paper's, of HySure and of DLPan-Toolbox. SSR-NET
              sets s = 4 whatever the ratio is.
            - "squared_ratio": ``100 / s^2`` in its place (HyperKite, HyperTransformer).
            - "peng": ``100 sqrt(mean_b RMSE_b^2 / mu_b)``, no ratio and no squared mean (``ErrRelGlobAdimSyn``); it
              depends on the units of the images.

    Raises:
        InputError: unknown convention, or shapes that do not fit.
    """
    check_convention(convention, ErgasConvention)
    x, y, valid = image_pair(product, reference, mask)
    mse = valid_mean((x - y) ** 2, valid)
    mean = valid_mean(y, valid)
    usable = mean != 0
    mean = jnp.where(usable, mean, 1)
    relative = mse / mean if convention == "peng" else mse / mean**2
    power = {"wald": 1, "squared_ratio": 2, "peng": 0}[convention]
    return 100 / jnp.asarray(ratio, x.dtype) ** power * jnp.sqrt(valid_mean(relative, usable, (-1,)))


@jax.jit
def sam(product: ArrayLike, reference: ArrayLike, *, mask: ArrayLike | None = None) -> Array:
    """Spectral angle mapper: mean angle between the spectra of a pixel, in degrees (Yuhas et al., 1992).

    Pixels whose spectrum is zero in either image have no angle and are left out; nan if none remains. The angle of
    unit vectors u and v is ``2 atan2(|u - v|, |u + v|)``, which keeps small angles exact where the arc cosine in
    float32 does not resolve less than 0.02 degrees.
    """
    x, y, valid = image_pair(product, reference, mask)
    size_x, size_y = (jnp.linalg.norm(image, axis=-1, keepdims=True) for image in (x, y))
    usable = (size_x != 0) & (size_y != 0)
    u, v = x / jnp.where(usable, size_x, 1), y / jnp.where(usable, size_y, 1)
    angle = 2 * jnp.arctan2(jnp.linalg.norm(u - v, axis=-1), jnp.linalg.norm(u + v, axis=-1))
    if valid is not None:
        usable &= valid
    return jnp.rad2deg(valid_mean(angle, usable[..., 0], (-2, -1)))


@jax.jit
def cc(product: ArrayLike, reference: ArrayLike, *, mask: ArrayLike | None = None) -> Array:
    """Cross correlation: Pearson's coefficient per band, mean over bands; one is best.

    Bands that are constant in the reference are left out (nan if none remains); a constant band of the product has
    correlation zero.
    """
    x, y, valid = image_pair(product, reference, mask)
    return _mean_correlation(x, y, valid)


@partial(jax.jit, static_argnames="convention")
def scc(
    product: ArrayLike,
    reference: ArrayLike,
    *,
    convention: SccConvention = "zhou",
    mask: ArrayLike | None = None,
) -> Array:
    """Spatial correlation coefficient: correlation of the two images' details; one is best.

    With a mask only the pixels count whose 3 x 3 neighbourhood is valid.

    Args:
        convention: how details are taken and compared.

            - "zhou": Laplacian (8 in the centre, -1 around it) inside the image, then as `cc` (Zhou, Civco and
              Silander, 1998).
            - "toolbox": Sobel magnitude of the image without its outermost pixels and with zeros around it, one
              correlation over all bands without removal of the mean (DLPan-Toolbox). The zeros make an edge along the
              border that both images share, which raises the value. nan if an image has no edge.

    Raises:
        InputError: unknown convention, shapes that do not fit, or images of fewer than 3 x 3 pixels.
    """
    check_convention(convention, SccConvention)
    x, y, valid = image_pair(product, reference, mask)
    if min(x.shape[-3:-1]) < 3:
        raise InputError(f"SCC needs images of at least 3 x 3 pixels, but they have {x.shape[-3]} x {x.shape[-2]}.")
    valid = valid_windows(valid, 3)
    if convention == "zhou":
        return _mean_correlation(_laplacian(x), _laplacian(y), valid)
    border = (*((0, 0),) * (x.ndim - 3), (1, 1), (1, 1), (0, 0))
    x, y = (_sobel(jnp.pad(image[..., 1:-1, 1:-1, :], border)) for image in (x, y))
    xy, xx, yy = (valid_mean(square, valid).mean(-1) for square in (x * y, x * x, y * y))
    return xy / jnp.sqrt(xx * yy)


def _mean_correlation(x: Array, y: Array, valid: Array | None) -> Array:
    flat_x, flat_y = is_constant(x, valid), is_constant(y, valid)
    x = x - valid_mean(x, valid)[..., None, None, :]
    y = y - valid_mean(y, valid)[..., None, None, :]
    xy, xx, yy = (valid_mean(square, valid) for square in (x * y, x * x, y * y))
    correlation = jnp.where(flat_x | flat_y, 0, xy / (jnp.sqrt(xx) * jnp.sqrt(yy)))
    return valid_mean(correlation, ~flat_y, (-1,))


def _along(x: Array, weights: tuple[float, float, float], axis: int) -> Array:
    """Three-tap correlation along an axis, inside the image."""
    size = x.shape[axis] - 2
    return sum(  # type: ignore[return-value]
        w * lax.slice_in_dim(x, k, k + size, axis=x.ndim + axis) for k, w in enumerate(weights) if w
    )


def _laplacian(x: Array) -> Array:
    return 9 * x[..., 1:-1, 1:-1, :] - _along(_along(x, (1, 1, 1), -3), (1, 1, 1), -2)


def _sobel(x: Array) -> Array:
    vertical = _along(_along(x, (-1, 0, 1), -3), (1, 2, 1), -2)
    horizontal = _along(_along(x, (1, 2, 1), -3), (-1, 0, 1), -2)
    return jnp.sqrt(vertical**2 + horizontal**2)
