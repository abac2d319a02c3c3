"""Regions of single scenes that papers train and test on, in pixels counted from 0, ends excluded."""

from collections.abc import Iterable
from typing import NamedTuple


class Region(NamedTuple):
    """Rows `top:bottom`, columns `left:right`."""

    top: int
    bottom: int
    left: int
    right: int

    def __str__(self) -> str:
        return f"rows {self.top}:{self.bottom}, columns {self.left}:{self.right}"


def tiles(width: int, size: tuple[int, int], numbers: Iterable[int]) -> tuple[Region, ...]:
    """Whole tiles of `size` (rows, columns) of a scene `width` columns wide, numbered from 1 along the rows."""
    rows, columns = size
    across = width // columns
    corners = [((number - 1) // across * rows, (number - 1) % across * columns) for number in numbers]
    return tuple(Region(top, top + rows, left, left + columns) for top, left in corners)


def around(hole: Region, height: int, width: int) -> tuple[Region, ...]:
    """What a scene of that size has above, below, left and right of the hole."""
    return (
        Region(0, hole.top, 0, width),
        Region(hole.bottom, height, 0, width),
        Region(hole.top, hole.bottom, 0, hole.left),
        Region(hole.top, hole.bottom, hole.right, width),
    )


def ssrnet(height: int, width: int, size: int = 128, ratio: int = 4) -> dict[str, tuple[Region, ...]]:
    """Split of SSR-NET (X. Zhang et al., TGRS 2020) and its many followers: the middle of the scene is the test.

    The scene first loses its last rows and columns, as in the authors' loader: what a multiple of the ratio leaves
    over, or one if nothing. The authors train on the whole scene with zeros in its middle; here its four sides are
    regions.
    """
    height, width = (length - (length % ratio or 1) for length in (height, width))
    top, left = (height - size) // 2, (width - size) // 2
    middle = Region(top, top + size, left, left + size)
    return {"train": around(middle, height, width), "test": (middle,)}
