"""Blind estimation: the spectral and the spatial response that explain a pair of images of one scene.

With the scene X unknown, ``lr = H X`` and ``guide = R X`` still give ``R lr = H guide``: both sides are the scene
through both responses. It is linear in either response, and the two are found in turns by non-negative least squares
with first-difference penalties.

Simões, Bioucas-Dias, Almeida, Chanussot, "A convex formulation for hyperspectral image superresolution via
subspace-based regularization", TGRS 53(6), 2015, section V.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jfusion.operators.grid import Grid
from jfusion.operators.linear import LinearOperator
from jfusion.operators.observation import ObservationModel
from jfusion.operators.psf import gaussian_psf
from jfusion.operators.spatial import Blur, Boundary, SpatialResponse, _source
from jfusion.operators.spectral import SpectralResponse

AVERAGING = 2.0
"""Standard deviation, in low-resolution pixels, of the blur under which the first estimate ignores the PSF."""

TYPICAL_SIGMA = 0.45
"""Standard deviation of a sensor's PSF in its own pixels: an MTF of about 0.37 at the Nyquist frequency."""

ROUNDS = 3
"""How often the two responses are estimated in turn."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Operators estimated from a pair, and how far they explain it.

    Attributes:
        model: the given model with its unknown operators filled in.
        residual: ``|R lr - H guide| / |H guide|`` of every guide band, ``(l,)``.
        r_squared: share of the variance of ``H guide`` that ``R lr`` explains, ``(l,)``.
    """

    model: ObservationModel
    residual: Array
    r_squared: Array


def _nonnegative(gram: Array, moment: Array, allowed: Array, steps: int = 500) -> Array:
    """Minimises ``z' gram z / 2 - z' moment`` over ``z >= 0``, zero where not ``allowed``, by ADMM.

    The columns of ``moment`` and ``allowed``, ``(n, columns)``, are problems of their own.
    """
    values, vectors = jnp.linalg.eigh(gram)
    penalty = jnp.sqrt(values[-1] * jnp.maximum(values[0], 1e-7 * values[-1]))
    inverse = jnp.matmul(vectors / (jnp.maximum(values, 0) + penalty), vectors.T, precision="highest")

    def step(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        z, dual = state
        x = jnp.matmul(inverse, moment + penalty * (z - dual), precision="highest")
        x = 1.6 * x - 0.6 * z
        new = jnp.where(allowed, jnp.maximum(x + dual, 0), 0)
        return (new, dual + x - new), None

    return jax.lax.scan(step, (jnp.zeros_like(moment), jnp.zeros_like(moment)), length=steps)[0][0]


def _differences(size: int, fixed_ends: bool) -> np.ndarray:
    """``D' D`` of first differences along one axis, to zero beyond the ends where they are fixed."""
    step = np.diff(np.eye(size), axis=0, **({"prepend": 0, "append": 0} if fixed_ends else {}))
    return step.T @ step


def _fit_srf(lr: Array, degraded: Array, support: Array, smoothness: float) -> Array:
    """Rows ``(l, L)`` that make ``degraded`` from ``lr``."""
    x, y = lr.reshape(-1, lr.shape[-1]), degraded.reshape(-1, degraded.shape[-1])
    gram, moment = jnp.matmul(x.T, x, precision="highest"), jnp.matmul(x.T, y, precision="highest")
    scale = jnp.trace(gram) / gram.shape[0]
    penalty = smoothness * lr.shape[-1] ** 3 * jnp.asarray(_differences(lr.shape[-1], fixed_ends=False), x.dtype)
    return _nonnegative(gram / scale + penalty, moment / scale, support.T).T


def _fit_psf(guide: Array, target: Array, size: int, grid: Grid, boundary: Boundary, smoothness: float) -> Array:
    """Kernel ``(size, size)`` of unit sum that makes ``target`` from ``guide``; mean and scale of a band are ignored."""
    rows = _source(guide.shape[-3], size, grid.ratio, grid.phase[0], boundary)
    columns = _source(guide.shape[-2], size, grid.ratio, grid.phase[1], boundary)
    mean, deviation = guide.mean((0, 1, 2)), guide.std((0, 1, 2))
    deviation = jnp.where(deviation > 0, deviation, 1)
    guide, target = (guide - mean) / deviation, (target - target.mean((0, 1, 2))) / deviation

    def add(sums: tuple[Array, Array], line: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        row, wanted = line
        patches = guide[:, row][:, :, columns]
        patches = jnp.moveaxis(patches, 3, 2).reshape(guide.shape[0], size * size, -1)
        wanted = wanted.reshape(guide.shape[0], -1)
        gram = jnp.einsum("bip,bjp->ij", patches, patches, precision="highest")
        return (sums[0] + gram, sums[1] + jnp.einsum("bip,bp->i", patches, wanted, precision="highest")), None

    zero = jnp.zeros((size * size, size * size), guide.dtype), jnp.zeros(size * size, guide.dtype)
    (gram, moment), _ = jax.lax.scan(add, zero, (jnp.asarray(rows), jnp.moveaxis(target, 1, 0)))
    scale = jnp.trace(gram) / size**2
    line = _differences(size, fixed_ends=True)
    penalty = smoothness * grid.ratio**4 * jnp.asarray(np.kron(line, np.eye(size)) + np.kron(np.eye(size), line), guide.dtype)
    psf = _nonnegative(gram / scale + penalty, moment[:, None] / scale, jnp.ones((size * size, 1), bool))
    return (psf / psf.sum()).reshape(size, size)


@partial(jax.jit, static_argnames=("grid", "size", "boundary", "smoothness"))
def _fit(
    lr: Array,
    guide: Array,
    spatial: LinearOperator | None,
    spectral: LinearOperator | None,
    support: Array,
    grid: Grid,
    size: int,
    boundary: Boundary,
    smoothness: tuple[float, float],
) -> tuple[LinearOperator, LinearOperator, Array, Array]:
    if spectral is None and spatial is None:
        sigma = AVERAGING * grid.ratio
        wide = gaussian_psf(np.hypot(sigma, TYPICAL_SIGMA * grid.ratio), grid)
        local = gaussian_psf(AVERAGING, Grid(1, (0.0, 0.0)))
        degraded = SpatialResponse(wide, grid.ratio, grid.phase, boundary)(guide)
        srf = _fit_srf(Blur(local, boundary)(lr), degraded, support, smoothness[0])

        def turn(srf: Array, _: None) -> tuple[Array, Array]:
            psf = _fit_psf(guide, SpectralResponse(srf)(lr), size, grid, boundary, smoothness[1])
            degraded = SpatialResponse(psf, grid.ratio, grid.phase, boundary)(guide)
            return _fit_srf(lr, degraded, support, smoothness[0]), psf

        srf, psfs = jax.lax.scan(turn, srf, length=ROUNDS)
        spatial, spectral = SpatialResponse(psfs[-1], grid.ratio, grid.phase, boundary), SpectralResponse(srf)
    elif spectral is None:
        spectral = SpectralResponse(_fit_srf(lr, spatial(guide), support, smoothness[0]))
    elif spatial is None:
        psf = _fit_psf(guide, spectral(lr), size, grid, boundary, smoothness[1])
        spatial = SpatialResponse(psf, grid.ratio, grid.phase, boundary)
    seen = spatial(guide)
    axes = (0, 1, 2)
    error = jnp.sum((spectral(lr) - seen) ** 2, axes)
    energy, variance = jnp.sum(seen**2, axes), jnp.sum((seen - seen.mean(axes)) ** 2, axes)
    return spatial, spectral, jnp.sqrt(error / energy), 1 - error / variance
