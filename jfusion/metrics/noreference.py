"""Metrics without a reference, for full resolution: QNR, HQNR and their parts, and consistency with the observation.

``product`` is ``(..., height, width, band)``, ``guide`` ``(..., height, width, guide band)``. What is called ``_lr``
has been seen through the low-resolution sensor (`jfusion.operators.SpatialResponse`) by the caller; ``lr`` is the
observed image. Results have shape ``(...)``.

**Scale.** D_lambda and D_s take ``lr`` and ``guide_lr`` on either grid, and their blocks cover the same ground on
both: at their own resolution as in the paper of Alparone et al. (2008), or interpolated to the guide's grid as in
DLPan-Toolbox. The two give different numbers. Blocks are distinct; pixels that do not fill one are left out. With a
mask (boolean ``(height, width)``) only blocks without an invalid pixel count.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jfusion.errors import InputError
from jfusion.metrics.pixels import pixel_mask, valid_mean
from jfusion.metrics.quality import Moments, blocks, center, check_window, cross_covariance, q2n, quality_index
from jfusion.operators import relative_residual


@partial(jax.jit, static_argnames="block")
def d_lambda(product: ArrayLike, lr: ArrayLike, *, block: int = 32, mask: ArrayLike | None = None) -> Array:
    """Spectral distortion of QNR (Alparone et al., 2008): mean over band pairs of ``|Q(X_i, X_j) - Q(M_i, M_j)|``.

    Args:
        product: fused image X.
        lr: low-resolution image M, at its own resolution or interpolated (see the module).
        block: side of the blocks in pixels of the product; a multiple of the ratio of the two grids.
        mask: valid pixels of the product.

    Raises:
        InputError: grids, bands or block do not fit, or fewer than two bands.
    """
    x, m = _floating(product), _floating(lr)
    block_lr = _block_on(m, x, block)
    bands = x.shape[-1]
    if bands != m.shape[-1] or bands < 2:
        raise InputError(
            f"D_lambda compares pairs of bands: product and lr need the same two or more bands, but have {bands} and "
            f"{m.shape[-1]}."
        )
    valid = _valid_blocks(mask, x.shape, block)
    difference = jnp.abs(_band_quality(x, x, block, valid) - _band_quality(m, m, block_lr, valid))
    return difference[..., *np.triu_indices(bands, 1)].mean(-1)


@partial(jax.jit, static_argnames="block")
def d_s(
    product: ArrayLike,
    lr: ArrayLike,
    guide: ArrayLike,
    guide_lr: ArrayLike,
    *,
    block: int = 32,
    mask: ArrayLike | None = None,
) -> Array:
    """Spatial distortion of QNR (Alparone et al., 2008): mean over bands of ``|Q(X_b, P) - Q(M_b, P_lr)|``.

    A guide of several bands (hyperspectral and multispectral fusion) is averaged over its bands too.

    Args:
        product: fused image X.
        lr: low-resolution image M, at its own resolution or interpolated (see the module).
        guide: image P of high resolution.
        guide_lr: the guide at the resolution of ``lr`` and on its grid. DLPan-Toolbox leaves it half a pixel off,
            which adds a constant to its D_s.
        block: side of the blocks in pixels of the product; a multiple of the ratio of the two grids.
        mask: valid pixels of the product.

    Raises:
        InputError: grids, bands or block do not fit.
    """
    x, m, p, p_lr = (_floating(image) for image in (product, lr, guide, guide_lr))
    block_lr = _block_on(m, x, block)
    if p.shape[:-1] != x.shape[:-1] or m.shape[-1] != x.shape[-1] or p_lr.shape != (*m.shape[:-1], p.shape[-1]):
        raise InputError(
            "product and guide must have one height and width, lr and guide_lr another, product and lr the same "
            f"bands, and guide and guide_lr too, but product is {x.shape}, guide {p.shape}, lr {m.shape} and guide_lr "
            f"{p_lr.shape}."
        )
    valid = _valid_blocks(mask, x.shape, block)
    difference = jnp.abs(_band_quality(x, p, block, valid) - _band_quality(m, p_lr, block_lr, valid))
    return difference.mean((-2, -1))


@partial(jax.jit, static_argnames="block")
def qnr(
    product: ArrayLike,
    lr: ArrayLike,
    guide: ArrayLike,
    guide_lr: ArrayLike,
    *,
    block: int = 32,
    mask: ArrayLike | None = None,
) -> Array:
    """Quality with no reference ``(1 - D_lambda)(1 - D_s)`` (Alparone et al., 2008); one is best.

    Arguments and errors as in `d_s`.
    """
    spectral = d_lambda(product, lr, block=block, mask=mask)
    return (1 - spectral) * (1 - d_s(product, lr, guide, guide_lr, block=block, mask=mask))


@partial(jax.jit, static_argnames="block")
def d_lambda_k(product_lr: ArrayLike, lr: ArrayLike, *, block: int = 32, mask: ArrayLike | None = None) -> Array:
    """Spectral distortion of Khan et al. (2009): ``1 - Q2n(product_lr, lr)``; zero is best.

    Args:
        product_lr: the product through the MTF of the low-resolution sensor. Wald's consistency decimates it and
            compares with ``lr`` itself; DLPan-Toolbox and PanCollection do not, and compare with the interpolated
            ``lr``. The two give different numbers.
        lr: low-resolution image on the grid of ``product_lr``.
        block: side of the blocks in pixels of ``lr``.
        mask: valid pixels of ``lr``, or of the product: then a pixel of ``lr`` is valid where all that it covers is.

    Raises:
        InputError: shapes that do not fit.
    """
    mask_lr = None if mask is None else low_resolution_mask(mask, jnp.shape(lr))
    return 1 - q2n(product_lr, lr, block=block, mask=mask_lr)


@partial(jax.jit, static_argnames="block")
def hqnr(
    product: ArrayLike,
    lr: ArrayLike,
    guide: ArrayLike,
    guide_lr: ArrayLike,
    product_lr: ArrayLike,
    *,
    block: int = 32,
    mask: ArrayLike | None = None,
) -> Array:
    """Hybrid QNR ``(1 - D_lambda_K)(1 - D_s)`` (Aiazzi et al., 2014); one is best.

    Arguments and errors as in `d_s` and `d_lambda_k`.
    """
    spectral = d_lambda_k(product_lr, lr, block=block, mask=mask)
    return (1 - spectral) * (1 - d_s(product, lr, guide, guide_lr, block=block, mask=mask))


def consistency(observation: Mapping[str, ArrayLike], predicted: Mapping[str, ArrayLike]) -> dict[str, Array]:
    """Relative residual ``|A_k x - y_k| / |y_k|`` of every observation that is predicted; zero is best.

    Args:
        observation: what the sensors gave, y_k by key.
        predicted: what they would see of the product, A_k x by key: an observation model applied to the product.

    Raises:
        InputError: a predicted key was not observed, or the shapes differ.
    """
    residuals = {}
    for key, image in predicted.items():
        if key not in observation:
            raise InputError(f"{key!r} is predicted but was not observed; observed are {', '.join(observation)}.")
        if jnp.shape(image) != (shape := jnp.shape(observation[key])):
            raise InputError(f"the predicted {key!r} must have the observed shape {shape}, but has {jnp.shape(image)}.")
        residuals[key] = relative_residual(_floating(image), _floating(observation[key]))
    return residuals


def low_resolution_mask(mask: ArrayLike, lr_shape: tuple[int, ...]) -> Array:
    """The mask on the grid of ``lr``: valid where all high-resolution pixels under a low-resolution pixel are."""
    valid = jnp.asarray(mask)
    height, width = lr_shape[-3:-1]
    if valid.ndim != 2 or valid.shape[0] % height or valid.shape[1] % width:
        raise InputError(f"a mask of shape {valid.shape} does not divide into the {height} x {width} pixels of lr.")
    return valid.reshape(height, valid.shape[0] // height, width, valid.shape[1] // width).all((1, 3))


def _floating(image: ArrayLike) -> Array:
    x = jnp.asarray(image)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _block_on(lr: Array, product: Array, block: int) -> int:
    """Side of the block in pixels of ``lr``."""
    if lr.ndim < 3 or product.ndim < 3:
        raise InputError(f"images must be (..., height, width, band), but are {product.shape} and {lr.shape}.")
    height, width = product.shape[-3:-1]
    ratio = height // lr.shape[-3]
    if (lr.shape[-3] * ratio, lr.shape[-2] * ratio) != (height, width):
        raise InputError(
            f"height and width of the product must be one multiple of those of lr, but are {height} x {width} and "
            f"{lr.shape[-3]} x {lr.shape[-2]}; crop both to the same ground."
        )
    check_window(block, product.shape)
    if block % ratio or block == ratio:
        raise InputError(
            f"the block must be a multiple of the ratio {ratio} and larger than it, but is {block}; "
            f"use {max(block // ratio, 2) * ratio}."
        )
    return block // ratio


def _valid_blocks(mask: ArrayLike | None, shape: tuple[int, ...], block: int) -> Array | None:
    """Which blocks have valid pixels only, ``(block, 1, 1)``."""
    return None if mask is None else blocks(pixel_mask(mask, shape), block).all(-2, keepdims=True)


def _band_quality(x: Array, y: Array, block: int, valid: Array | None) -> Array:
    """Q of every band of x with every band of y, mean over distinct blocks: ``(..., band of x, band of y)``."""
    x, y = blocks(x, block), blocks(y, block)
    if valid is not None:
        x, y = jnp.where(valid, x, 0), jnp.where(valid, y, 0)
    mean_x, x = center(x)
    mean_y, y = center(y)
    quality = quality_index(
        Moments(
            jnp.swapaxes(mean_x, -1, -2),
            mean_y,
            cross_covariance(x, y),
            (x**2).mean(-2)[..., :, None] + (y**2).mean(-2)[..., None, :],
        )
    )
    return valid_mean(quality, valid, (-3,))
