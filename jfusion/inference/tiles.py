"""Scenes larger than memory: overlapping windows whose products add up without a seam."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import numpy as np

from jfusion.errors import InputError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Span:
    """One window on one axis.

    Attributes:
        start, stop: low-resolution pixels that the window reads; every window has the same length.
        weight: share of the product in each high-resolution pixel of the window; over all windows they sum to one.
    """

    start: int
    stop: int
    weight: np.ndarray


def spans(size: int, tile: int, margin: int, ratio: int, blend: bool) -> list[Span]:
    """Windows of at most ``tile`` low-resolution pixels that cover an axis of ``size``, evenly spread.

    Every pixel of the product is taken where it lies at least ``margin`` low-resolution pixels inside a window or
    where the window ends with the image.

    Args:
        size: low-resolution pixels of the axis.
        tile: length of a window.
        margin: overlap on each side, at least 1.
        ratio: high-resolution pixels per low-resolution pixel.
        blend: mix neighbouring windows linearly (for systems that use statistics of the window) instead of taking
            each pixel from the window in which it lies deepest.

    Raises:
        InputError: the margin leaves nothing of a window.
    """
    tile = min(tile, size)
    if tile < size and tile <= 2 * margin:
        raise InputError(
            f"a tile of {tile * ratio} pixels is not larger than twice its margin of {margin * ratio}; "
            f"use --tile {4 * margin * ratio} or more."
        )
    count = 1 if tile == size else math.ceil((size - 2 * margin) / (tile - 2 * margin))
    starts = np.round(np.linspace(0, size - tile, count)).astype(int)
    position = (np.arange(size * ratio) + 0.5) / ratio
    before = np.where(starts[:, None] == 0, np.inf, position - starts[:, None])
    after = np.where(starts[:, None] + tile == size, np.inf, starts[:, None] + tile - position)
    depth = np.maximum(np.minimum(before, after), 0)
    if blend:
        inside = np.clip(depth - margin / 2, 0, margin)
        weight = inside / inside.sum(0)
    else:
        weight = np.arange(count)[:, None] == np.argmax(np.minimum(depth, size + 1), axis=0)
    return [
        Span(int(s), int(s) + tile, w[s * ratio : (s + tile) * ratio].astype(np.float32))
        for s, w in zip(starts, weight, strict=True)
    ]


class Tile(NamedTuple):
    """A window's product `(height, width, band)` and where it is valid, `(height, width)`."""

    image: np.ndarray
    valid: np.ndarray


Part = tuple[int, int, Tile]
"""First high-resolution row and column, and what lies there."""


def windows(rows: list[Span], columns: list[Span]) -> Iterator[tuple[slice, slice]]:
    """What the windows read, in low-resolution pixels, row by row."""
    for row, column in itertools.product(rows, columns):
        yield slice(row.start, row.stop), slice(column.start, column.stop)


@contextmanager
def ahead(items: Iterable[T]) -> Iterator[Iterator[T]]:
    """The same items; a thread makes the first one at once, and the next while one is used."""
    source = ((item,) for item in items)
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(next, source, None)

        def made() -> Iterator[T]:
            coming = first
            while (item := coming.result()) is not None:
                coming = thread.submit(next, source, None)
                yield item[0]

        yield made()


def mosaic(rows: list[Span], columns: list[Span], ratio: int, tiles: Iterable[Tile]) -> Iterator[Part]:
    """Puts the products of all windows together, holding at most one row of windows.

    Args:
        rows, columns: see `spans`.
        ratio: high-resolution pixels per low-resolution pixel.
        tiles: products in the order of `windows`.

    Yields:
        parts that cover the whole once, from top to bottom.
    """
    whole = all(np.isin(span.weight, (0, 1)).all() for span in (*rows, *columns))
    return (_cut if whole else _blended)(rows, columns, ratio, iter(tiles))


def _cut(rows: list[Span], columns: list[Span], ratio: int, tiles: Iterator[Tile]) -> Iterator[Part]:
    """Of each window what is its own."""

    def own(span: Span) -> slice:
        used = np.flatnonzero(span.weight)
        return slice(used[0], used[-1] + 1) if len(used) else slice(0)

    for (row, column), tile in zip(itertools.product(rows, columns), tiles, strict=True):
        window = own(row), own(column)
        part = Tile(tile.image[window], tile.valid[window])
        if part.valid.size:
            yield row.start * ratio + window[0].start, column.start * ratio + window[1].start, part


def _blended(rows: list[Span], columns: list[Span], ratio: int, tiles: Iterator[Tile]) -> Iterator[Part]:
    """Weighted sums, a row of windows at a time."""
    width = columns[-1].stop * ratio
    below: Tile | None = None
    for row, following in itertools.zip_longest(rows, rows[1:]):
        top, height, first = row.start * ratio, (row.stop - row.start) * ratio, next(tiles)
        strip = Tile(np.zeros((height, width, first.image.shape[2]), np.float32), np.ones((height, width), bool))
        if below is not None:
            for whole, part in zip(strip, below, strict=True):
                whole[: len(part)] = part
        for column, tile in zip(columns, itertools.chain([first], tiles), strict=False):
            window = np.s_[:, column.start * ratio : column.stop * ratio]
            for line, weight, image in zip(strip.image[window], row.weight, tile.image, strict=True):
                line += (weight * column.weight)[:, None] * image  # a line stays in the processor's cache
            strip.valid[window] &= tile.valid | (row.weight[:, None] * column.weight == 0)
        done = height if following is None else following.start * ratio - top
        below = Tile(strip.image[done:], strip.valid[done:])
        if done:
            yield top, 0, Tile(strip.image[:done], strip.valid[:done])
