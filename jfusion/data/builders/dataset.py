"""What is known about one benchmark: who publishes it, under which terms, how its files lie, and how it is split."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from jfusion.data.builders.regions import Region
from jfusion.errors import InputError

Part = str | Region
"""What a split lists: names of scenes or files, or regions of the one scene."""

Files = Mapping[str, Path]
"""Where each needed file lies, by its name."""

Example = tuple[str, dict[str, np.ndarray]]
"""Name and images `(height, width, band)` by role."""

SHOWN = 3


class Image(NamedTuple):
    """Bands and number type of one image of an example; height and width may vary."""

    bands: int
    dtype: str


class Layout(Protocol):
    """How the publisher's files lie and what is in them."""

    @property
    def images(self) -> Mapping[str, Image]:
        """The images of an example by role: `hsi`, or `lr`, `guide` and `target`."""

    def files(self, part: Part) -> tuple[str, ...]:
        """Names of the files that hold a part."""

    def read(self, files: Files, parts: Sequence[Part]) -> Iterator[Example]:
        """The examples of the parts, in their order.

        Raises:
            InputError: a file is damaged, or holds something else than was published.
        """


@dataclass(frozen=True)
class Dataset:
    """One benchmark.

    Attributes:
        title: its name in papers.
        layout: how its files lie.
        protocols: by name of the protocol, the parts of each split; the first protocol is the default.
        origin, address: who publishes it and where.
        licence: terms of use, or that none are stated.
        citation: whom to cite.
        note: what to know, and what could not be verified.
        data_range: value that counts as full scale in metrics; None if no fixed one is published and papers scale by
            the maximum of the image.
        wavelengths: band centres in nm of the image with the spectrum, None if they are not published; the note says
            where they are no more than evenly spaced over a published range.
        scale, offset: physical value = scale * number + offset, by role and band, where they are known.
        sensor: in `jfusion.sensors`, whose first multispectral bands are those of `lr`; None if it has no table.
        centre: (row, column) of `guide` on which the centre of the first pixel of `lr` falls; None for nested grids.
    """

    name: str
    title: str
    layout: Layout
    protocols: Mapping[str, Mapping[str, tuple[Part, ...]]]
    origin: str
    address: str
    licence: str
    citation: str
    note: str = ""
    data_range: float | None = None
    wavelengths: tuple[float, ...] | None = None
    scale: Mapping[str, float | list[float]] | None = None
    offset: Mapping[str, float | list[float]] | None = None
    sensor: str | None = None
    centre: tuple[float, float] | None = None

    @property
    def manual(self) -> bool:
        """True if its files are downloaded by hand."""
        return any(self.layout.files(part) for part in self._parts(self.protocols))

    def digest(self, protocol: str) -> str:
        """Of all that decides on the records of a protocol."""
        return hashlib.sha256(repr((self.layout, self.protocols[protocol], self.wavelengths)).encode()).hexdigest()

    def find(self, folder: Path, protocol: str) -> dict[str, Path]:
        """Where the protocol's files lie; they may lie anywhere beneath the folder, as archives unpack differently.

        Raises:
            InputError: files are missing (the message says what to get, from whom, under which licence, and where to
                put it), or two have one name.
        """
        needed = self._names(protocol)
        wanted = set(needed)
        paths = [path for path in sorted(folder.rglob("*")) if path.name in wanted]
        found = {path.name: path for path in paths}
        missing = [name for name in needed if name not in found]
        if missing:
            raise InputError(f"{self.title} is not complete. {self._instructions(missing, str(folder))}")
        twice = [name for name, count in Counter(path.name for path in paths).items() if count > 1]
        if twice:
            raise InputError(
                f"{folder} holds {_some(twice)} more than once; leave the original of {self.title} there and move "
                f"other copies away."
            )
        return found

    def instructions(self, protocol: str) -> str:
        """What to get, from whom, under which licence, and where to put it."""
        return self._instructions(self._names(protocol), f"the folder {self.name} of the manual directory")

    def _instructions(self, names: Sequence[str], folder: str) -> str:
        them, their_names = ("it", "this name") if len(names) == 1 else ("them", "these names")
        return (
            f"Download {_some(names)} by hand from {self.origin}, {self.address}, and unpack or put {them}, under "
            f"{their_names}, anywhere beneath {folder}. Licence: {self.licence}"
        )

    def _names(self, protocol: str) -> list[str]:
        parts = self._parts({protocol: self.protocols[protocol]})
        return list(dict.fromkeys(name for part in parts for name in self.layout.files(part)))

    @staticmethod
    def _parts(protocols: Mapping[str, Mapping[str, tuple[Part, ...]]]) -> list[Part]:
        return [part for splits in protocols.values() for parts in splits.values() for part in parts]


def _some(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
