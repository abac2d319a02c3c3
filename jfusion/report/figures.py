"""The pictures and plots of one scene, ready for its page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jfusion.report import pictures
from jfusion.report.content import Degradation, SceneSection
from jfusion.report.pictures import Stretch, Window
from jfusion.report.plots import lines
from jfusion.report.results import display, leading_metric, merit, metric_names, with_unit

CARD = 210
"""Width in CSS pixels that pictures come near to, enlarged by an integer."""
KERNEL = 130
"""The same for pictures of a PSF."""
LARGEST = 640
"""Longer side in pixels above which a whole picture is reduced; its detail stays as it is."""
CURVES = 5
"""Systems whose spectra are drawn: the trivial baseline and the best of the others."""

RMSE_COLOURS, SAM_COLOURS, PSF_COLOURS, INTERVAL_COLOURS = "magma", "viridis", "cividis", "inferno"


@dataclasses.dataclass(frozen=True)
class Picture:
    """An embedded picture: its address, what it shows, its size in CSS pixels and whether it is enlarged."""

    src: str
    alt: str
    width: int
    height: int
    enlarged: bool


def _card_width(width: int, wanted: int = CARD) -> int:
    return min(width * max(1, round(wanted / width)), 340)


def _picture(image: np.ndarray, alt: str, width: int) -> Picture:
    """A uint8 picture ``width`` CSS pixels wide."""
    height = max(1, round(width * image.shape[0] / image.shape[1]))
    enlarged = width >= image.shape[1]
    return Picture(pictures.data_uri(pictures.png(pictures.reduce(image, LARGEST))), alt, width, height, enlarged)


def _heat(values: np.ndarray, limit: float, colours: str, alt: str, width: int) -> Picture:
    height = max(1, round(width * values.shape[0] / values.shape[1]))
    values = pictures.reduce(values, LARGEST)
    return Picture(
        pictures.data_uri(pictures.heat(values, limit, colours)), alt, width, height, width >= values.shape[1]
    )


def _number(value: float) -> str:
    return f"{value:.6g}"


class Painter:
    """The one stretch, window and card width of a scene."""

    def __init__(self, section: SceneSection) -> None:
        self.section = section
        self.height, self.width, self.bands = section.shape
        self.card = _card_width(self.width)
        self.stretch = Stretch.of(self.colours(section.truth))
        self.window = section.window or self._busiest()
        self.enlargement = max(1, round(self.card / (self.window[3] - self.window[2])))

    def colours(self, image: np.ndarray) -> np.ndarray:
        return np.asarray(image)[..., list(self.section.rgb)]

    def _busiest(self) -> Window:
        fine = self.section.reference
        if fine is None:
            fine = max(self.section.inputs.values(), key=lambda x: np.shape(x)[0])
        fine = np.where(
            self.section.valid[..., None], pictures.regrid(np.asarray(fine), self.height, self.width), np.nan
        )
        side = min(max(8, round(0.3 * min(self.height, self.width))), self.height, self.width)
        side = min(self.card // max(1, round(self.card / side)), self.height, self.width)
        return pictures.busiest_window(fine, side)

    def whole(self, image: np.ndarray, name: str) -> Picture:
        return _picture(self.stretch(self.colours(image)), f"{name}, the whole scene in colour", self.card)

    def detail(self, image: np.ndarray, name: str) -> Picture:
        crop = pictures.enlarge(self.stretch(self.colours(image)), self.window, self.enlargement)
        return _picture(crop, f"{name}, a detail enlarged {self.enlargement} times", self.card)

    def input(self, image: np.ndarray, name: str, of_product: bool) -> Picture:
        """A picture of an image, drawn as the products are if it has their bands and units."""
        image = np.asarray(image)
        bands = image.shape[-1]
        if of_product:
            shown = self.stretch(self.colours(image))
        else:
            chosen = [0] if bands < 3 else list(self.section.guide_rgb or (bands - 1, bands - 2, bands - 3))
            shown = Stretch.of(image[..., chosen])(image[..., chosen])
        return _picture(shown, f"{name}, what its sensor gave", self.card)

    @property
    def frame(self) -> str:
        """Where the window lies, as CSS."""
        top, bottom, left, right = self.window
        return (
            f"top:{100 * top / self.height:.2f}%;height:{100 * (bottom - top) / self.height:.2f}%;"
            f"left:{100 * left / self.width:.2f}%;width:{100 * (right - left) / self.width:.2f}%"
        )


def cards(section: SceneSection, painter: Painter) -> dict[str, Any]:
    """The reference (or the coarse input) and every product: whole, detail and, with truth, the two error maps."""
    rows = {row.system: row for row in section.rows}
    leading = leading_metric(section.rows)
    best = leading and max(section.contestants, key=lambda row: merit(leading, row)).system
    reference = section.reference
    beside = "reference" if reference is not None else "coarse input"
    fine = pictures.regrid(section.truth, painter.height, painter.width)
    products = {name: np.asarray(image) for name, image in section.products.items()}
    trivial = [row.system for row in section.rows if row.is_baseline]
    shown: list[tuple[str, str, str, Mapping[str, np.ndarray]]] = []
    if reference is not None:
        for title, unit, colours, function in (
            ("RMSE", section.unit, RMSE_COLOURS, pictures.rmse_map),
            ("SAM", "°", SAM_COLOURS, pictures.sam_map),
        ):
            shown.append((title, unit, colours, {name: function(x, reference) for name, x in products.items()}))
    if section.half_widths:
        title = f"± of the {100 * section.level:g} % interval"
        shown.append((title, section.unit, INTERVAL_COLOURS, section.half_widths))
    maps: list[dict[str, Any]] = []
    for title, unit, colours, values in shown:
        limit = pictures.common_limit([m for name, m in values.items() if name not in trivial] or values.values())
        maps.append(
            {
                "title": title,
                "unit": unit,
                "ticks": [_number(limit * k / 4) for k in range(4, -1, -1)],
                "gradient": pictures.gradient(colours),
                "pictures": {
                    name: _heat(m, limit, colours, f"{name}, {title} of each pixel", painter.card)
                    for name, m in values.items()
                },
            }
        )
    return {
        "beside": beside,
        "whole": painter.whole(fine, beside),
        "detail": painter.detail(fine, beside),
        "maps": maps,
        "products": [
            {
                "name": name,
                "whole": painter.whole(image, name),
                "detail": painter.detail(image, name),
                "maps": [m["pictures"][name] for m in maps if name in m["pictures"]],
                "figures": [
                    f"{display(n).label} {with_unit(n, rows[name].metrics.get(n, math.nan))}"
                    for n in metric_names(section.rows)[:2]
                    if name in rows
                ],
                "baseline": name in rows and rows[name].is_baseline,
                "best": len(section.contestants) > 1 and best == name,
            }
            for name, image in products.items()
        ],
    }


def spectra(section: SceneSection, painter: Painter, key: str) -> dict[str, Any] | None:
    if section.shape[2] < 3:
        return None
    leading = leading_metric(section.rows)
    ranked = sorted(section.rows, key=lambda row: -merit(leading, row)) if leading else list(section.rows)
    ranked.sort(key=lambda row: not row.is_baseline)
    shown = [row.system for row in ranked if row.system in section.products][:CURVES] or list(section.products)[:CURVES]
    shown = [name for name in section.products if name in shown]
    fine = pictures.regrid(section.truth, painter.height, painter.width)
    truth = "reference" if section.reference is not None else "coarse input"
    pixels = section.pixels
    if pixels is None:
        height, width = section.truth.shape[:2]
        rows, columns = (
            ((np.arange(n) + 0.5) * whole / n).astype(int)
            for n, whole in ((height, painter.height), (width, painter.width))
        )
        shown_by_all = section.valid[rows[:, None], columns, None]
        found = pictures.distinct_pixels(np.where(shown_by_all, section.truth, np.nan))
        pixels = [(int(rows[r]), int(columns[c])) for r, c in found]
    xlabel = "band" if section.wavelengths is None else "wavelength (nm)"
    dashed = [row.system for row in section.rows if row.is_baseline and row.system in shown] if len(shown) > 1 else []
    plots = [
        lines(
            f"{key}-spectrum-{i}",
            f"{i} · row {r}, column {c}",
            section.wavelengths,
            {truth: fine[r, c]} | {name: np.asarray(section.products[name])[r, c] for name in shown},
            truth=truth,
            xlabel=xlabel,
            ylabel=section.unit or "value",
            dashed=dashed,
        )
        for i, (r, c) in enumerate(pixels, 1)
    ]
    marks = [
        f"--x:{100 * (c + 0.5) / painter.width:.2f}%;--y:{100 * (r + 0.5) / painter.height:.2f}%" for r, c in pixels
    ]
    return {"plots": plots, "marks": marks, "chosen": len(shown) < len(section.products), "dashed": bool(dashed)}


def stages(section: SceneSection, painter: Painter, key: str) -> dict[str, Any] | None:
    if not section.stages:
        return None
    names = dict.fromkeys(name for stage in section.stages for name in stage.residuals)
    curves = {n: np.array([stage.residuals.get(n, math.nan) for stage in section.stages]) for n in names}
    title, ylabel = "residual after each stage", "‖A x − y‖ / ‖y‖"
    plot = lines(f"{key}-stages", title, None, curves, xlabel="stage", ylabel=ylabel, log=True) if curves else ""
    shown = [{"name": stage.name, "picture": painter.detail(stage.estimate, stage.name)} for stage in section.stages]
    columns = next((n for n in (4, 3, 5) if len(shown) % n == 0), 4)
    return {"system": section.stages_system, "plot": plot, "shown": shown, "columns": columns}


def _centred(psf: np.ndarray, height: int, width: int) -> np.ndarray:
    """The kernel padded with zeros on all sides to a larger size."""
    rows, columns = height - psf.shape[0], width - psf.shape[1]
    return np.pad(psf, ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)))


def degradation(degradation: Degradation | None, key: str) -> dict[str, Any] | None:
    if degradation is None:
        return None
    notes = {
        "PSF pictures share one scale.": len(degradation.psf) > 1,
        "In the SRF plot the true responses are dashed.": "true" in degradation.srf,
    }
    view: dict[str, Any] = {"title": degradation.title, "psf": [], "plots": []}
    view["notes"] = [note for note, true in notes.items() if true]
    if degradation.psf:
        psfs = {name: np.asarray(psf, np.float64) for name, psf in degradation.psf.items()}
        height, width = (max(psf.shape[axis] for psf in psfs.values()) for axis in (0, 1))
        psfs = {name: _centred(psf, height, width) for name, psf in psfs.items()}
        limit = max(float(np.nanmax(psf)) for psf in psfs.values())
        limit = limit if limit > 0 else 1.0
        view["psf"] = [
            (name, _heat(psf, limit, PSF_COLOURS, f"PSF, {name}, {height} × {width}", _card_width(width, KERNEL)))
            for name, psf in psfs.items()
        ]
        offsets = np.arange(width) - (width - 1) / 2
        view["plots"].append(
            lines(
                f"{key}-psf",
                "PSF, row through its middle",
                offsets,
                {name: psf[height // 2] for name, psf in psfs.items()},
                truth="true",
                xlabel="pixels",
                ylabel="weight",
            )
        )
    if degradation.srf:
        found = {name: np.asarray(srf) for name, srf in degradation.srf.items() if name != "true"}
        curves = {f"band {k}": response for srf in found.values() for k, response in enumerate(srf, 1)}
        true = {f"true {k}": response for k, response in enumerate(np.asarray(degradation.srf.get("true", ())), 1)}
        bands = len(true) or len(curves)
        view["plots"].append(
            lines(
                f"{key}-srf",
                ", ".join(["SRF of each band of the guide", *found]),
                degradation.wavelengths,
                curves | true,
                xlabel="band" if degradation.wavelengths is None else "wavelength (nm)",
                ylabel="weight",
                colours={name: k % bands for k, name in enumerate(curves | true)},
                dashed=list(true),
                unnamed=list(true),
            )
        )
    return view
