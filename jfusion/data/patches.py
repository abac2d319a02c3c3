"""Random aligned crops as a source of numbered elements: crop k is a function of the seed and k alone."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from functools import cached_property
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np

from jfusion.data.simulate import Region, Simulation, cut_off
from jfusion.errors import InputError
from jfusion.operators import ObservationModel
from jfusion.operators.spatial import SpatialResponse, psf_size

Record = dict[str, np.ndarray]
"""Arrays of one place by name: the keys of the observation, and "target"."""

ENDLESS = 2**48
"""Crops of a source; more than anyone trains on."""

VALID = "valid"
"""Key of an observation under which masks of `Crops.valid` lie, ``(1, height, width, 1)``."""


@dataclasses.dataclass(frozen=True)
class Crops:
    """Crops of images that show the same places with different pixel sizes, cut so that they stay aligned.

    ``crops[k]`` is drawn from ``(seed, k)``: however a run is stopped, resumed or shared by processes, the k-th crop is
    the same.

    Attributes:
        images: by name, ``(image, height, width, band)``; heights and widths are multiples of the smallest image's.
        size: (height, width) of a crop of the smallest image, in its pixels.
        seed: of the places.
        valid: pixels of the smallest image that crops are to hold, ``(height, width)``: no others where there is a
            place of its own for a crop, else as few as there can be; None for all.
    """

    images: Mapping[str, np.ndarray]
    size: tuple[int, int]
    seed: int = 0
    valid: np.ndarray | None = None

    def __post_init__(self) -> None:
        counts = {name: len(image) for name, image in self.images.items()}
        if len(set(counts.values())) != 1:
            raise InputError(f"the images must be equally many under every name, but are {counts}.")
        rows, columns = self.extent
        for name, image in self.images.items():
            height, width = image.shape[1:3]
            if height % rows or width % columns or height // rows != width // columns:
                raise InputError(
                    f"{name} of {height} x {width} pixels is no multiple of the coarsest image of {rows} x {columns}; "
                    "crop the images to one extent."
                )

    @property
    def extent(self) -> tuple[int, int]:
        """(height, width) of the smallest image."""
        return min(image.shape[1:3] for image in self.images.values())

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, k: SupportsIndex) -> Record:
        n, row, column = self.place(int(k))
        height, width = self.size
        record = {}
        for name, image in self.images.items():
            scale = image.shape[1] // self.extent[0]
            rows, columns = slice(row * scale, (row + height) * scale), slice(column * scale, (column + width) * scale)
            record[name] = image[n, rows, columns]
        return record

    def place(self, k: int) -> tuple[int, int, int]:
        """(image, first row, first column) of crop k, in pixels of the smallest image."""
        (rows, columns), count = self.extent, len(next(iter(self.images.values())))
        draw = np.random.default_rng((self.seed, k)).integers
        if self.valid is not None:
            n, place = draw(0, (count, len(self.fullest)))
            row, column = self.fullest[place]
        else:
            n, row, column = draw(0, (count, rows - self.size[0] + 1, columns - self.size[1] + 1))
        return int(n), int(row), int(column)

    @cached_property
    def fullest(self) -> np.ndarray:
        """First row and column of the places that hold the most valid pixels, ``(place, 2)``."""
        (height, width), sums = self.size, np.pad(np.asarray(self.valid), ((1, 0), (1, 0))).cumsum(0, int).cumsum(1)
        across = sums[:, width:] - sums[:, :-width]
        counts = across[height:] - across[:-height]
        return np.argwhere(counts == counts.max())


def crops(data: Simulation, patch: int, seed: int = 0) -> Crops:
    """Crops of pairs with truth; the side is ``patch`` high-resolution pixels or, where the image is smaller, its own.

    They keep to what an observation says of `VALID` pixels.

    Raises:
        InputError: the images do not lie on multiples of one grid.
    """
    images = {name: np.asarray(image) for name, image in {**data.observation, "target": data.target}.items()}
    mask = images.pop(VALID, None)
    rows, columns = min(image.shape[1:3] for image in images.values())
    side = max(1, patch // max(image.shape[1] // rows for image in images.values()))
    return Crops(images, (min(side, rows), min(side, columns)), seed, None if mask is None else mask[0, ..., 0])


Turn = tuple[bool, bool, bool]
"""Whether rows and columns change places, and whether rows, and columns, are then mirrored."""

TURNS: tuple[Turn, ...] = tuple(itertools.product((False, True), (False, True), (False, True)))


def turned(data: Simulation, turn: Turn) -> Simulation | None:
    """The pairs turned, cut by up to a low-resolution pixel so that they lie on the same grid again; no copies.

    A grid that is not nested is not symmetric: mirrored, its low-resolution pixels lie on other high-resolution ones.
    None where that takes them between pixels or, at ratio 1, onto others.
    """
    grid, transpose, mirrored = data.model.grid, turn[0], turn[1:]
    centre = grid.centre[::-1] if transpose else grid.centre
    parts: dict[int, list[slice]] = {1: [slice(None)], grid.ratio: [slice(None)]}
    for axis in range(2):
        late = (grid.ratio - 1 - centre[axis] if mirrored[axis] else centre[axis]) - grid.centre[axis]
        if late != int(late) or (late and grid.ratio == 1):
            return None
        rows = np.shape(data.target)[2 - axis if transpose else 1 + axis] // grid.ratio
        begin, end = int(late < 0), rows - int(late > 0)
        parts[1].append(slice(begin, end))
        if grid.ratio > 1:
            parts[grid.ratio].append(slice(begin * grid.ratio + int(late), end * grid.ratio + int(late)))

    def view(image: Any) -> Any:
        scale = image.shape[1] // (data.target.shape[1] // grid.ratio)
        image = np.asarray(image).swapaxes(1, 2) if transpose else np.asarray(image)
        axes = tuple(1 + axis for axis in range(2) if mirrored[axis])
        return np.flip(image, axes)[tuple(parts[scale])]

    return data._replace(observation=jax.tree.map(view, data.observation), target=view(data.target))


def symmetries(model: ObservationModel) -> tuple[Turn, ...]:
    """The turns after which an image is still seen as ``model`` says: a PSF need not be symmetric, nor its grid."""
    spatial = model.operators.get("lr")
    if not isinstance(spatial, SpatialResponse):
        return TURNS
    reach = max(psf_size(spatial.psf)) // model.ratio + 2
    spatial = dataclasses.replace(spatial, boundary="circular")
    profile = spatial.psf[0]
    side, bands = 2 * reach + 2, profile.shape[-1] if profile.ndim > 1 else 1
    shape = (1, side * model.ratio, side * model.ratio, bands)
    target = jnp.asarray(np.random.default_rng(0).random(shape, np.float32))
    seen = Simulation({"lr": spatial(target)}, model, target)
    inner = slice(reach, -reach)

    def kept(turn: Turn) -> bool:
        pair = turned(seen, turn)
        if pair is None:
            return False
        lr, again = pair.observation["lr"], spatial(pair.target)
        return np.allclose(again[:, inner, inner], lr[:, inner, inner], atol=1e-4)

    return tuple(filter(kept, TURNS))


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Record k comes from one of several sources, drawn from ``(seed, k)``."""

    sources: tuple[Crops, ...]
    seed: int = 0

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, k: SupportsIndex) -> Record:
        return self.sources[np.random.default_rng((self.seed, int(k), 1)).integers(len(self.sources))][k]


