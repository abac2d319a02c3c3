"""Where the low-resolution pixels lie on the high-resolution grid."""

from __future__ import annotations

import dataclasses
import math

from jfusion.errors import InputError


def prime_factors(ratio: int) -> list[int]:
    """Steps that make a ratio one after the other, the smallest first; none for 1."""
    for prime in range(2, ratio + 1):
        if ratio % prime == 0:
            return [prime, *prime_factors(ratio // prime)]
    return []


@dataclasses.dataclass(frozen=True)
class Grid:
    """Geometry of a pair whose axes are parallel.

    Attributes:
        ratio: high-resolution pixels per low-resolution pixel, an integer of at least 1.
        centre: (row, column) of the high-resolution pixel, counted from 0 and possibly fractional, on which the
            centre of the low-resolution pixel (0, 0) falls. ``(ratio - 1) / 2`` for nested (block-centred) grids;
            an integer where pixel centres coincide, as on Landsat. It lies between -0.5 and ``ratio - 0.5``,
            the outer edges of the pixels 0 to ``ratio - 1``.
    """

    ratio: int
    centre: tuple[float, float]

    def __post_init__(self) -> None:
        if self.ratio != int(self.ratio) or self.ratio < 1:
            raise InputError(f"the ratio must be an integer of at least 1, but is {self.ratio}; resample one image.")
        if not all(-0.5 <= c <= self.ratio - 0.5 for c in self.centre):
            raise InputError(
                f"the centre of the first low-resolution pixel must lie between -0.5 and ratio - 0.5 = "
                f"{self.ratio - 0.5}, but is {self.centre}; crop both images to their common extent."
            )

    @staticmethod
    def nested(ratio: int) -> Grid:
        """The grid whose low-resolution pixels are blocks of ``ratio`` x ``ratio`` pixels."""
        return Grid(ratio, ((ratio - 1) / 2, (ratio - 1) / 2))

    @property
    def phase(self) -> tuple[int, int]:
        """Index of the first high-resolution row and column that decimation picks."""
        row, column = (min(max(math.floor(c), 0), self.ratio - 1) for c in self.centre)
        return row, column

    @property
    def shift(self) -> tuple[float, float]:
        """What is left of the centre after `phase`, from -0.5 to below 1: the PSF has to carry it."""
        return self.centre[0] - self.phase[0], self.centre[1] - self.phase[1]
