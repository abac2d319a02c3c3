"""Blind estimation: the spectral and the spatial response that explain a pair of images of one scene.

With the scene X unknown, ``lr = H X`` and ``guide = R X`` still give ``R lr = H guide``: both sides are the scene
through both responses. It is linear in either response, and the two are found in turns by non-negative least squares
with first-difference penalties.

Simões, Bioucas-Dias, Almeida, Chanussot, "A convex formulation for hyperspectral image superresolution via
subspace-based regularization", TGRS 53(6), 2015, section V.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jfusion.errors import InputError
from jfusion.operators.grid import Grid
from jfusion.operators.linear import LinearOperator, check_image
from jfusion.operators.observation import Observation, ObservationModel
from jfusion.operators.psf import gaussian_psf
from jfusion.operators.spatial import Blur, Boundary, Psf, SpatialResponse, _source, check_boundary, psf_kernel
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


def _fit_srf(lr: Array, degraded: Array, support: Array, smoothness: Array | float) -> Array:
    """Rows ``(l, L)`` that make ``degraded`` from ``lr``."""
    x, y = lr.reshape(-1, lr.shape[-1]), degraded.reshape(-1, degraded.shape[-1])
    gram, moment = jnp.matmul(x.T, x, precision="highest"), jnp.matmul(x.T, y, precision="highest")
    scale = jnp.trace(gram) / gram.shape[0]
    penalty = smoothness * lr.shape[-1] ** 3 * jnp.asarray(_differences(lr.shape[-1], fixed_ends=False), x.dtype)
    return _nonnegative(gram / scale + penalty, moment / scale, support.T).T


def _fit_psf(
    guide: Array, target: Array, size: int, grid: Grid, boundary: Boundary, smoothness: Array | float
) -> Array:
    """Kernel ``(size, size)`` of unit sum that makes ``target`` from ``guide``; means and scales do not count."""
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
    plane = np.kron(line, np.eye(size)) + np.kron(np.eye(size), line)
    penalty = smoothness * grid.ratio**4 * jnp.asarray(plane, guide.dtype)
    psf = _nonnegative(gram / scale + penalty, moment[:, None] / scale, jnp.ones((size * size, 1), bool))
    return (psf / psf.sum()).reshape(size, size)


@partial(jax.jit, static_argnames=("grid", "size", "boundary"))
def _estimate(
    observation: Observation,
    spatial: LinearOperator | None,
    spectral: LinearOperator | None,
    support: Array,
    grid: Grid,
    size: int,
    boundary: Boundary,
    smoothness: tuple[float, float],
) -> tuple[LinearOperator, LinearOperator, Array, Array]:
    lr, guide = observation["lr"], observation["guide"]

    def response(psf: Psf) -> LinearOperator:
        return SpatialResponse(psf, grid.ratio, grid.phase, boundary)

    def fit_srf(spatial: LinearOperator) -> Array:
        return _fit_srf(lr, spatial(guide), support, smoothness[0])

    def fit_psf(spectral: LinearOperator) -> Array:
        return _fit_psf(guide, spectral(lr), size, grid, boundary, smoothness[1])

    def turn(srf: Array, _: None) -> tuple[Array, Array]:
        psf = fit_psf(SpectralResponse(srf))
        return fit_srf(response(psf)), psf

    if spatial is not None:
        spectral = SpectralResponse(fit_srf(spatial)) if spectral is None else spectral
    elif spectral is not None:
        spatial = response(fit_psf(spectral))
    else:
        averaging = min(AVERAGING, (min(lr.shape[-3:-1]) - 3) / 3)
        wide = gaussian_psf(grid.ratio * math.hypot(averaging, TYPICAL_SIGMA), grid)
        local = gaussian_psf(averaging, Grid(1, (0.0, 0.0)))
        start = _fit_srf(Blur(local, boundary)(lr), response(wide)(guide), support, smoothness[0])
        srf, psfs = jax.lax.scan(turn, start, length=ROUNDS)
        spatial, spectral = response(psfs[-1]), SpectralResponse(srf)

    seen, predicted, axes = spatial(guide), spectral(lr), (0, 1, 2)
    error = jnp.sum((predicted - seen) ** 2, axes)
    energy, variance = jnp.sum(seen**2, axes), jnp.sum((seen - seen.mean(axes)) ** 2, axes)
    return spatial, spectral, jnp.sqrt(error / energy), 1 - error / variance


def _one_psf(operator: LinearOperator | None) -> LinearOperator | None:
    if isinstance(operator, SpatialResponse) and psf_kernel(operator.psf).ndim == 3:
        return dataclasses.replace(operator, psf=psf_kernel(operator.psf).mean(-1))
    return operator


def estimate(
    observation: Observation,
    model: ObservationModel,
    *,
    size: int | None = None,
    support: Array | None = None,
    boundary: Boundary = "reflect",
    smoothness: tuple[float, float] = (1e-9, 1e-4),
) -> Estimate:
    """Fills in the operators of ``model`` that are None, from the pair alone.

    All images of the batch are taken to come from the same two sensors. Both images may have any scale: where their
    calibrations differ by a gain, the rows of the SRF sum to that gain and not to one. An offset between them, such as
    the path radiance of a blue band, is not modelled: it leaves the PSF as it is, but bends the SRF and lowers
    `Estimate.r_squared`, so remove it first. The PSF carries any shift between the images up to a third of its size.

    Args:
        observation: ``lr`` (batch, h, w, L) and ``guide`` (batch, H, W, l).
        model: says the grid; an operator that it holds is kept and helps to find the other one.
        size: rows and columns of the PSF, odd; ``4 ratio + 1`` where it is None.
        support: ``(l, L)``, True where a guide band may see a band of ``lr``; everywhere where it is None.
        boundary: of the blur.
        smoothness: weights of the squared first differences of SRF and PSF. They act in units of the number of bands
            and of the ratio, so that one value serves all sensors; more for noisier images.

    Raises:
        InputError: shapes that do not fit each other, the grid or the PSF's size.
    """
    lr, guide = observation["lr"], observation["guide"]
    grid = model.grid
    size = 4 * grid.ratio + 1 if size is None else size
    for key, image in observation.items():
        check_image(image, key)
    check_boundary(boundary)
    height, width = (grid.ratio * n for n in lr.shape[-3:-1])
    if lr.ndim != 4 or guide.shape[:-1] != (lr.shape[0], height, width):
        raise InputError(
            f"lr must be (batch, h, w, L) and guide (batch, ratio h, ratio w, l) with ratio {grid.ratio}, but their "
            f"shapes are {lr.shape} and {guide.shape}; crop both to their common extent."
        )
    if size < 1 or size % 2 == 0 or size > min(height, width) or min(lr.shape[-3:-1]) < 8:
        raise InputError(
            f"the PSF's size must be odd and fit the guide, and lr must have 8 x 8 pixels or more, but the size is "
            f"{size}, the guide {height} x {width} and lr {lr.shape[-3]} x {lr.shape[-2]}; use a larger image."
        )
    shape = guide.shape[-1], lr.shape[-1]
    support = jnp.ones(shape, bool) if support is None else jnp.asarray(support, bool)
    if support.shape != shape:
        raise InputError(f"support must be (guide bands, lr bands) = {shape}, but is {support.shape}.")
    known = model.operators
    lr_response, guide_response, residual, r_squared = _estimate(
        {"lr": lr, "guide": guide},
        _one_psf(known.get("lr")),
        known.get("guide"),
        support,
        grid,
        size,
        boundary,
        smoothness,
    )
    found = {"lr": known.get("lr") or lr_response, "guide": known.get("guide") or guide_response}
    return Estimate(model.replace(operators={**known, **found}), residual, r_squared)
