"""Blind estimation: the spectral and the spatial response that explain a pair of images of one scene.

With the scene X unknown, ``lr = H X`` and ``guide = R X + c`` still give ``R lr + c = H guide``: both sides are the
scene through both responses, and c is what the guide's sensor adds to each band, such as path radiance. It is linear in
either response, and the two are found in turns by non-negative least squares with first-difference penalties.

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
from jfusion.operators.linear import LinearOperator, as_image
from jfusion.operators.observation import Observation, ObservationModel
from jfusion.operators.psf import gaussian_psf
from jfusion.operators.spatial import Blur, Boundary, Psf, SpatialResponse, one_psf, tap_source
from jfusion.operators.spectral import SpectralResponse

AVERAGING = 2.0
"""Standard deviation, in low-resolution pixels, of the blur under which the first estimate ignores the PSF."""

TYPICAL_SIGMA = 0.45
"""Standard deviation of a sensor's PSF in its own pixels: an MTF of about 0.37 at the Nyquist frequency."""

ROUNDS = 3
"""How often the two responses are estimated in turn."""

PSF_SMOOTHNESS = (1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6)
"""Weights of the squared first differences of the PSF that are tried, see `estimate`."""

FIRST_SMOOTHNESS = 3e-4
"""Of the PSF until the last round."""

KNOTS = 6
"""Unknowns of the PSF along a low-resolution pixel at most; their number decides how long it takes."""

OFFSET_GAIN = 0.8
"""Of what a response leaves unexplained of a guide band, the share below which an offset must bring it to be taken: a
smaller response and an offset explain noise in `lr`, too."""

