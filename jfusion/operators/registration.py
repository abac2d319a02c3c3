"""Registration: the smooth displacement of a low-resolution image against its guide, found from the pair alone.

The guide G, blurred to the low resolution, is a mixture of the bands of ``lr`` wherever both show the same place:
``G(p + d(p)) = c + F(p) C``, with F the strongest components of ``lr``. Which mixture is best under a displacement is
a regression, so that neither the spectral response nor a common calibration is needed. The displacement d is an affine
map and a surface of cubic B-splines on a coarse grid of controls, whose bending costs. Integer shifts are all tried;
Gauss-Newton steps go on from the best, from blurred images to sharp ones, with less weight on pixels that fit badly.
How far the surface may bend is what explains blocks best that were held out.

Bergen, Anandan, Hanna, Hingorani, "Hierarchical model-based motion estimation", ECCV 1992 (the steps); Rueckert et al.,
"Nonrigid registration using free-form deformations", IEEE TMI 18(8), 1999 (the surface and its bending energy).
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jfusion.errors import InputError, RunError
from jfusion.operators.estimate import TYPICAL_SIGMA
from jfusion.operators.grid import Grid
from jfusion.operators.linear import as_image, pytree, static_field
from jfusion.operators.observation import Observation, ObservationModel
from jfusion.operators.psf import gaussian_psf
from jfusion.operators.spatial import Blur, SpatialResponse, one_psf
from jfusion.operators.warp import Displaced, controls, on_spline, sampled, spline, warp

REACH = 5
"""Largest shift along either axis that is tried, in low-resolution pixels."""

COMPONENTS = 10
"""Components of ``lr`` that the guide is a mixture of."""

SPACING = 5
"""Least distance of the controls of the surface, in low-resolution pixels."""

CELLS = 8
"""Most cells of the surface along an axis."""

BENDING = (0.01, 0.1, 0.3, 1.0)
"""Standard deviations of the second differences between controls, in low-resolution pixels, that are tried."""

WORSE = 1.005
"""How much more may be left of the guide, in blocks that are held out, under a surface that bends less."""

PIXELS = 20_000
"""Low-resolution pixels that are compared; of larger images every second, third, ... row and column."""

STEPS = 8
"""Gauss-Newton steps at each blur."""

STIFF_LEVELS, LEVELS = (2.0, 1.0), (2.0, 1.0, 0.0)
"""Standard deviations of the additional blur, in low-resolution pixels, while the displacement is affine and after."""

OUTLIER = 3.0
"""Misfit in standard deviations at which a pixel has half its weight."""

STIFF, LOOSE = 1e8, 1e-2
"""Precision of the controls while the surface does not move, and of all unknowns at any time."""

SMALLEST = 12
"""Rows and columns of ``lr`` at least."""

ALL = 0.999
"""Share of valid pixels, among those that an interpolation sees, that counts as all of them."""

SAME_GROUND = 0.25
"""Share of the variance of a guide band that the bands of `lr` explain at least where both show the same ground."""

INVERSION = 20
"""Fixed-point steps to the inverse of a displacement."""


@dataclasses.dataclass(frozen=True)
class Registration:
    """How ``lr`` lies on its guide.

    Attributes:
        displacement: ``(h, w, 2)``, (row, column) in low-resolution pixels: pixel p of ``lr`` shows what lies at
            ``p + displacement[p]`` on the guide's grid.
        affine: part of it that is an affine map, ``(3, 2)``: at the image's centre, and its change over one pixel down
            and one pixel along.
        explained: share of the variance of the blurred guide that ``lr`` explains, by guide band.
        before: the same without a displacement.
    """

    displacement: Array
    affine: Array
    explained: Array
    before: Array

    def __str__(self) -> str:
        affine = np.asarray(self.affine)
        rows, columns = affine[0]
        rms = float(_local(self.displacement, self.affine))
        turn, scale = (affine[1, 1] - affine[2, 0]) / 2, (affine[1, 0] + affine[2, 1]) / 2
        return (
            f"LR displaced by {rows:+.2f} rows, {columns:+.2f} columns (in LR pixels), turned by "
            f"{math.degrees(turn):+.2f} degrees, scaled by {1 + scale:.4f}, locally by {rms:.2f}; it explains "
            f"{float(self.explained.mean()):.0%} of the guide there, {float(self.before.mean()):.0%} where it lay"
        )

    def check(self) -> None:
        """Raises RunError where both images hardly show the same ground, wherever `lr` is put."""
        if (share := float(self.explained.max())) < SAME_GROUND:
            raise RunError(
                f"the images could not be registered: wherever LR is put, up to {REACH} of its pixels from where it "
                f"lies, it explains {share:.0%} of the guide at most; check that both show the same place, or bring "
                "them nearer to each other first."
            )


def affine_field(affine: Array, size: tuple[int, ...]) -> Array:
    """The displacement ``(h, w, 2)`` of `Registration.affine`."""
    row, column = (jnp.arange(n) - (n - 1) / 2 for n in size)
    return affine[0] + row[:, None, None] * affine[1] + column[None, :, None] * affine[2]


@jax.jit
def _local(displacement: Array, affine: Array) -> Array:
    """Root mean square of what is not affine in a displacement."""
    rest = displacement - affine_field(affine, displacement.shape[:2])
    return jnp.sqrt(jnp.mean(jnp.sum(rest**2, -1)))


# ----------------------------------------------------------------------------------------------------------------------
# The surface


def _splines(size: int, cells: int) -> Array:
    """The splines of ``cells + 3`` controls at ``size`` pixels, ``(size, cells + 3)``."""
    return spline(jnp.linspace(0, cells, size)[:, None] + 1 - jnp.arange(cells + 3))


def _bending(rows: int, columns: int) -> np.ndarray:
    """Sum of squared second differences of ``(rows, columns)`` controls, mixed ones twice, as a quadratic form."""

    def gram(size: int, order: int) -> np.ndarray:
        difference = np.diff(np.eye(size), order, axis=0)
        return difference.T @ difference

    return (
        np.kron(gram(rows, 2), np.eye(columns))
        + np.kron(np.eye(rows), gram(columns, 2))
        + 2 * np.kron(gram(rows, 1), gram(columns, 1))
    )


def _cells(size: int) -> int:
    return max(1, min(CELLS, size // SPACING))


# ----------------------------------------------------------------------------------------------------------------------
# The steps


@pytree
class _Level:
    """Both images at one blur.

    Attributes:
        features: of the pixels that are compared, ``(pixel, component)``, the first of them 1.
        guide: blurred, as `controls` of splines, ``(H, W, band)``.
        slopes: its derivatives by row and column, per low-resolution pixel, ``(2, H, W, band)``.
        place: row and column of the pixels without displacement, in low-resolution pixels, ``(pixel, 2)``.
        valid: whether a pixel counts, ``(pixel,)``.
        ratio, phase: of the grid.
    """

    features: Array
    guide: Array
    slopes: Array
    place: Array
    valid: Array
    ratio: int = static_field()
    phase: tuple[int, int] = static_field()

    def only(self, counts: Array) -> _Level:
        """The level in which pixels count ``(pixel,)`` times as much."""
        return dataclasses.replace(self, valid=self.valid * counts)

    def at(self, displacement: Array) -> tuple[Array, Array, Array]:
        """Row, column and weight, 0 outside the guide, of the pixels under a displacement ``(pixel, 2)``."""
        position = self.ratio * (self.place + displacement) + jnp.asarray(self.phase)
        last = jnp.asarray(self.guide.shape[:2]) - 1
        inside = jnp.all((position >= 0) & (position <= last), -1)
        return position[:, 0], position[:, 1], self.valid * inside


def _regress(target: Array, on: Array, weight: Array) -> Array:
    """Weighted least squares over pixels, ``(component, band)``."""
    weighted = on * weight[:, None]
    gram = jnp.matmul(weighted.T, on, precision="highest")
    gram = gram + 1e-6 * jnp.trace(gram) * jnp.eye(len(gram))
    return jnp.linalg.solve(gram, jnp.matmul(weighted.T, target, precision="highest"))


def _misfit(level: _Level, displacement: Array, trust: Array | float = 1.0) -> tuple[Array, Array, Array]:
    """What is left of the guide ``(pixel, band)``, the weights of the pixels and the guide there."""
    row, column, weight = level.at(displacement)
    target = on_spline(level.guide, row, column)
    left = jnp.matmul(level.features, _regress(target, level.features, weight * trust), precision="highest") - target
    return left, weight, target


def _unexplained(level: _Level, displacement: Array) -> Array:
    """Share of the variance of each guide band that ``lr`` does not explain."""
    left, weight, target = _misfit(level, displacement)
    total = jnp.maximum(weight.sum(), 1)
    mean = (weight[:, None] * target).sum(0) / total
    variance = (weight[:, None] * (target - mean) ** 2).sum(0)
    return (weight[:, None] * left**2).sum(0) / jnp.where(variance > 0, variance, 1)


@jax.jit
def _best_shift(level: _Level, shifts: Array) -> Array:
    """Of ``(shift, 2)`` the one under which ``lr`` explains most of the guide, half the pixels at least."""

    def score(shift: Array) -> Array:
        displacement = jnp.broadcast_to(shift, level.place.shape)
        share = level.at(displacement)[2].sum() / jnp.maximum(level.valid.sum(), 1)
        return jnp.where(share >= 0.5, _unexplained(level, displacement).mean(), jnp.inf)

    return shifts[jnp.argmin(jax.lax.map(score, shifts))]


@jax.jit
def _left(level: _Level, counts: Array, basis: Array, unknowns: Array) -> Array:
    """`_unexplained`, the mean over bands, of the pixels that count ``(pixel,)``."""
    return _unexplained(level.only(counts), jnp.matmul(basis, unknowns, precision="highest")).mean()


@jax.jit
def _settle(level: _Level, counts: Array, basis: Array, stiffness: Array, trust: float, unknowns: Array) -> Array:
    """`STEPS` Gauss-Newton steps for the unknowns ``(basis, 2)`` of the displacement ``basis @ unknowns``.

    Args:
        level: what is compared.
        counts: how much each pixel counts, ``(pixel,)``.
        basis: ``(pixel, basis)``.
        stiffness: quadratic form of the controls, ``(control, control)``, the same for rows and columns.
        trust: pixels that say as much as one would, were the noise of neighbours independent, per pixel.
        unknowns: to begin with.
    """
    level, penalty = level.only(counts), (LOOSE * jnp.eye(basis.shape[1])).at[3:, 3:].add(stiffness)

    def step(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        unknowns, weight = state
        displacement = jnp.matmul(basis, unknowns, precision="highest")
        row, column, inside = level.at(displacement)
        left = _misfit(level, displacement, weight)[0]
        weight = weight * inside
        variance = (weight[:, None] * left**2).sum(0) / jnp.maximum(weight.sum(), 1)
        precision = 1 / jnp.where(variance > 0, variance, 1)
        slopes = jnp.stack([sampled(slope, row, column) for slope in level.slopes])
        moments = jnp.einsum("ipb,jpb,b->ijp", slopes, slopes, precision, precision="highest") * weight * trust
        pull = jnp.einsum("ipb,pb,b->ip", slopes, left, precision, precision="highest") * weight * trust
        count = basis.shape[1]
        gram = jnp.einsum("pk,ijp,pl->ikjl", basis, moments, basis, precision="highest")
        gram = gram + jnp.einsum("ij,kl->ikjl", jnp.eye(2), penalty)
        wanted = jnp.einsum("pk,ip->ik", basis, pull, precision="highest")
        wanted = wanted - jnp.matmul(penalty, unknowns, precision="highest").T
        gram = gram.reshape(2 * count, 2 * count)
        scale = 1 / jnp.sqrt(jnp.diag(gram))
        change = scale * jnp.linalg.solve(gram * scale[:, None] * scale, scale * wanted.ravel())
        change = change.reshape(2, count).T
        change = change / jnp.maximum(1, jnp.abs(basis @ change).max())
        square = jnp.mean(left**2 * precision, -1)
        return (unknowns + change, 1 / (1 + square / OUTLIER**2)), None

    return jax.lax.scan(step, (unknowns, jnp.ones(len(basis))), length=STEPS)[0][0]


# ----------------------------------------------------------------------------------------------------------------------
# The whole


def _standard(image: Array) -> Array:
    """Bands of mean 0 and deviation 1; a constant one is 0."""
    mean, deviation = image.mean((0, 1)), image.std((0, 1))
    return (image - mean) / jnp.where(deviation > 1e-6 * jnp.abs(mean), deviation, jnp.inf)


def _components(lr: Array) -> Array:
    """The strongest principal components of an image, ``(h, w, component)``."""
    centred = lr - lr.mean((0, 1))
    spectra = centred.reshape(-1, lr.shape[-1])
    _, vectors = jnp.linalg.eigh(jnp.matmul(spectra.T, spectra, precision="highest"))
    return jnp.matmul(centred, vectors[:, ::-1][:, :COMPONENTS], precision="highest")


def _blurred(image: Array, sigma: float) -> Array:
    return Blur(gaussian_psf(sigma, Grid(1, (0.0, 0.0))), "reflect")(image) if sigma else image


@jax.jit
def _levels(lr: Array, guide: Array, response: SpatialResponse, valid: Array) -> dict[float, _Level]:
    """One for each of `LEVELS`; images without their axis of one."""
    features, seen = _components(lr), response.blur(guide)
    return {sigma: _level(features, seen, response, valid, sigma) for sigma in LEVELS}


def _level(lr: Array, guide: Array, response: SpatialResponse, valid: Array, sigma: float) -> _Level:
    """Components of ``lr`` and the blurred guide, both blurred by ``sigma`` low-resolution pixels more."""
    step = math.ceil(math.sqrt(valid.size / PIXELS))
    rows, columns = (jnp.arange(0, n, step) for n in valid.shape)
    place = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2).astype(lr.dtype)
    features = _standard(_blurred(lr, sigma))[::step, ::step].reshape(len(place), -1)
    seen = _standard(_blurred(guide, response.ratio * sigma))
    counts = valid * _blurred(valid[..., None].astype(lr.dtype), sigma)[..., 0]
    slopes = jnp.stack([response.ratio * slope for slope in jnp.gradient(seen, axis=(0, 1))])
    return _Level(
        jnp.concatenate([jnp.ones((len(place), 1), lr.dtype), features], 1), controls(seen), slopes, place,
        counts[::step, ::step].ravel(), response.ratio, response.phase,
    )  # fmt: skip


def spatial_response(model: ObservationModel) -> SpatialResponse:
    """The response of ``lr``; where it is not known a Gaussian of `TYPICAL_SIGMA`.

    Raises:
        InputError: it is no `SpatialResponse`, or loses the border.
    """
    operator, grid = model.operators.get("lr"), model.grid
    if operator is None:
        return SpatialResponse(gaussian_psf(TYPICAL_SIGMA * grid.ratio, grid), grid.ratio, grid.phase)
    if not isinstance(operator, SpatialResponse) or operator.boundary == "valid":
        raise InputError(
            "registration needs an operator of `lr` that is a SpatialResponse with boundary circular or reflect, but "
            f"it is a {type(operator).__name__} with boundary {getattr(operator, 'boundary', 'none')}; give the PSF."
        )
    return operator


def _on_guide(model: ObservationModel) -> SpatialResponse:
    """`spatial_response` with one PSF for all bands, the mean where there are several."""
    return one_psf(spatial_response(model))


def register(observation: Observation, model: ObservationModel, valid: Array | None = None) -> Registration:
    """Finds how ``lr`` is displaced against the guide.

    Shifts up to `REACH` low-resolution pixels are found from nothing, and smooth deformations of some pixels with them.
    What no pixel shows is decided by the bending alone; see the module.

    Args:
        observation: ``lr`` ``(1, h, w, L)`` and ``guide`` ``(1, H, W, l)``.
        model: its grid, and the PSF of ``lr`` where that is known; the spectral response is not needed.
        valid: ``(h, w)``, which pixels of ``lr`` count; all by default.

    Raises:
        InputError: not one pair, shapes that do not fit, images that are too small, or an operator of ``lr`` that is no
            blur and decimation.
    """
    lr, guide = as_image(observation["lr"], "lr"), as_image(observation["guide"], "guide")
    size, ratio = (lr.shape[1], lr.shape[2]), model.ratio
    if lr.ndim != 4 or lr.shape[0] != 1 or guide.shape[:3] != (1, ratio * size[0], ratio * size[1]):
        raise InputError(
            f"registration takes one pair, lr (1, h, w, L) and guide (1, ratio h, ratio w, l) with ratio {ratio}, but "
            f"the shapes are {lr.shape} and {guide.shape}; give one pair, cropped to what both share."
        )
    if min(size) < SMALLEST:
        raise InputError(
            f"registration needs an lr of at least {SMALLEST} x {SMALLEST} pixels, but it has {size[0]} x {size[1]}; "
            "give a larger image."
        )
    levels = _levels(lr[0], guide[0], _on_guide(model), jnp.ones(size, bool) if valid is None else valid)
    reach = min(REACH, min(size) // 4)
    shift = _best_shift(levels[STIFF_LEVELS[0]], np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T)
    sharp, cells = levels[0.0], (_cells(size[0]), _cells(size[1]))
    basis, squares = _basis(sharp.place, size, cells), _squares(sharp.place, size, cells)
    bending = _bending(cells[0] + 3, cells[1] + 3).astype(lr.dtype)

    def fitted(
        unknowns: Array | np.ndarray, sigmas: tuple[float, ...], stiffness: np.ndarray, counts: np.ndarray
    ) -> Array:
        for sigma in sigmas:
            trust = 1 / (1 + 4 * math.pi * sigma**2)
            unknowns = _settle(levels[sigma], counts, basis, stiffness, trust, unknowns)
        return jnp.asarray(unknowns)

    everything = np.ones_like(squares)
    start = np.zeros((basis.shape[1], 2), lr.dtype)
    start[0] = shift
    affine = fitted(start, STIFF_LEVELS, STIFF * np.eye(len(bending)), everything)
    tries = {deviation: fitted(affine, LEVELS, bending / deviation**2, squares) for deviation in BENDING}
    left = {deviation: float(_left(sharp, 1 - squares, basis, unknowns)) for deviation, unknowns in tries.items()}
    good = (deviation for deviation, value in left.items() if value <= WORSE * min(left.values()))
    chosen = next(good, BENDING[0])  # no value is a number where one half of the squares has no valid pixel
    unknowns = fitted(affine, LEVELS, bending / chosen**2, everything)
    return Registration(*_found(sharp, basis, unknowns, size, cells))


@partial(jax.jit, static_argnums=(3, 4))
def _found(
    level: _Level, basis: Array, unknowns: Array, size: tuple[int, int], cells: tuple[int, int]
) -> tuple[Array, Array, Array, Array]:
    """The fields of `Registration`."""
    displacement = _field(unknowns, size, cells)
    still, moved = jnp.zeros((len(basis), 2)), jnp.matmul(basis, unknowns, precision="highest")
    explained, before = (1 - _unexplained(level, d) for d in (moved, still))
    return displacement, _affine_part(displacement), explained, before


def _squares(place: Array, size: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """1 on the black squares of a chequerboard whose squares are the cells of the surface, else 0, ``(pixel,)``."""
    square = np.asarray(place) // (np.asarray(size) / cells)
    return 1 - square.sum(-1).astype(place.dtype) % 2


def _planes(place: Array, size: tuple[int, ...]) -> Array:
    """1, row and column, the latter from -1 to 1, of places ``(..., 2)``."""
    centred = 2 * place / (jnp.asarray(size) - 1) - 1
    return jnp.concatenate([jnp.ones((*place.shape[:-1], 1)), centred], -1)


@partial(jax.jit, static_argnums=(1, 2))
def _basis(place: Array, size: tuple[int, int], cells: tuple[int, int]) -> Array:
    """What every unknown adds to the displacement of pixels at ``place`` ``(pixel, 2)``: ``(pixel, 3 + control)``."""
    rows, columns = (_splines(*axis)[place[:, k].astype(int)] for k, axis in enumerate(zip(size, cells, strict=True)))
    surface = (rows[:, :, None] * columns[:, None, :]).reshape(len(place), -1)
    return jnp.concatenate([_planes(place, size), surface], -1)


def _field(unknowns: Array, size: tuple[int, int], cells: tuple[int, int]) -> Array:
    """The displacement of all pixels, ``(h, w, 2)``."""
    rows, columns = map(_splines, size, cells)
    grid = unknowns[3:].reshape(rows.shape[1], columns.shape[1], 2)
    affine = jnp.matmul(_planes(_places(size), size), unknowns[:3], precision="highest")
    return affine + jnp.einsum("im,jn,mnk->ijk", rows, columns, grid, precision="highest")


def _affine_part(displacement: Array) -> Array:
    """See `Registration.affine`: the least-squares fit to a displacement ``(h, w, 2)``."""
    row, column = (jnp.arange(n) - (n - 1) / 2 for n in displacement.shape[:2])
    down = jnp.einsum("i,ijk->k", row, displacement, precision="highest") / (jnp.sum(row**2) * len(column))
    along = jnp.einsum("j,ijk->k", column, displacement, precision="highest") / (jnp.sum(column**2) * len(row))
    return jnp.stack([displacement.mean((0, 1)), down, along])


@jax.jit
def inverse(displacement: Array) -> Array:
    """The displacement ``(h, w, 2)`` that takes ``displacement`` back: ``p = q + inverse[q]`` where ``q = p +
    displacement[p]``, by fixed-point steps, which converge where neighbours do not change places.
    """

    def step(back: Array, _: None) -> tuple[Array, None]:
        return -warp(displacement, back), None

    return jax.lax.scan(step, -displacement, length=INVERSION)[0]


def displaced(model: ObservationModel, displacement: Array) -> ObservationModel:
    """The model of a pair whose ``lr`` is displaced; see `spatial_response` for a PSF that is not known."""
    return model.replace(operators=model.operators | {"lr": Displaced(spatial_response(model), displacement)})


@jax.jit
def mixture(observation: Observation, model: ObservationModel, displacement: Array) -> Array:
    """The scene as far as it is a mixture of the guide's bands: ``lr`` regressed on the guide as its sensor sees it,
    under a displacement ``(h, w, 2)``, and applied to the guide, ``(1, H, W, L)``.
    """
    lr, guide = observation["lr"], observation["guide"]
    operator = Displaced(_on_guide(model), displacement)
    moved = operator(guide)
    level = moved.mean((1, 2))

    def on(image: Array) -> Array:
        ones = jnp.ones((*image.shape[:-1], 1), image.dtype)
        return jnp.concatenate([ones, image - level], -1)

    weight = operator.on_scene(lr.shape[1:3]).astype(lr.dtype).ravel()
    target, mixed = (image.reshape(weight.size, -1) for image in (lr, on(moved)))
    return jnp.matmul(on(guide), _regress(target, mixed, weight), precision="highest")


@jax.jit
def aligned(observation: Observation, model: ObservationModel, displacement: Array, scene: Array) -> Array:
    """``lr`` ``(1, h, w, L)`` as a sensor in place would have seen it, for systems that take no displacement.

    What is known of the scene is seen anew, so that it is not interpolated and lacks no detail; only what ``lr`` has
    beyond that is interpolated, by cubic splines on the low-resolution grid. Where ``lr`` shows nothing, that is
    taken from the nearest pixel that it shows.

    Args:
        observation: ``lr`` ``(1, h, w, L)`` and ``guide``.
        model: see `register`.
        displacement: of `Registration`.
        scene: what is known of it, ``(1, H, W, L)``, such as the `mixture`.
    """
    operator, back = Displaced(spatial_response(model), displacement), inverse(displacement)
    size = back.shape[:2]
    beyond = (observation["lr"] - operator(scene)) * operator.on_scene(size)[..., None]
    place = _places(size) + back
    return operator.response(scene) + on_spline(controls(beyond), place[..., 0], place[..., 1])


def in_place(observation: Observation, model: ObservationModel) -> Array:
    """``lr``, `aligned` by the `mixture` where the model says that it is displaced."""
    lr, operator = observation["lr"], model.operators.get("lr")
    if not isinstance(operator, Displaced):
        return lr
    straight = model.replace(operators=model.operators | {"lr": operator.response})
    displacement = jnp.broadcast_to(operator.displacement, (*lr.shape[-3:-1], 2))
    return aligned(observation, straight, displacement, mixture(observation, straight, displacement))


@jax.jit
def shown(displacement: Array, valid: Array | None = None) -> Array:
    """Which low-resolution pixels of the guide's grid an ``lr`` so displaced shows, ``(h, w)``.

    Args:
        displacement: of `Registration`.
        valid: ``(h, w)``, which pixels of ``lr`` count; all by default.
    """
    size, back = displacement.shape[:2], inverse(displacement)
    place = _places(size) + back
    inside = jnp.all((place >= -0.5) & (place <= jnp.asarray(size) - 0.5), -1)
    return inside if valid is None else inside & (warp(valid[..., None].astype(back.dtype), back)[..., 0] > ALL)


def _places(size: tuple[int, ...]) -> Array:
    """Row and column of every pixel, ``(h, w, 2)``."""
    return jnp.stack(jnp.meshgrid(*(jnp.arange(n) for n in size), indexing="ij"), -1)
