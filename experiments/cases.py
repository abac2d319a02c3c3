"""What studies of fits on embedded scenes share: cases, their pairs, and a table with a page.

A case is a scene and a system, such as neon_sjer/miae.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from experiments.places import Judged, place
from experiments.runner import simulated
from jfusion.catalogue import Fitted
from jfusion.data.simulate import Protocol, Region
from jfusion.demo import JASPER
from jfusion.errors import InputError
from jfusion.files import check_output, make_folder, replaced
from jfusion.inference.evaluate import CONVENTIONS
from jfusion.report.content import SceneSection
from jfusion.report.environment import environment
from jfusion.report.page import write_page

HALF = Protocol(ratio=2, guide_bands=("B2", "B3", "B4"), lr_snr_db=35, guide_snr_db=40, seed=3)

PLACES: dict[str, tuple[Protocol, Region]] = {
    "jasper_ridge": (JASPER, (0, 100, 0, 100)),
    "aviris_california": (HALF, (0, 50, 0, 50)),
    "neon_sjer": (HALF, (0, 30, 0, 30)),
    "landsat8_liverpool": (HALF, (170, 266, 120, 312)),
    "landsat8_momotombo": (HALF, (0, 160, 302, 462)),
}
"""How pairs are made, and the regions that they are made of."""


def case_of(case: str, systems: Collection[str]) -> tuple[str, str]:
    """The scene, of `PLACES`, and the system that a case names.

    Raises:
        InputError: no such case.
    """
    scene, _, name = case.partition("/")
    if scene not in PLACES or name not in systems:
        raise InputError(f"a case is one of {', '.join(PLACES)}, then / and one of {', '.join(systems)}, not {case!r}.")
    return scene, name


def ground(scene: str, smoke: bool, noise: float | None = None) -> Judged:
    """The pair of a scene; nothing is learned elsewhere.

    Args:
        scene: of `PLACES`.
        smoke: a tiny part of it.
        noise: signal to noise ratio in dB of images that are simulated, None for the protocol's.

    Raises:
        InputError: noise for images that are not simulated.
    """
    protocol, region = PLACES[scene]
    if noise is not None and not simulated(scene):
        raise InputError(f"noise is added to images that are simulated, and those of {scene} are not; leave it out.")
    if noise is not None:
        protocol = dataclasses.replace(protocol, lr_snr_db=noise, guide_snr_db=noise)
    if smoke:
        top, _, left, _ = region
        region = (top, top + 8 * protocol.ratio, left, left + 8 * protocol.ratio)
    return place(scene, protocol, learn=region, judge=region)


def small(method: Fitted, smoke: bool) -> dict[str, Any]:
    """Sizes for a fit of minutes: compact ones or, where there are none (DIP, Deep Decoder), the tests'."""
    return (not smoke and method.compact) or method.tiny


class Study(NamedTuple):
    """What a study writes.

    Attributes:
        name: of its table.
        title: of table and page.
        lead: of the page.
        columns: of the table, those of numbers with a colon after the word.
    """

    name: str
    title: str
    lead: str
    columns: tuple[str, ...]


def studied(
    study: Study, out: Path, cases: Iterable[str], case: Callable[[str], tuple[list[str], SceneSection]]
) -> Path:
    """Studies one case after the other, writes table and page, and returns the path of the table.

    Args:
        study: what is written.
        out: folder.
        cases: scene/system.
        case: studies one: rows of the table in Markdown, and what the page says.

    Raises:
        InputError: no such case, or the folder cannot be written to.
    """
    make_folder(out)
    table, page = out / f"{study.name}.md", out / "index.html"
    for path in (table, page):
        check_output(path, overwrite=True)
    words = [column.removesuffix(":") for column in study.columns]
    rules = ["---:" if column.endswith(":") else "---" for column in study.columns]
    text = [f"# {study.title}", "", f"| {' | '.join(words)} |", f"| {' | '.join(rules)} |"]
    sections = []
    for name in cases:
        rows, section = case(name)
        text += rows
        sections.append(section)
        with replaced(table) as temporary:
            temporary.write_text("\n".join(text) + "\n", encoding="utf-8")
    write_page(page, study.title, study.lead, sections, CONVENTIONS, environment())
    print("\n".join(text), file=sys.stderr)
    return table
