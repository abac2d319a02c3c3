"""What jfusion costs, beside its rivals in the same run: `python -m experiments.benchmarks`.

Networks and fits against the same ones in plain PyTorch, the loader against the step, memory, compilation, the layouts
of unrolled networks, and a large scene against GDAL. Whatever is compared runs in turns, each in its own process, so
that ratios mean something where times do not; the machine should have nothing else to do. Each part has a page of its
own, written when it is done, so that a run that is stopped has said what it knows and a part can be measured anew
alone.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import tyro
from rich.console import Console

from experiments.benchmarks import parts
from experiments.benchmarks.cases import CASES, FITS, LARGEST_FIT, UNROLLED
from experiments.benchmarks.large_scene import Scene
from experiments.benchmarks.processes import alone
from experiments.benchmarks.tables import Section, facts, page
from jfusion.errors import InputError
from jfusion.files import check_output, replaced
from jfusion.process import answered

RESULTS = Path(__file__).with_name("results")

Part = Literal["nets", "fits", "loader", "memory", "compile", "layouts", "scene"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    parts: tuple[Part, ...] = get_args(Part)
    rounds: int = 9
    """Turns of each rival; a third of them for the commands on the large scene."""
    out: Path | None = None
    """Folder of the pages, one a part: `results` beside this file by default, with --smoke none."""
    smoke: bool = False
    """One tiny network, two rounds, a small scene and no torch.compile, within a minute: does it run?"""


def work(settings: Settings) -> dict[Part, Callable[[], Section]]:
    """The parts, ready to run."""
    cases, unrolled, rounds, scene = CASES, UNROLLED, settings.rounds, Scene()
    fits, largest = FITS, LARGEST_FIT
    if settings.smoke:
        cases, unrolled = (tuple(c.tiny() for c in all_cases[:1]) for all_cases in (CASES, UNROLLED))
        fits, largest = (FITS[0].tiny(),), FITS[0].tiny()
        rounds, scene = min(rounds, 2), Scene(size=512, systems=("brovey",))
    made: dict[Part, Callable[[], Section]] = {
        "nets": lambda: parts.networks(cases, rounds, compiled=not settings.smoke),
        "fits": lambda: parts.fits(fits, largest, rounds, compiled=not settings.smoke),
        "loader": lambda: parts.loading(cases, rounds),
        "memory": lambda: parts.memory(cases),
        "compile": lambda: parts.compiling(cases),
        "layouts": lambda: parts.layouts(unrolled, rounds),
        "scene": lambda: parts.scene(scene, max(1, rounds // 3)),
    }
    return {name: made[name] for name in settings.parts}


def run(settings: Settings) -> None:
    """Measures, prints and writes.

    Raises:
        InputError: no round, or a page cannot be written.
        RunError: what is measured failed.
    """
    if settings.rounds < 1:
        raise InputError(f"there must be one round at least, but --rounds is {settings.rounds}.")
    out = settings.out or (None if settings.smoke else RESULTS)
    if out is not None:
        for part in settings.parts:
            check_output(out / f"{part}.md", overwrite=True)
    asked = shlex.join(["python", "-m", "experiments.benchmarks", *sys.argv[1:]])
    revision, device = alone("tables.revision"), alone("tables.device")
    for part, measure in work(settings).items():
        where = facts(asked, revision, device)
        section = measure()
        Console().print(section.table())
        if out is not None:
            with replaced(out / f"{part}.md") as temporary:
                temporary.write_text(page(where, section))
            print(out / f"{part}.md")


if __name__ == "__main__":
    sys.exit(answered(lambda: run(tyro.cli(Settings, prog="python -m experiments.benchmarks"))))