def turned_crops(data: Simulation, patch: int, seed: int = 0) -> Mixture:
    """Square crops like `crops`, turned and mirrored at random in the ways that leave the observation model true.

    Raises:
        InputError: the images do not lie on multiples of one grid.
    """
    views = [view for view in (turned(data, turn) for turn in symmetries(data.model)) if view is not None]
    side = min(min(crops(view, patch).size) for view in views)
    return Mixture(tuple(dataclasses.replace(crops(view, patch, seed), size=(side, side)) for view in views), seed)


def hold_out(data: Simulation, share: float = 0.2, gap: int = 2) -> tuple[Simulation, Simulation]:
    """Pairs to train on and pairs of a part that training does not see; see `cut_off`.

    That part lies at the right edge of an image that is wider than high, else at its lower edge.

    Args:
        data: pairs with truth.
        share: of the image that is held out.
        gap: low-resolution pixels between the two that neither gets, so that a blurred one seldom sees both.

    Raises:
        InputError: one of the two would be empty.
    """
    ratio, (height, width) = data.model.ratio, data.target.shape[1:3]
    length = max(height, width) // ratio
    held = round(length * share)
    if held < 1 or length - held - gap < 1:
        raise InputError(f"{length} pixels cannot be parted into {share:.0%} held out, a gap of {gap} and the rest.")

    def region(begin: int, end: int) -> Region:
        along = begin * ratio, end * ratio
        return (0, height, *along) if width > height else (*along, 0, width)

    return cut_off(data, region(0, length - held - gap)), cut_off(data, region(length - held, length))