FEWEST = 16
"""Valid pixels of ``lr`` at least, away from the border."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Operators estimated from a pair, and how far they explain it.

    Attributes:
        model: the given model with its unknown operators filled in; where the guide's response was unknown, with the
            offset c of the guide and, as its noise, what remains of it at low resolution.
        residual: ``|R lr + c - H guide| / |H guide|`` of every guide band, ``(l,)``, away from the border.
        r_squared: share of the variance of ``H guide`` that ``R lr + c`` explains, ``(l,)``, away from the border.
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


def _fit_srf(
    lr: Array, degraded: Array, weight: Array, support: Array, smoothness: Array | float
) -> tuple[Array, Array]:
    """Rows ``(l, L)`` that make ``degraded`` of ``lr`` in pixels of ``weight``, ``(1, h, w, 1)``, and which of them do
    so but for an offset, ``(l,)``, see `OFFSET_GAIN`.
    """
    penalty = jnp.asarray(_differences(lr.shape[-1], fixed_ends=False), lr.dtype) * smoothness * lr.shape[-1] ** 3

    def fitted(lr: Array, degraded: Array) -> tuple[Array, Array]:
        x, y = ((jnp.sqrt(weight) * image).reshape(-1, image.shape[-1]) for image in (lr, degraded))
        gram, moment = jnp.matmul(x.T, x, precision="highest"), jnp.matmul(x.T, y, precision="highest")
        scale = jnp.trace(gram) / gram.shape[0]
        scale = jnp.where(scale > 0, scale, 1)
        found = _nonnegative(gram / scale + penalty, moment / scale, support.T)
        return found.T, jnp.sum((jnp.matmul(x, found, precision="highest") - y) ** 2, 0)

    (plain, unexplained), (free, left) = (
        fitted(lr, degraded),
        fitted(*(image - _mean(image, weight) for image in (lr, degraded))),
    )
    worth = (left < OFFSET_GAIN * unexplained) & (free > 0).any(-1)  # an offset alone leaves the PSF nothing to see
    return jnp.where(worth[:, None], free, plain), worth


def _mean(image: Array, weight: Array) -> Array:
    """Of every band, over pixels of that ``weight``, ``(1, h, w, 1)``."""
    axes = (0, 1, 2)
    return jnp.sum(weight * image, axes) / jnp.maximum(image.shape[0] * weight.sum(axes), 1e-6)


def _margin(size: int, ratio: int) -> int:
    """How many low-resolution pixels next to the border have a PSF that reaches beyond it."""
    return -(-(size // 2) // ratio)


def _interior(image: Array, margin: int) -> Array:
    return image[:, margin : image.shape[1] - margin, margin : image.shape[2] - margin]


def _tents(size: int, step: int) -> np.ndarray:
    """What tents ``step`` pixels apart, one on the centre, make of an axis: ``(size, tent)``."""
    reach = (size // 2 - step + 1) // step
    places = size // 2 + step * np.arange(-reach, reach + 1)
    return np.maximum(1 - np.abs(np.arange(size)[:, None] - places) / step, 0).astype(np.float32)


def _fit_psf(
    guide: Array,
    target: Array,
    valid: Array,
    size: int,
    grid: Grid,
    smoothness: Array | float,
    choosing: Array | bool,
) -> Array:
    """Kernel ``(size, size)`` of unit sum that makes ``target``, an interior, from ``guide``; offsets do not count.

    It is linear between its unknowns, which at ratios above `KNOTS` are fewer than its pixels. Pixels of ``target`` do
    not count where ``valid``, of its height and width, is 0; elsewhere it is 1.

    Where one is to be chosen the smoothness is that of `PSF_SMOOTHNESS` whose fit to either half of the rows explains
    the other half best.
    """
    margin, step = _margin(size, grid.ratio), -(-grid.ratio // KNOTS)
    tents = _tents(size, step)
    knots = tents.argmax(0)
    rows, columns = (
        tap_source(length, size, grid.ratio, phase, "circular")[margin : length // grid.ratio - margin, knots]
        for length, phase in zip(guide.shape[1:3], grid.phase, strict=True)
    )
    mean, deviation = guide.mean((0, 1, 2)), guide.std((0, 1, 2))
    deviation = jnp.where(deviation > 0, deviation, 1)
    guide, target = (guide - mean) / deviation, (target - target.mean((0, 1, 2))) / deviation
    for axis in (1, 2):
        moved = [(1 - abs(move) / step) * jnp.roll(guide, move, axis) for move in range(1 - step, step)]
        guide = jnp.sum(jnp.stack(moved), 0)

    def add(sums: tuple[Array, ...], line: tuple[Array, Array, Array, Array]) -> tuple[tuple[Array, ...], None]:
        half, row, wanted, counts = line
        patches = jnp.moveaxis(guide[:, row][:, :, columns], 3, 2)
        patches = counts[:, None] * patches.reshape(guide.shape[0], taps, *wanted.shape[1:])
        wanted = counts[:, None] * wanted
        gram = jnp.einsum("bipc,bjpc->ij", patches, patches, precision="highest")
        moment = jnp.einsum("bipc,bpc->i", patches, wanted, precision="highest")
        parts = gram, moment, patches.sum((0, 2)), wanted.sum((0, 1))
        return tuple(total.at[half].add(part) for total, part in zip(sums, parts, strict=True)), None

    taps, bands = len(knots) ** 2, guide.shape[-1]
    zero = tuple(jnp.zeros((2, *shape), guide.dtype) for shape in ((taps, taps), (taps,), (taps, bands), (bands,)))
    halves = jnp.arange(len(rows)) % 2
    sums, _ = jax.lax.scan(add, zero, (halves, jnp.asarray(rows), jnp.moveaxis(target, 1, 0), valid))
    counts = jnp.maximum(jnp.bincount(halves, valid.sum(1), length=2) * guide.shape[0], 1)
    line = _differences(len(knots), fixed_ends=True)
    plane = jnp.asarray(np.kron(line, np.eye(len(knots))) + np.kron(np.eye(len(knots)), line), guide.dtype)

    def centred(sums: tuple[Array, ...], count: Array) -> tuple[Array, Array]:
        gram, moment, total, wanted = sums
        gram = gram - jnp.matmul(total, total.T, precision="highest") / count
        return gram, moment - jnp.matmul(total, wanted, precision="highest") / count

    def solved(gram: Array, moment: Array, smoothness: Array | float) -> Array:
        scale = jnp.trace(gram) / taps
        penalty = smoothness * (grid.ratio / step) ** 4 * plane
        return _nonnegative(gram / scale + penalty, moment[:, None] / scale, jnp.ones((taps, 1), bool))[:, 0]

    def left(smoothness: Array) -> Array:
        """Of either half, up to a constant, under the other half's PSF."""
        pairs = ((seen, solved(*hidden, smoothness)) for seen, hidden in (parts, parts[::-1]))
        of = [jnp.vdot(z, jnp.matmul(gram, z, precision="highest") - 2 * moment) for (gram, moment), z in pairs]
        return of[0] + of[1]

    parts = [centred(tuple(total[half] for total in sums), counts[half]) for half in range(2)]
    tried, given = jnp.asarray(PSF_SMOOTHNESS, guide.dtype), jnp.asarray(smoothness, guide.dtype)
    smoothness = jax.lax.cond(choosing, lambda: tried[jnp.argmin(jax.lax.map(left, tried))], lambda: given)
    psf = solved(*centred(tuple(total.sum(0) for total in sums), counts.sum()), smoothness)
    psf = jnp.einsum("ik,jl,kl->ij", tents, tents, psf.reshape(len(knots), -1), precision="highest")
    return psf / psf.sum()


