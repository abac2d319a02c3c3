"""What all experiment scripts share: settings, the run, and the report.

    python -m experiments.mhf_net --data jasper_ridge --steps 2000 --out runs/mhf
    python -m experiments.mhf_net --smoke

A run simulates a pair from one region of the scene and, for networks, training data from another; it makes the system
ready, compares it with the trivial baseline and classical systems under the same protocol, and writes
``experiment.json`` (settings, versions, revision), ``results.json``, the products, ``index.html`` and ``training``,
from whose checkpoints a run that was stopped goes on.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.places import place
from jfusion import catalogue
from jfusion.catalogue import Fitted, Trained
from jfusion.data.patches import hold_out
from jfusion.data.simulate import Protocol, Region
from jfusion.demo import JASPER, facts
from jfusion.errors import InputError
from jfusion.files import check_output, replaced
from jfusion.inference.evaluate import CONVENTIONS
from jfusion.report.compare import Contest, rows_of, stage_views
from jfusion.report.content import SceneSection
from jfusion.report.environment import environment
from jfusion.report.page import write_page
from jfusion.report.results import table, write_results
from jfusion.tasks import spatiospectral_task

RIVALS = {
    "pansharpening": ("cubic", "gsa", "mtf_glp_cbd", "fuse"),
    "hs_pansharpening": ("cubic", "gsa", "fuse"),
    "hs_ms": ("cubic", "gsa", "fuse"),
}
"""The trivial baseline and the classical systems that stand in every table, by task."""


SHOWN = ("PSNR", "SAM", "ERGAS", "Q2n")
"""Metrics of the table on the terminal; the page and results.json have all."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Settings of a run.

    Attributes:
        data: embedded scene: a hyperspectral image as the truth, or a multispectral pair one ratio lower.
        protocol: how a pair is made of a hyperspectral image.
        learn, judge: regions (first row, end row, first column, end column) of the truth; the scene's own by default.
        sizes: the paper's network, or a smaller one that trains within minutes on two cores.
        steps: optimiser steps, the paper's by default.
        patch, batch: of training, the paper's by default.
        budget: seconds after which training or fitting ends.
        seed: of parameters and patches.
        validate: share of the rows to learn from that choose the best step instead; 0 for the last step.
        resume: go on with the training that ``out`` holds; it is refused where settings have changed.
        out: folder of the results.
        smoke: everything tiny and the trivial baseline alone, within a minute: does it run?
    """

    data: str = "jasper_ridge"
    protocol: Protocol = JASPER
    learn: Region | None = None
    judge: Region | None = None
    sizes: Literal["paper", "compact", "tiny"] = "paper"
    steps: int | None = None
    patch: int | None = None
    batch: int | None = None
    budget: float | None = None
    seed: int = 0
    validate: float = 0.15
    resume: bool = True
    out: Path = Path("runs/experiment")
    smoke: bool = False

    def tiny(self) -> Experiment:
        """The same with everything small."""
        learn, judge = (0, 32, 0, 32), (0, 32, 52, 84)
        return dataclasses.replace(
            self, learn=learn, judge=judge, sizes="tiny", steps=20, patch=16, batch=2, validate=0
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
            "folder": experiment.out / "training",
            "resume": experiment.resume,
        }
    raise InputError(f"{name} is classical: there is nothing to train or fit.")


def run(experiment: Experiment, name: str, published: Mapping[str, str] | None = None) -> Path:
    """Runs an experiment with the system ``name`` and returns the path of its page.

    Args:
        experiment: settings.
        name: in the catalogue.
        published: what the paper reports, by its setting; printed beside ours.

    Raises:
        InputError: no such scene, regions that do not fit it, or the output cannot be written.
    """
    if experiment.smoke:
        experiment = experiment.tiny()
    folder = experiment.out
    folder.mkdir(parents=True, exist_ok=True)
    check_output(folder / "index.html", overwrite=True)
    where = place(experiment.data, experiment.protocol, experiment.learn, experiment.judge)
    test, learn, outline = where.test, where.learn, where.outline
    training = settings(experiment, name)
    if "folder" in training and experiment.validate:
        learn, training["validation"] = hold_out(learn, experiment.validate)
    contest = Contest(
        experiment.data, test.observation, test.model, outline, where.protocol, where.reference, learn,
        where.data_range,
    )  # fmt: skip
    task = spatiospectral_task(test.observation["lr"].shape[-1], test.observation["guide"].shape[-1])
    trials = {
        rival: contest.try_system(rival, folder) for rival in RIVALS[task.name][: 1 if experiment.smoke else None]
    }
    trials[name] = contest.try_system(name, folder, **training)
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
        facts=facts(outline, ratio=test.model.ratio, sizes=experiment.sizes, seed=experiment.seed),
        inputs={key: np.asarray(image[0]) for key, image in test.observation.items()},
        rgb=outline.rgb_bands(),
        products={key: trial.product for key, trial in trials.items()},
        reference=where.reference,
        wavelengths=outline.wavelengths,
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

    Console().print(table(rows, SHOWN))
    for setting, numbers in (published or {}).items():
        print(f"published, {setting}: {numbers}")
    return page


def main(name: str, default: Experiment, published: Mapping[str, str] | None = None) -> None:
    """The command line of a script: every setting is an option."""
    from jfusion.cli import answered, use_all_cores

    use_all_cores()
    import tyro

    experiment = tyro.cli(Experiment, default=default, prog=f"python -m experiments.{name}")
    sys.exit(answered(lambda: print(run(experiment, name, published))))
