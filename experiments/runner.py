"""What all experiment scripts share: settings, the run, and the report.

    python -m experiments.mhf_net --data jasper_ridge --steps 2000 --out runs/mhf
    python -m experiments.mhf_net --smoke

A run simulates a pair from one region of the scene and, for networks, training data from another; it makes the system
ready, compares it with the trivial baseline and two classical systems under the same protocol, and writes
``experiment.json`` (settings, versions, revision), ``results.json``, the products and ``index.html``.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jfusion import catalogue
from jfusion.catalogue import Fitted, Trained
from jfusion.data import scenes
from jfusion.data.simulate import Protocol, simulate
from jfusion.demo import JASPER, facts
from jfusion.errors import InputError
from jfusion.files import check_output, replaced
from jfusion.inference.evaluate import CONVENTIONS
from jfusion.report.compare import Contest, rows_of, stage_views
from jfusion.report.content import SceneSection
from jfusion.report.environment import environment
from jfusion.report.page import write_page
from jfusion.report.results import table, write_results

RIVALS = ("cubic", "gsa", "fuse")
"""The trivial baseline and two classical systems that stand in every table."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Settings of a run.

    Attributes:
        data: embedded hyperspectral scene.
        protocol: how the pair that is judged is made; its crop is the judged region.
        learn: (first row, end row, first column, end column) of the region that networks learn from.
        sizes: the paper's network, or a smaller one that trains within minutes on two cores.
        steps: optimiser steps, the paper's by default.
        patch, batch: of training, the paper's by default.
        budget: seconds after which training or fitting ends.
        seed: of parameters and patches.
        out: folder of the results.
        smoke: everything tiny, within a minute: does it run?
    """

    data: str = "jasper_ridge"
    protocol: Protocol = JASPER
    learn: tuple[int, int, int, int] = (0, 100, 0, 48)
    sizes: Literal["paper", "compact", "tiny"] = "paper"
    steps: int | None = None
    patch: int | None = None
    batch: int | None = None
    budget: float | None = None
    seed: int = 0
    out: Path = Path("runs/experiment")
    smoke: bool = False

    def tiny(self) -> Experiment:
        """The same with everything small."""
        protocol = dataclasses.replace(self.protocol, crop=(0, 32, 52, 84))
        return dataclasses.replace(
            self, protocol=protocol, learn=(0, 32, 0, 32), sizes="tiny", steps=20, patch=16, batch=2
        )


def revision() -> str:
    """Git revision of the code, empty where there is none."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def settings(experiment: Experiment, name: str) -> dict[str, Any]:
    """Arguments of `jfusion.inference.run.run` that an experiment asks for."""
    method = catalogue.get(name).method
    common: dict[str, Any] = {"seed": experiment.seed, "budget": experiment.budget}
    if isinstance(method, Fitted):
        return {**common, "effort": 1.0 if experiment.steps is None else experiment.steps / method.steps}
    if isinstance(method, Trained):
        sizes = {"paper": {}, "compact": method.compact, "tiny": method.tiny}[experiment.sizes]
        return {
            **common,
            "sizes": sizes,
            "steps": experiment.steps,
            "patch": experiment.patch,
            "batch": experiment.batch,
        }
    raise InputError(f"{name} is classical: there is nothing to train or fit.")


def run(experiment: Experiment, name: str, published: Mapping[str, str] | None = None) -> Path:
    """Runs an experiment with the system ``name`` and returns the path of its page.

    Args:
        experiment: settings.
        name: in the catalogue.
        published: what the paper reports, by its setting; printed beside ours.

    Raises:
        InputError: the scene is no embedded hyperspectral one, or the output cannot be written.
    """
    if experiment.smoke:
        experiment = experiment.tiny()
    images = scenes.load(experiment.data)
    if "hsi" not in images or images["hsi"].wavelengths is None:
        raise InputError(f"{experiment.data} has no hyperspectral image with wavelengths; jasper_ridge has.")
    folder = experiment.out
    folder.mkdir(parents=True, exist_ok=True)
    check_output(folder / "index.html", overwrite=True)
    hsi = images["hsi"]
    wavelengths = np.asarray(hsi.wavelengths)
    test = simulate(hsi.physical(), wavelengths, experiment.protocol)
    protocol = dataclasses.replace(experiment.protocol, crop=experiment.learn, seed=experiment.protocol.seed + 1)
    learn = simulate(hsi.physical(), wavelengths, protocol)
    reference = np.asarray(test.target[0])
    contest = Contest(
        experiment.data, test.observation, test.model, dataclasses.replace(hsi, scale=1.0, nodata=None),
        experiment.protocol.to_dict(), reference, learn, experiment.protocol.data_range,
    )  # fmt: skip
    trials = {rival: contest.try_system(rival, folder) for rival in RIVALS}
    trials[name] = contest.try_system(name, folder, **settings(experiment, name))
    network = trials[name].run.network
    unrolled = network is not None and catalogue.get(name).family == "unrolled"
    rows = rows_of(trials)
    write_results(folder / "results.json", rows)
    record = {"system": name, "experiment": dataclasses.asdict(experiment), "revision": revision(), **environment()}
    with replaced(folder / "experiment.json") as temporary:
        temporary.write_text(json.dumps(record, indent=2, default=str) + "\n")
    title = catalogue.get(name).title
    section = SceneSection(
        title=experiment.data,
        text="".join(f"Published, {setting}: {numbers}. " for setting, numbers in (published or {}).items()),
        facts=facts(hsi, ratio=experiment.protocol.ratio, sizes=experiment.sizes, seed=experiment.seed),
        inputs={key: np.asarray(image[0]) for key, image in test.observation.items()},
        rgb=hsi.rgb_bands(),
        products={key: trial.product for key, trial in trials.items()},
        reference=reference,
        wavelengths=wavelengths,
        rows=rows,
        stages=stage_views(network, test.observation, test.model) if unrolled and network is not None else (),
        stages_system=name if unrolled else "",
        downloads=[(key, trial.row.product) for key, trial in trials.items()],
        unit="reflectance",
    )
    page = folder / "index.html"
    lead = f"Seed {experiment.seed}; the judged region and the region to learn from do not overlap."
    write_page(page, title, lead, [section], CONVENTIONS, environment())
    from rich.console import Console

    Console().print(table(rows))
    for setting, numbers in (published or {}).items():
        print(f"published, {setting}: {numbers}")
    return page


def main(name: str, default: Experiment, published: Mapping[str, str] | None = None) -> None:
    """The command line of a script: every setting is an option."""
    from jfusion.cli import use_all_cores

    use_all_cores()
    import tyro

    print(run(tyro.cli(Experiment, default=default, prog=f"python -m experiments.{name}"), name, published))
