"""How often the truth lies in the interval: `jfusion.inference.uncertainty` measured on embedded scenes.

    python -m experiments.uncertainty
    python -m experiments.uncertainty --cases neon_sjer/miae --levels 0.9

An ensemble is fitted to each pair and calibrated one ratio lower, both without truth. Then the truth is looked at, for
the first time: the share of the pixels and bands that lie within the interval is to be its level. Beside it stands what
the spread alone would say if members differed from the truth as they do from each other, by a normal law. Fits are much
shorter than the papers', and networks smaller (`experiments.cases.small`); one that was stopped goes on.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np
import tyro

from experiments.cases import Study, case_of, ground, small, studied
from experiments.places import Judged
from jfusion import catalogue
from jfusion.inference.evaluate import against_reference
from jfusion.inference.fits import check_fitted
from jfusion.inference.uncertainty import Calibrated, calibrated
from jfusion.process import answered, use_all_cores
from jfusion.progress import bar
from jfusion.report.content import SceneSection
from jfusion.report.results import Row
from jfusion.tasks import spatiospectral_task

STEPS = {"miae": 800, "udaln": 2000, "dip": 300}
"""Of a fit, in all stages together, fewer where known sensors spare one: minutes on two cores."""

CASES = (
    "jasper_ridge/udaln",
    "aviris_california/miae",
    "aviris_california/udaln",
    "neon_sjer/miae",
    "neon_sjer/udaln",
    "landsat8_liverpool/udaln",
    "landsat8_liverpool/dip",
    "landsat8_momotombo/miae",
)
"""Scene and system."""

SHOWN = 0.9
"""Level whose intervals the page shows."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        cases: scene/system, see `CASES`.
        levels: of the intervals.
        seed: of the members.
        out: folder of the table and the page.
        smoke: one tiny case: does it run?
    """

    cases: tuple[str, ...] = CASES
    levels: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95)
    seed: int = 0
    out: Path = Path("runs/uncertainty")
    smoke: bool = False


@dataclasses.dataclass(frozen=True)
class Coverage:
    """What intervals of one level hold.

    Attributes:
        level: of the intervals.
        covered: share of the pixels and bands whose truth lies within.
        bands: the same of the band at the tenth and at the ninetieth percentile.
        half_width: mean over pixels and bands, in the unit of the images.
        spread: share that the members' standard deviation alone, as that of a normal law, would cover.
    """

    level: float
    covered: float
    bands: tuple[float, float]
    half_width: float
    spread: float


def coverage(found: Calibrated, truth: np.ndarray, level: float) -> Coverage:
    """The coverage of a scene.

    Args:
        found: on one pair.
        truth: ``(height, width, band)``.
        level: of the intervals.
    """
    error = np.abs(np.asarray(found.fit.product[0]) - truth)
    half = np.asarray(found.half_width(level)[0])
    normal = NormalDist().inv_cdf((1 + level) / 2) * np.asarray(found.members[:, 0]).std(0, ddof=1)
    within = (error <= half).mean((0, 1))
    low, high = (float(np.quantile(within, q)) for q in (0.1, 0.9))
    return Coverage(level, float(within.mean()), (low, high), float(half.mean()), float((error <= normal).mean()))


def measure(case: str, settings: Settings) -> tuple[Judged, Calibrated]:
    """Fits and calibrates, without truth.

    Raises:
        InputError: no such case.
    """
    scene, name = case_of(case, STEPS)
    where, system = ground(scene, settings.smoke), catalogue.get(name)
    method = check_fitted(system)
    sizes = small(method, settings.smoke)
    steps = 20 if settings.smoke else STEPS[name]
    with bar(case) as progress:
        found = calibrated(
            system, where.test.observation, where.test.model, settings.seed, effort=steps / method.steps,
            sizes=sizes, progress=progress, folder=settings.out / "fits" / scene / name,
        )  # fmt: skip
    return where, found


def section(case: str, where: Judged, found: Calibrated, measured: Coverage) -> SceneSection:
    """What the page says about a case."""
    name, product = case.partition("/")[2], np.asarray(found.fit.product[0])
    observation, row = where.test.observation, catalogue.get(name)
    metrics = against_reference(product, where.reference, ratio=where.test.model.ratio, data_range=where.data_range)
    return where.section(
        case,
        text=f"Of the pixels and bands, {measured.covered:.1%} lie within the interval of {measured.level:.0%}. A good "
        "map of half widths is bright where the map of errors is.",
        products={name: product},
        rows=[
            Row(
                scene=where.name,
                task=spatiospectral_task(observation["lr"].shape[-1], observation["guide"].shape[-1]).name,
                system=name,
                family=row.family,
                protocol=where.protocol,
                metrics={**metrics, f"coverage of {measured.level:.0%}": measured.covered},
                parameters=None,
                seconds=np.nan,
                peak_memory_mib=None,
                product="",
                reference=None,
            )
        ],
        half_widths={name: np.asarray(found.half_width(measured.level)[0]).mean(-1)},
        level=measured.level,
    )


def lines(case: str, measured: list[Coverage]) -> list[str]:
    """Rows of the table, in Markdown."""
    scene, _, name = case.partition("/")
    return [
        f"| {scene} | {name} | {c.level:.0%} | {c.covered:.1%} | {c.bands[0]:.0%} to {c.bands[1]:.0%} | "
        f"{c.half_width:.2g} | {c.spread:.0%} |"
        for c in measured
    ]


STUDY = Study(
    "uncertainty",
    "Coverage of the intervals",
    "Intervals of ensembles, calibrated one ratio lower and without truth, and what they hold. Bands of single scenes: "
    "from the tenth percentile to the ninetieth.",
    ("scene", "system", "level:", "covered:", "of single bands:", "half width:", "spread alone:"),
)


def run(settings: Settings) -> Path:
    """Measures all cases, writes table and page, and returns the path of the table; raises as `studied`."""

    def case(name: str) -> tuple[list[str], SceneSection]:
        where, found = measure(name, settings)
        rows = lines(name, [coverage(found, where.reference, level) for level in settings.levels])
        return rows, section(name, where, found, coverage(found, where.reference, SHOWN))

    return studied(STUDY, settings.out, settings.cases[: 1 if settings.smoke else None], case)


if __name__ == "__main__":
    use_all_cores()
    chosen = tyro.cli(Settings, prog="python -m experiments.uncertainty")
    sys.exit(answered(lambda: print(run(chosen))))
