"""Scenes larger than memory: overlapping windows whose products add up without a seam."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np

from jfusion.errors import InputError


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


Windows = tuple[slice, slice]


def mosaic(
    rows: list[Span], columns: list[Span], ratio: int, fuse: Callable[[Windows], tuple[np.ndarray, np.ndarray]]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Adds the products of all windows, holding one row of windows at a time.

    Args:
        rows, columns: see `spans`.
        ratio: high-resolution pixels per low-resolution pixel.
        fuse: product ``(height, width, band)`` and valid ``(height, width)`` for low-resolution windows.

    Yields:
        first high-resolution row, product rows ``(n, width, band)`` and valid rows ``(n, width)``, from top to bottom.
    """
    width = columns[-1].stop * ratio
    done, product, valid = 0, np.zeros((0, width, 0), np.float32), np.zeros((0, width), bool)
    for k, row in enumerate(rows):
        top, height = row.start * ratio - done, (row.stop - row.start) * ratio
        for column in columns:
            tile, seen = fuse((slice(row.start, row.stop), slice(column.start, column.stop)))
            if product.shape[2] != tile.shape[2]:
                product = np.zeros((0, width, tile.shape[2]), np.float32)
            if grow := top + height - len(product):
                product = np.concatenate([product, np.zeros((grow, *product.shape[1:]), np.float32)])
                valid = np.concatenate([valid, np.ones((grow, width), bool)])
            window = np.s_[top : top + height, column.start * ratio : column.stop * ratio]
            share = row.weight[:, None] * column.weight
            product[window] += share[..., None] * tile
            valid[window] &= seen | (share == 0)
        ready = len(product) if k + 1 == len(rows) else rows[k + 1].start * ratio - done
        yield done, product[:ready], valid[:ready]
        done, product, valid = done + ready, product[ready:], valid[ready:]
