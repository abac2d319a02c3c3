"""The page about one fused pair."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from jfusion.data import readers
from jfusion.data.scene import Scene
from jfusion.files import check_folder, check_output
from jfusion.inference.evaluate import CONVENTIONS, without_reference
from jfusion.inference.fuse import Fused, Sources, opened, sample
from jfusion.inference.pair import as_input
from jfusion.operators import Displaced, ObservationModel
from jfusion.report.compare import psf_picture, srf_matrix
from jfusion.report.content import Degradation, SceneSection
from jfusion.report.environment import environment
from jfusion.report.page import write_page
from jfusion.report.results import Row, write_results

SIDE = 768
"""Largest side, in high-resolution pixels, of the part that the page shows and judges."""

PSF_PIXELS = 6
"""Side of the picture of the PSF in low-resolution pixels."""


def part_of(model: ObservationModel, rows: slice, columns: slice) -> ObservationModel:
    """The model in a window of low-resolution pixels, which a displacement of `lr` is cut to."""
    spatial = model.operators["lr"]
    if not isinstance(spatial, Displaced):
        return model
    window = dataclasses.replace(spatial, displacement=spatial.displacement[rows, columns])
    return model.replace(operators=model.operators | {"lr": window})


def report_pair(
    folder: Path,
    fused: Fused,
    lr: Path,
    guide: Path,
    *,
    lr_key: str | None = None,
    guide_key: str | None = None,
    lr_sensor: str | None = None,
    guide_sensor: str | None = None,
    nodata: float | None = None,
) -> Path:
    """Writes ``index.html`` and ``results.json`` about a fused pair and returns the page's path.

    Args:
        folder: made where it does not exist.
        fused: what `jfusion.inference.fuse.fuse` did.
        lr, guide: the files that were fused.
        lr_key, guide_key, lr_sensor, guide_sensor, nodata: as they were fused with.

    Raises:
        InputError: the folder cannot be written to.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    check_output(page, overwrite=True)
    ratio = fused.geometry.ratio
    with opened(lr, lr_key, nodata) as lr_source, opened(guide, guide_key, nodata) as guide_source:
        sources = Sources(lr_source, guide_source, lr_sensor, guide_sensor)
        outline = sources.outlines[0]
        rows, columns = sample(sources, SIDE)
        pair = dataclasses.replace(sources.pair(rows, columns), model=part_of(fused.model, rows, columns))
    fine = slice(rows.start * ratio, rows.stop * ratio), slice(columns.start * ratio, columns.stop * ratio)
    with readers.geotiff.open_windowed(fused.output) as product_file:
        product: Scene = product_file.read(*fine)
    valid = product.valid & pair.valid
    values = without_reference(as_input(product), pair.observation, pair.model, None if valid.all() else valid)
    row = Row(
        scene=lr.stem,
        task=fused.task,
        system=fused.system,
        family=fused.family,
        protocol={"ratio": ratio, "centre": fused.geometry.centre},
        metrics=values,
        parameters=fused.parameters,
        seconds=fused.seconds,
        peak_memory_mib=fused.peak_memory_mib,
        product=str(fused.output.resolve()),
        reference=None,
        note=fused.note,
    )
    write_results(folder / "results.json", [row])
    whole = (outline.height, outline.width) == (pair.lr.height, pair.lr.width)
    section = SceneSection(
        title=lr.stem,
        text="" if whole else "The pictures and figures are of a part of the scene.",
        facts={"grid": str(fused.geometry), "windows": fused.windows, "clipped samples": fused.clipped}
        | ({} if fused.registration is None else {"registration": str(fused.registration)}),
        inputs={key: np.asarray(image[0]) for key, image in pair.observation.items()},
        rgb=pair.lr.rgb_bands(),
        guide_rgb=pair.guide.rgb_bands(),
        products={fused.system: product.physical()},
        reference=None,
        wavelengths=pair.lr.wavelengths,
        rows=[row],
        degradation=Degradation(
            system=fused.note or "the sensors' tables",
            psf_estimated=psf_picture(fused.model, PSF_PIXELS * ratio + 1),
            srf_estimated=srf_matrix(fused.model),
            wavelengths=pair.lr.wavelengths,
        ),
        half_widths={} if fused.half_width is None else {fused.system: fused.half_width[fine]},
        level=fused.uncertainty or 0.0,
    )
    write_page(page, f"{lr.stem} and {guide.stem}", "", [section], CONVENTIONS, environment())
    return page
