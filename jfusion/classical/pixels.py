"""Statistics over the pixels of an image, safe in float32: regression, moments, subspace."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jfusion.operators.linear import pytree, single

NEGLIGIBLE = 1e-5
"""What is smaller than this fraction of the largest is rounding, not signal: a band's standard deviation against its
root mean square, a singular value against the first."""


def band_mean(image: Array) -> Array:
    """Mean of every band, ``(..., 1, 1, band)``."""
    return image.mean((-3, -2), keepdims=True)


def band_std(image: Array) -> Array:
    """Standard deviation of every band, ``(..., 1, 1, band)``; exactly 0 for a band that is constant (`NEGLIGIBLE`)."""
    mean = band_mean(image)
    std = jnp.sqrt(band_mean((image - mean) ** 2))
    return jnp.where(std > NEGLIGIBLE * jnp.hypot(mean, std), std, 0)


def ratio_or_one(numerator: Array, denominator: Array) -> Array:
    """The quotient where the denominator is positive by more than rounding of its band's largest, elsewhere 1."""
    largest = denominator.max((-3, -2), keepdims=True)
    positive = denominator > jnp.finfo(denominator.dtype).eps * largest
    return jnp.where(positive, numerator / jnp.where(positive, denominator, 1), 1)


def matmul(a: Array, b: Array) -> Array:
    """Matrix product in full precision on every device."""
    return jnp.matmul(a, b, precision="highest")


@pytree
class Affine:
    """An affine map of the bands: ``y = x matrix + offset``.

    Attributes:
        matrix: ``(batch, band in, band out)``.
        offset: ``(batch, 1, 1, band out)``.
    """

    matrix: Array
    offset: Array

    def __call__(self, image: Array) -> Array:
        return mix(image, self.matrix) + self.offset


def mix(image: Array, matrix: Array) -> Array:
    """Each pixel of ``(batch, height, width, band in)`` times ``(batch, band in, band out)``."""
    return jnp.einsum("nhwi,nio->nhwo", image, matrix, precision="highest")


def least_squares(target: Array, on: Array) -> Array:
    """Least squares over the pixels, every band of ``target`` on the bands of ``on``: ``(batch, band in, band out)``.

    Columns are scaled and solved by QR and SVD, so that nearly collinear bands (hyperspectral, or more bands than
    pixels) give the solution of least norm instead of noise, and a band of zeros gets the weight 0.

    Args:
        target: ``(batch, height, width, band out)``.
        on: ``(batch, height, width, band in)``.
    """
    target, on = single((target, on))
    scale = jnp.sqrt(band_mean(on**2))
    inverse = jnp.where(scale > 0, 1 / jnp.where(scale > 0, scale, 1), 0)

    def solve(target: Array, on: Array) -> Array:
        q, r = jnp.linalg.qr(on.reshape(-1, on.shape[-1]))
        return jnp.linalg.lstsq(r, matmul(q.T, target.reshape(-1, target.shape[-1])), rcond=NEGLIGIBLE)[0]

    return jax.vmap(solve)(target, on * inverse) * jnp.swapaxes(inverse[:, 0], -1, -2)


def regress(target: Array, on: Array) -> Affine:
    """Least squares with intercept; a constant band gets the weight 0. See `least_squares`."""
    centre, level = band_mean(on), band_mean(target)
    matrix = least_squares(target - level, jnp.where(band_std(on) > 0, on - centre, 0))
    return Affine(matrix, level - mix(centre, matrix))


def subspace(image: Array, dimension: int) -> Array:
    """Orthonormal basis ``(batch, band, component)`` of the subspace that holds most of the pixels' energy.

    Right singular vectors of the matrix of spectra, not centred, strongest first: ``dimension`` of them or as many as
    there are bands or pixels. Vectors of zeros stand for components without energy (`NEGLIGIBLE`).
    """

    def basis(spectra: Array) -> Array:
        _, energy, vectors = jnp.linalg.svd(jnp.linalg.qr(spectra, mode="r"), full_matrices=False)
        return (vectors * (energy > NEGLIGIBLE * energy[0])[:, None])[:dimension].T

    return jax.vmap(basis)(single(image).reshape(image.shape[0], -1, image.shape[-1]))


def signed(vectors: Array) -> Array:
    """Vectors ``(batch, band, dimension)`` with signs that no decomposition decides: the largest entry is positive."""
    largest = jnp.take_along_axis(vectors, jnp.argmax(jnp.abs(vectors), 1, keepdims=True), 1)
    return vectors * jnp.where(largest < 0, -1, 1)


def signed_subspace(image: Array, dimension: int) -> Array:
    """`subspace` for networks: the largest entry of each vector is positive, and vectors of zeros fill up to
    ``dimension``."""
    vectors = signed(subspace(image, dimension))
    return jnp.pad(vectors, ((0, 0), (0, 0), (0, dimension - vectors.shape[2])))