@partial(jax.jit, static_argnames=("grid", "size", "boundary"))
def _estimate(
    observation: Observation,
    spatial: LinearOperator | None,
    spectral: LinearOperator | None,
    valid: Array,
    support: Array,
    grid: Grid,
    size: int,
    boundary: Boundary,
    smoothness: tuple[float, float | None],
) -> tuple[LinearOperator, LinearOperator, Array, Array, Array, Array]:
    lr, guide = observation["lr"], observation["guide"]
    margin = _margin(size, grid.ratio)
    weight = valid.astype(lr.dtype)[None, ..., None]
    inner = _interior(weight, margin)

    def response(psf: Psf) -> LinearOperator:
        return SpatialResponse(psf, grid.ratio, grid.phase, boundary)

    def fit_srf(lr: Array, degraded: Array, weight: Array = weight) -> tuple[Array, Array]:
        lr, degraded, weight = (_interior(image, margin) for image in (lr, degraded, weight))
        return _fit_srf(lr, degraded, weight, support, smoothness[0])

    choosing = smoothness[1] is None
    given = FIRST_SMOOTHNESS if smoothness[1] is None else smoothness[1]

    def fit_psf(spectral: LinearOperator, last: Array | bool = True) -> Array:
        target = _interior(spectral(lr), margin)
        return _fit_psf(guide, target, inner[0, ..., 0], size, grid, given, last & choosing)

    def turn(state: tuple[Array, Array], last: Array) -> tuple[tuple[Array, Array], Array]:
        psf = fit_psf(SpectralResponse(state[0]), last)
        return fit_srf(lr, response(psf)(guide)), psf

    free = jnp.zeros(guide.shape[-1], bool)
    if spatial is not None:
        if spectral is None:
            srf, free = fit_srf(lr, spatial(guide))
            spectral = SpectralResponse(srf)
    elif spectral is not None:
        spatial = response(fit_psf(spectral))
    else:
        averaging = min(AVERAGING, (min(lr.shape[1:3]) - 3) / 3)
        wide = gaussian_psf(grid.ratio * math.hypot(averaging, TYPICAL_SIGMA), grid)
        local = Blur(gaussian_psf(averaging, Grid(1, (0.0, 0.0))), "reflect")
        degraded = SpatialResponse(wide, grid.ratio, grid.phase, "reflect")(guide)
        start = fit_srf(local(lr), degraded, weight * jnp.maximum(local(weight), 0))
        (srf, free), psfs = jax.lax.scan(turn, start, jnp.arange(ROUNDS) == ROUNDS - 1)
        spatial, spectral = response(psfs[-1]), SpectralResponse(srf)

    seen, predicted, axes = _interior(spatial(guide), margin), _interior(spectral(lr), margin), (0, 1, 2)
    offset = jnp.where(free, _mean(seen - predicted, inner), 0)
    error, energy = jnp.sum(inner * (predicted + offset - seen) ** 2, axes), jnp.sum(inner * seen**2, axes)
    variance = jnp.sum(inner * (seen - _mean(seen, inner)) ** 2, axes)
    remains = jnp.sqrt(error / jnp.maximum(lr.shape[0] * inner.sum(), 1))
    return spatial, spectral, offset, remains, jnp.sqrt(error / energy), 1 - error / variance


