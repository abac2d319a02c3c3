"""The page about one fused pair."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jfusion import catalogue
from jfusion.data import readers
from jfusion.data.scene import Scene
from jfusion.files import check_output, make_folder
from jfusion.inference.evaluate import CONVENTIONS, without_reference
from jfusion.inference.fuse import Fused, Sources, opened, sample
from jfusion.inference.pair import as_input
from jfusion.inference.run import ready
from jfusion.operators import Displaced, ObservationModel
from jfusion.operators.registration import displaced, in_place
from jfusion.report.compare import responses
from jfusion.report.content import Degradation, SceneSection
from jfusion.report.environment import environment
from jfusion.report.page import write_page
from jfusion.report.results import Row, write_results
from jfusion.tasks import TASKS

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


def sensor_responses(
    known: ObservationModel, used: ObservationModel, wavelengths: np.ndarray | None
) -> Degradation | None:
    """The responses of the model that a pair was fused with, called after where they come from; None without any.

    Args:
        known: what the sensors' tables say of the pair; a registered one without a PSF has an assumed one.
        used: the model that was used.
        wavelengths: of the bands in nm.
    """
    models = {"from the tables": known, "assumed": displaced(known, jnp.zeros(2)), "estimated": used}
    found = {
        key: {next(name for name, one in parts.items() if np.array_equal(one, parts["estimated"])): parts["estimated"]}
        for key, parts in responses(models, PSF_PIXELS * used.ratio + 1).items()
        if "estimated" in parts
    }
    return Degradation("Sensor responses", wavelengths=wavelengths, **found) if found else None


def with_gaps(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The image, nan where it is not valid."""
    return np.where(valid[..., None], values, np.nan)


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

    The trivial baseline of the task is shown and judged beside the product.

    Args:
        folder: made where it does not exist.
        fused: what `jfusion.inference.fuse.fuse` did.
        lr, guide: the files that were fused.
        lr_key, guide_key, lr_sensor, guide_sensor, nodata: as they were fused with.

    Raises:
        InputError: the folder cannot be written to.
    """
    make_folder(folder)
    page = folder / "index.html"
    check_output(page, overwrite=True)
    ratio = fused.geometry.ratio
    with opened(lr, lr_key, nodata) as lr_source, opened(guide, guide_key, nodata) as guide_source:
        sources = Sources(lr_source, guide_source, lr_sensor, guide_sensor)
        outline = sources.outlines[0]
        rows, columns = sample(sources, SIDE)
        pair = dataclasses.replace(sources.pair(rows, columns), model=part_of(fused.model, rows, columns))
        known, _ = sources.known
    fine = slice(rows.start * ratio, rows.stop * ratio), slice(columns.start * ratio, columns.stop * ratio)
    with readers.geotiff.open_windowed(fused.output) as product_file:
        product: Scene = product_file.read(*fine)
    valid = product.valid & pair.valid
    observation, mask = pair.observation, None if valid.all() else valid
    row = Row(
        scene=lr.stem,
        task=fused.task,
        system=fused.system,
        family=fused.family,
        protocol={"ratio": ratio, "centre": fused.geometry.centre},
        metrics=without_reference(as_input(product), observation, pair.model, mask),
        parameters=fused.parameters,
        seconds=fused.seconds,
        peak_memory_mib=fused.peak_memory_mib,
        product=str(fused.output.resolve()),
        reference=None,
        note=fused.note,
    )
    rows_shown, products = [row], {fused.system: with_gaps(product.physical(), valid)}
    baseline = catalogue.get(TASKS[fused.task].baseline)
    if baseline.name != fused.system:
        trivial = ready(baseline)(observation | {"lr": in_place(observation, pair.model)}, pair.model)
        products[baseline.name] = with_gaps(np.asarray(trivial[0]), valid)
        rows_shown.append(
            dataclasses.replace(
                row, system=baseline.name, family=baseline.family, parameters=None, seconds=math.nan,
                peak_memory_mib=None, product="", note="",
                metrics=without_reference(trivial, observation, pair.model, mask),
            )
        )  # fmt: skip
    write_results(folder / "results.json", rows_shown)
    whole = (outline.height, outline.width) == (pair.lr.height, pair.lr.width)
    section = SceneSection(
        title=lr.stem,
        text="" if whole else "The pictures and figures are of a part of the scene.",
        facts={"grid": str(fused.geometry), "windows": fused.windows}
        | ({} if fused.registration is None else {"registration": str(fused.registration)}),
        inputs={
            key: with_gaps(scene.physical(), scene.valid) for key, scene in (("lr", pair.lr), ("guide", pair.guide))
        },
        rgb=pair.lr.rgb_bands(),
        guide_rgb=pair.guide.rgb_bands(),
        products=products,
        reference=None,
        wavelengths=pair.lr.wavelengths,
        rows=rows_shown,
        degradation=sensor_responses(known, fused.model, pair.lr.wavelengths),
        half_widths={} if fused.half_width is None else {fused.system: fused.half_width[fine]},
        level=fused.uncertainty or 0.0,
    )
    write_page(page, f"{lr.stem} and {guide.stem}", "", [section], CONVENTIONS, environment())
    return page
