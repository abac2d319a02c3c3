"""Where an experiment takes place: a pair to be judged on, its truth, and a disjoint region to learn from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jfusion.data import scenes
from jfusion.data.scene import Scene, rgb_at
from jfusion.data.simulate import Protocol, Region, Simulation, cut, reduce, simulate
from jfusion.demo import facts as about
from jfusion.errors import InputError
from jfusion.inference.pair import make_pair
from jfusion.report.compare import srf_matrix
from jfusion.report.content import SceneSection
from jfusion.report.results import Row

REGIONS: dict[str, tuple[Region, Region]] = {
    "jasper_ridge": ((0, 48, 0, 100), (52, 100, 0, 100)),
    "aviris_california": ((0, 50, 0, 24), (0, 50, 26, 50)),
    "neon_sjer": ((0, 30, 0, 14), (0, 30, 16, 30)),
    "landsat8_liverpool": ((0, 160, 0, 432), (170, 266, 0, 432)),
    "landsat8_momotombo": ((0, 334, 0, 290), (0, 334, 302, 466)),
    "sentinel2_fields": ((0, 300, 0, 190), (0, 300, 200, 300)),
}
"""Where networks learn and where they are judged, by scene; a few rows or columns lie between. The upper rows of Jasper
Ridge are like the lower ones; its left half is mostly water."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """A pair that systems are judged on.

    Attributes:
        name: for tables and folders.
        test: the pair with its truth.
        outline: metadata of the truth.
        protocol: how the pair was made, JSON values.
        data_range: full scale of the metrics, in the truth's units.
        unit: of the truth, in words.
        guide_rgb: bands of the guide to show as red, green and blue; by default what its response tells.
    """

    name: str
    test: Simulation
    outline: Scene
    protocol: dict[str, Any]
    data_range: float
    unit: str = "reflectance"
    guide_rgb: tuple[int, int, int] | None = None

    @property
    def reference(self) -> np.ndarray:
        """The truth, ``(height, width, band)``."""
        return np.asarray(self.test.target[0])

    def section(
        self,
        title: str,
        *,
        rows: Sequence[Row],
        products: Mapping[str, np.ndarray],
        text: str = "",
        facts: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> SceneSection:
        """What a page says about the pair.

        Args:
            title, rows, products, text: of the section.
            facts: beside ratio and licence.
            more: other attributes of the section.
        """
        wavelengths, srf = self.outline.wavelengths, srf_matrix(self.test.model)
        guide_rgb = self.guide_rgb
        if guide_rgb is None and wavelengths is not None and srf is not None:
            guide_rgb = rgb_at(srf @ wavelengths / srf.sum(1))
        return SceneSection(
            title=title,
            text=text,
            facts=about(self.outline, ratio=self.test.model.ratio, **(facts or {})),
            inputs={key: np.asarray(image[0]) for key, image in self.test.observation.items()},
            rgb=self.outline.rgb_bands(),
            guide_rgb=guide_rgb,
            products=products,
            reference=self.reference,
            wavelengths=wavelengths,
            rows=rows,
            unit=self.unit,
            **more,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place(Judged):
    """A pair that is judged, and one of a disjoint region to learn from."""

    learn: Simulation


def place(name: str, protocol: Protocol, learn: Region | None = None, judge: Region | None = None) -> Place:
    """An embedded scene as a place.

    A hyperspectral image is the truth of a pair that ``protocol`` simulates, with other noise where networks learn. A
    multispectral image with its guide is one ratio lower than it came (`reduce`), so that it becomes the truth.

    Args:
        name: of the scene.
        protocol: of the simulation; its crop is replaced by the regions.
        learn, judge: regions, those of `REGIONS` by default.

    Raises:
        InputError: no such scene, or regions that do not fit it.
    """
    images = scenes.load(name)
    usual = REGIONS.get(name)
    if usual is None and (learn is None or judge is None):
        raise InputError(f"{name} has no usual regions; give both to learn from and to judge on, or take {_known()}.")
    learn, judge = learn or usual[0], judge or usual[1]  # type: ignore[index]
    if "hsi" in images:
        hsi = images["hsi"]
        if hsi.wavelengths is None:
            raise InputError(f"{name} has no wavelengths, so that no guide can be simulated; take {_known()}.")
        test, seen = (
            simulate(hsi.physical(), hsi.wavelengths, dataclasses.replace(protocol, crop=crop, seed=seed))
            for crop, seed in ((judge, protocol.seed), (learn, protocol.seed + 1))
        )
        outline, made, guide_rgb = hsi, dataclasses.replace(protocol, crop=judge).to_dict(), None
    else:
        pair = make_pair(images["msi"], images.get("pan") or images["guide"])
        whole = reduce(pair.observation, pair.model)
        test, seen, outline, guide_rgb = cut(whole, judge), cut(whole, learn), pair.lr, pair.guide.rgb_bands()
        made = {"wald": "both images one ratio lower", "ratio": pair.geometry.ratio, "centre": pair.geometry.centre,
                "crop": judge, "data_range": 1.0}  # fmt: skip
    outline = dataclasses.replace(outline, scale=1.0, offset=0.0, nodata=None, mask=None)
    outline = outline.crop(slice(*judge[:2]), slice(*judge[2:]))
    return Place(
        name=name, test=test, learn=seen, outline=outline, protocol={**made, "learn": learn},
        data_range=made["data_range"], guide_rgb=guide_rgb,
    )  # fmt: skip


def _known() -> str:
    return ", ".join(REGIONS)