def estimate(
    observation: Observation,
    model: ObservationModel,
    *,
    size: int | None = None,
    valid: Array | None = None,
    support: Array | None = None,
    boundary: Boundary = "reflect",
    smoothness: tuple[float, float | None] = (1e-9, None),
) -> Estimate:
    """Fills in the operators of ``model`` that are None, from the pair alone.

    All images of the batch are taken to come from the same two sensors. Both images may have any scale and zero: where
    their calibrations differ by a gain, the rows of the SRF sum to that gain and not to one, and what the guide holds
    besides, such as the path radiance of a blue band, is the model's offset. The PSF carries any shift between the
    images up to a third of its size.

    Args:
        observation: ``lr`` (batch, h, w, L) and ``guide`` (batch, H, W, l).
        model: says the grid; an operator that it holds is kept and helps to find the other one.
        size: rows and columns of the PSF, odd; ``4 ratio + 1`` where it is None.
        valid: ``(h, w)``, True where ``lr`` shows what it saw and so does the guide as far as the PSF reaches; other
            pixels are not fitted. All by default.
        support: ``(l, L)``, True where a guide band may see a band of ``lr``; everywhere where it is None.
        boundary: circular or reflect, of the operator that is returned; pixels that see it are not fitted.
        smoothness: weights of the squared first differences of SRF and PSF. They act in units of the number of bands
            and of the ratio. The PSF's is chosen from the pair where it is None: held-out rows say which explains them
            best.

    Raises:
        InputError: shapes that do not fit each other, the grid or the PSF's size, or too few valid pixels.
    """
    images, _ = model.linear(observation)
    lr, guide = images["lr"], images["guide"]
    grid = model.grid
    size = 4 * grid.ratio + 1 if size is None else size
    lr, guide = as_image(lr, "lr"), as_image(guide, "guide")
    if boundary not in ("circular", "reflect"):
        raise InputError(f"the boundary must be circular or reflect, but is {boundary!r}.")
    height, width = (grid.ratio * n for n in lr.shape[-3:-1])
    if lr.ndim != 4 or guide.shape[:-1] != (lr.shape[0], height, width):
        raise InputError(
            f"lr must be (batch, h, w, L) and guide (batch, ratio h, ratio w, l) with ratio {grid.ratio}, but their "
            f"shapes are {lr.shape} and {guide.shape}; crop both to their common extent."
        )
    needed = 2 * _margin(size, grid.ratio) + 4
    if size < 1 or size % 2 == 0 or min(lr.shape[1:3]) < needed:
        raise InputError(
            f"the PSF's size must be odd and needs an lr of at least {needed} x {needed} pixels, but the size is "
            f"{size} and lr has {lr.shape[1]} x {lr.shape[2]}; use an odd size and a larger image."
        )
    valid = jnp.ones(lr.shape[1:3], bool) if valid is None else jnp.asarray(valid, bool)
    if valid.shape != lr.shape[1:3]:
        raise InputError(f"valid must be (h, w) = {lr.shape[1:3]}, but is {valid.shape}.")
    count = int(_interior(valid[None], _margin(size, grid.ratio)).sum())
    if count < FEWEST:
        raise InputError(
            f"sensors are estimated from at least {FEWEST} pixels of lr that are valid, and whose surroundings in the "
            f"guide are, but there are {count}; name the sensors or give a part with fewer gaps."
        )
    shape = guide.shape[-1], lr.shape[-1]
    support = jnp.ones(shape, bool) if support is None else jnp.asarray(support, bool)
    if support.shape != shape:
        raise InputError(f"support must be (guide bands, lr bands) = {shape}, but is {support.shape}.")
    known = model.operators
    lr_response, guide_response, offset, remains, residual, r_squared = _estimate(
        {"lr": lr, "guide": guide},
        one_psf(known.get("lr")),
        known.get("guide"),
        valid,
        support,
        grid,
        size,
        boundary,
        smoothness,
    )
    responses = {"lr": lr_response, "guide": guide_response}
    found = {key: response for key, response in responses.items() if known.get(key) is None}
    filled = model.replace(operators={**known, **found}, estimated=(*model.estimated, *found))
    if "guide" in found:
        offset = {**model.offset, "guide": model.offset.get("guide", 0) + offset}
        filled = filled.replace(noise={**model.noise, "guide": remains}, offset=offset)
    return Estimate(filled, residual, r_squared)
