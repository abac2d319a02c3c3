"""What a page tells: the scenes, what was made of them and what was found out about their sensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jfusion.errors import InputError
from jfusion.report.pictures import Window
from jfusion.report.results import Row


@dataclasses.dataclass(frozen=True)
class StageView:
    """One stage of an unrolled network.

    Attributes:
        name: such as "estimate 3".
        estimate: of the scene ``(height, width, band)``.
        residuals: of each observation, ``||A x - y|| / ||y||`` by key.
    """

    name: str
    estimate: np.ndarray
    residuals: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Degradation:
    """Sensor responses by where they come from, such as "estimated"; those called "true" are what others are held to.

    Attributes:
        title: heading.
        psf: kernels ``(height, width)`` with their origin in the middle.
        srf: ``(guide band, band)``.
        wavelengths: of the bands in nm ``(band,)``.
    """

    title: str
    psf: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    srf: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    wavelengths: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class SceneSection:
    """One scene and all that was made of it.

    Attributes:
        title, text: heading and introduction, plain text.
        facts: sensor, size, ratio, licence and the like.
        inputs: what the sensors gave, ``(h, w, bands)`` by name; the one with the bands of the products is ``lr``.
            Inputs and products are nan where there is no data.
        rgb: indices of the bands shown as red, green and blue.
        products: ``(height, width, band)`` by system, in order of appearance.
        reference: the truth ``(height, width, band)``, None where there is none.
        wavelengths: of the bands in nm ``(band,)``.
        rows: results of the systems.
        window: shown enlarged; the busiest one where None.
        pixels: (row, column) whose spectra are drawn; distinct ones where None.
        stages: of the unrolled network ``stages_system``.
        degradation: sensor responses.
        downloads: (label, path relative to the page).
        guide_rgb: indices of the guide's bands shown as red, green and blue; its last three, reversed, where None.
        unit: of the values, such as "reflectance".
        half_widths: of the intervals about some products, ``(height, width)`` by system; nan where there is no data.
        level: of these intervals, such as 0.9.
        plots: of `jfusion.report.plots.lines`, shown below the products.
    """

    title: str
    text: str
    facts: Mapping[str, Any]
    inputs: Mapping[str, np.ndarray]
    rgb: tuple[int, int, int]
    products: Mapping[str, np.ndarray]
    reference: np.ndarray | None
    wavelengths: np.ndarray | None
    rows: Sequence[Row]
    window: Window | None = None
    pixels: Sequence[tuple[int, int]] | None = None
    stages: Sequence[StageView] = ()
    stages_system: str = ""
    degradation: Degradation | None = None
    downloads: Sequence[tuple[str, str]] = ()
    guide_rgb: tuple[int, int, int] | None = None
    unit: str = ""
    half_widths: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    level: float = 0.0
    plots: Sequence[str] = ()

    def __post_init__(self) -> None:
        shapes = {name: np.shape(image) for name, image in self.products.items()}
        if self.reference is not None:
            shapes["the reference"] = np.shape(self.reference)
        first = next(iter(shapes.values()), ())
        if not self.products or len(first) != 3 or set(shapes.values()) != {first}:
            raise InputError(
                f"{self.title}: products and reference must be images (height, width, band) of one shape, "
                f"and one product at least, but are {shapes}."
            )
        height, width, bands = first
        if not any(np.shape(image)[2:] == (bands,) for image in self.inputs.values()):
            raise InputError(
                f"{self.title}: one input must have the {bands} bands of the products, but the inputs are "
                f"{ {name: np.shape(image) for name, image in self.inputs.items()} }."
            )
        maps = {name: np.shape(values) for name, values in self.half_widths.items()}
        if set(maps) - set(self.products) or set(maps.values()) - {(height, width)}:
            raise InputError(
                f"{self.title}: half widths must be maps of {height} x {width} of products that there are, but are "
                f"{maps}."
            )
        if len(self.rgb) != 3 or not all(0 <= k < bands for k in self.rgb):
            raise InputError(f"{self.title}: rgb must be three band indices below {bands}, but is {self.rgb}.")
        if self.wavelengths is not None and np.shape(self.wavelengths) != (bands,):
            raise InputError(
                f"{self.title}: expected {bands} wavelengths, one a band, but got {np.shape(self.wavelengths)}."
            )
        if self.window is not None:
            top, bottom, left, right = self.window
            if not (0 <= top < bottom <= height and 0 <= left < right <= width):
                raise InputError(
                    f"{self.title}: the window (top, bottom, left, right) must lie in {height} x {width} pixels, "
                    f"but is {self.window}."
                )
        if any(not (0 <= r < height and 0 <= c < width) for r, c in self.pixels or ()):
            raise InputError(f"{self.title}: the pixels must lie in {height} x {width}, but are {self.pixels}.")

    @property
    def lr(self) -> np.ndarray:
        """The coarsest input with the bands of the products."""
        return min((np.asarray(x) for x in self.inputs.values() if np.shape(x)[2:] == self.shape[2:]), key=np.size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and bands of the products."""
        height, width, bands = np.shape(next(iter(self.products.values())))
        return height, width, bands

    @property
    def valid(self) -> np.ndarray:
        """``(height, width)``: True where all products have data."""
        return np.logical_and.reduce([np.isfinite(image).all(-1) for image in self.products.values()])

    @property
    def contestants(self) -> Sequence[Row]:
        """Rows of which one may be ahead: without truth the trivial baseline cannot, whatever its metrics flatter."""
        if self.reference is not None:
            return self.rows
        return [row for row in self.rows if not row.is_baseline] or self.rows

    @property
    def truth(self) -> np.ndarray:
        """The reference, or ``lr`` where there is none: what the stretch and the choice of pixels start from."""
        return self.lr if self.reference is None else np.asarray(self.reference)
