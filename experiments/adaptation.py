"""Networks that learned on one place and are shown another: as they are, and adapted to it without truth.

    python -m experiments.adaptation --out runs/adaptation

All learn on Landsat-8's Momotombo (a volcano and a lake in Nicaragua), one ratio lower, with truth. They are judged on
the lower part of Liverpool (fields and streets), also one ratio lower, whose two images alone they adapt to
(`jfusion.training.adapt`). Beside them stand classical systems, and networks that learned with truth on the upper part
of Liverpool. What is finished stays in the folder, so that the experiment can be stopped and goes on later.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments.gather import markdown_line
from experiments.places import place
from jfusion import catalogue
from jfusion.catalogue import System, Trained
from jfusion.data.simulate import Simulation
from jfusion.demo import JASPER
from jfusion.errors import InputError
from jfusion.files import replaced
from jfusion.inference.evaluate import against_reference
from jfusion.inference.run import completed, run
from jfusion.process import answered, use_all_cores
from jfusion.progress import bar
from jfusion.training.adapt import adapt
from jfusion.training.loop import Network, train

BANDS = slice(1, 7)
"""Of Liverpool, which has the coastal band, too."""

CLASSICAL = ("cubic", "mtf_glp_cbd", "fuse")
KINDS = ("as it came", "adapted", "trained there")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of the experiment."""

    out: Path = Path("runs/adaptation")
    """Folder of the trainings and of the table."""
    systems: tuple[str, ...] = ("fusionnet", "gppnn", "sun")
    """Networks, by their names in the catalogue, in compact sizes."""
    steps: int = 4000
    """Of a training with truth."""
    further: int = 1000
    """Of an adaptation."""
    seed: int = 0
    """Of all that is random."""
    smoke: bool = False
    """Two steps each and one network, in a folder of its own: does it run?"""


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
        InputError: a system that is not trained, or the folder holds trainings of other settings.
    """
    for name in settings.systems:
        if not isinstance(catalogue.get(name).method, Trained):
            raise InputError(f"{name} is not a network that is trained; name such systems.")
    out = settings.out / "smoke" if settings.smoke else settings.out
    steps, further = (2, 2) if settings.smoke else (settings.steps, settings.further)
    elsewhere, there = place("landsat8_momotombo", JASPER).learn, place("landsat8_liverpool", JASPER)
    test, near = of_bands(there.test, BANDS), of_bands(there.learn, BANDS)
    truth = np.asarray(test.target[0])

    def judged(product: Any) -> dict[str, float]:
        return against_reference(np.asarray(product[0]), truth, test.model.ratio, there.data_range)

    found: dict[str, dict[str, dict[str, float]]] = {
        name: {KINDS[0]: judged(run(catalogue.get(name), test.observation, test.model).product)} for name in CLASSICAL
    }
    for name in settings.systems[: 1 if settings.smoke else None]:
        system = catalogue.get(name)
        pair, options = known(system, test), {"patch": 32, "batch": 4, "turn": True, "seed": settings.seed}

        def learned(where: str, data: Simulation, name: str = name, options: Any = options) -> Network:
            system = catalogue.get(name)
            assert isinstance(system.method, Trained)
            with bar(f"{name} learns {where}") as progress:
                return train(
                    system, known(system, data), sizes=system.method.compact, steps=steps, pace=1.0,
                    folder=out / f"{name}_{where}", progress=progress, **options,
                ).network  # fmt: skip

        came = learned("elsewhere", elsewhere)
        with bar(f"{name} adapts") as progress:
            adapted = adapt(
                came, pair.observation, pair.model, steps=further, folder=out / f"{name}_adapted", progress=progress,
                **options,
            ).best  # fmt: skip
        assert adapted is not None
        networks = dict(zip(KINDS, (came, adapted, learned("there", near)), strict=True))
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
    heads: Sequence[str] = ["system", *KINDS]
    return "".join(f"{markdown_line(line)}\n" for line in (heads, ["---"] * len(heads), *lines(found)))


def show(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Prints the table."""
    table = Table("system", *KINDS, title="PSNR in dB / SAM in degrees on the lower part of Liverpool")
    for line in lines(found):
        table.add_row(*line)
    Console().print(table)


if __name__ == "__main__":
    use_all_cores()
    sys.exit(answered(lambda: main(tyro.cli(Settings, prog="python -m experiments.adaptation"))))
