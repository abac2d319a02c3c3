"""Networks that learned on one place and are shown another: as they are, and adapted to it without truth.

    python -m experiments.adaptation --out runs/adaptation

All learn on Landsat-8's Momotombo (a volcano and a lake in Nicaragua), one ratio lower, with truth. They are judged on
its Liverpool (fields, streets and the sea), also one ratio lower, whose two images alone they adapt to
(`jfusion.training.adapt`), at a tenth of the rate that they learned at. What is finished stays in the folder, so that
the experiment can be stopped and goes on later.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from experiments.gather import markdown_table
from experiments.places import place
from jfusion import catalogue
from jfusion.catalogue import System, Trained
from jfusion.data.simulate import Simulation
from jfusion.demo import JASPER
from jfusion.files import replaced
from jfusion.inference.evaluate import against_reference
from jfusion.inference.run import completed, run
from jfusion.process import answered, use_all_cores
from jfusion.progress import bar
from jfusion.training.adapt import adapt
from jfusion.training.loop import train

BANDS = slice(1, 7)
"""Of Liverpool, which has the coastal band, too."""

ALL = (0, 266, 0, 432)
"""Liverpool, less what is no multiple of the ratio."""

CLASSICAL = ("cubic", "mtf_glp_cbd", "fuse")
KINDS = ("as it came", "adapted")

LEARNING: dict[str, dict[str, Any]] = {
    "pannet": {"steps": 20_000, "patch": 16, "batch": 16, "pace": 4.0},
    "gppnn": {"steps": 28_000, "patch": 32, "batch": 4, "pace": 2.0},
    "sun": {"steps": 6000, "patch": 32, "batch": 4, "pace": 1.0},
}
"""How the networks learn, in compact sizes."""

SLOWER = 10
"""The rate of learning over that of adapting."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of the experiment."""

    out: Path = Path("runs/adaptation")
    """Folder of the trainings and of the table."""
    further: int = 2000
    """Steps of an adaptation."""
    seed: int = 0
    """Of all that is random."""
    smoke: bool = False
    """Two steps each and one network, in a folder of their own: does it run?"""


def of_bands(data: Simulation, bands: slice) -> Simulation:
    """The pairs with some bands of the low-resolution image alone."""
    observation = {**data.observation, "lr": data.observation["lr"][..., bands]}
    return data._replace(observation=observation, target=data.target[..., bands])


def known(system: System, data: Simulation) -> Simulation:
    """The pairs with their sensors estimated where the system asks for them."""
    return data._replace(model=completed(system, data.observation, data.model)[0])


def main(settings: Settings) -> None:
    """Trains and adapts what is not there yet, and writes the table.

    Raises:
        InputError: the folder holds trainings of other settings.
    """
    out = settings.out / "smoke" if settings.smoke else settings.out
    elsewhere, there = place("landsat8_momotombo", JASPER).learn, place("landsat8_liverpool", JASPER, judge=ALL)
    test = of_bands(there.test, BANDS)

    def judged(product: Any) -> dict[str, float]:
        return against_reference(product, test.target, ratio=test.model.ratio, data_range=there.data_range)

    found = {name: {KINDS[0]: judged(run(catalogue.get(name), test.observation, test.model).product)}
             for name in CLASSICAL}  # fmt: skip
    for name, learning in list(LEARNING.items())[: 1 if settings.smoke else None]:
        system, options = catalogue.get(name), {"turn": True, "seed": settings.seed, **learning}
        assert isinstance(system.method, Trained)
        if settings.smoke:
            options["steps"] = 2
        pair = known(system, test)
        with bar(f"{name} learns") as progress:
            came = train(
                system, known(system, elsewhere), sizes=system.method.compact, folder=out / name, progress=progress,
                **options,
            ).network  # fmt: skip
        options |= {"steps": 2 if settings.smoke else settings.further, "pace": learning["pace"] / SLOWER}
        with bar(f"{name} adapts") as progress:
            adapted = adapt(
                came, pair.observation, pair.model, folder=out / f"{name}_adapted", progress=progress, **options
            ).best
        assert adapted is not None
        networks = dict(zip(KINDS, (came, adapted), strict=True))
        found[name] = {kind: judged(network(pair.observation, pair.model)) for kind, network in networks.items()}
    with replaced(out / "table.md") as temporary:
        temporary.write_text(markdown(found))
    show(found)


def lines(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[list[str]]:
    """The system, and PSNR / SAM by kind."""
    return [
        [name, *(f"{kinds[kind]['PSNR']:.2f} / {kinds[kind]['SAM']:.2f}" if kind in kinds else "–" for kind in KINDS)]
        for name, kinds in found.items()
    ]


def markdown(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The table as Markdown."""
    return markdown_table(["system", *KINDS], lines(found))


def show(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Prints the table."""
    table = Table("system", *KINDS, title="PSNR in dB / SAM in degrees on Liverpool")
    for line in lines(found):
        table.add_row(*line)
    Console().print(table)


if __name__ == "__main__":
    use_all_cores()
    sys.exit(answered(lambda: main(tyro.cli(Settings, prog="python -m experiments.adaptation"))))
