"""What all experiment scripts share: settings, the run, and the report.

    python -m experiments.mhf_net --steps 2000 --out runs/mhf
    python -m experiments.mhf_net --data jasper_ridge
    python -m experiments.mhf_net --smoke

A run takes the paper's data set and protocol where its files are there, and an embedded scene otherwise. It makes the
system ready on the split or region to learn from, judges it on every image that it has not seen, beside the trivial
baseline and classical systems under the same protocol, and writes ``experiment.json`` (settings, what training took,
versions, revision), ``results.json`` (a row for each image and system), the products, ``index.html`` and, for networks,
the weights; and ``training``, from whose checkpoints a training or fit that was stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.datasets import Benchmark, benchmark, parted
from experiments.places import REGIONS, Judged, place
from jfusion import catalogue
from jfusion.catalogue import Classical, Fitted, Trained
from jfusion.data import builders, scenes
from jfusion.data.builders.layouts import PairFiles
from jfusion.data.simulate import Protocol, Region
from jfusion.demo import JASPER
from jfusion.errors import InputError
from jfusion.files import check_output, make_folder, replaced
from jfusion.inference.evaluate import CONVENTIONS
from jfusion.inference.meter import measured
from jfusion.inference.run import completed
from jfusion.metrics import psnr
from jfusion.progress import Progress, bar
from jfusion.report.compare import Contest, Trial, rows_of, stage_views
from jfusion.report.content import SceneSection
from jfusion.report.environment import environment
from jfusion.report.page import write_page
from jfusion.report.results import Row, table, write_results
from jfusion.tasks import spatiospectral_task
from jfusion.training import weights
from jfusion.training.loop import Network, train
from unrolled.physics import Physics

RIVALS = {
    "pansharpening": ("cubic", "gsa", "mtf_glp_cbd", "fuse"),
    "hs_pansharpening": ("cubic", "gsa", "fuse"),
    "hs_ms": ("cubic", "gsa", "fuse"),
}
"""The trivial baseline and the classical systems that stand in every table, by task."""

SHOWN = ("PSNR", "SAM", "ERGAS", "Q2n")
"""Metrics of the table on the terminal; the page and results.json have all."""

PICTURED = 2
"""Images of a data set that the page shows."""

KINDS = {
    "band_mean": "mean over bands",
    "image_max": "against the image's maximum",
    "band_max": "mean over bands against their maxima",
    "dian8bit": "mean over bands in 8 bits",
}
"""Conventions of `jfusion.metrics.psnr` that papers have, beside the one of the tables, in words."""

SCALES = 30.0
"""How many times larger or smaller than full scale it may be what a network divides images by."""

NOTED = 10.0
"""Seconds after which a training notes again how long it has taken."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Settings of a run.

    Attributes:
        data: embedded scene (a hyperspectral image as the truth, or a multispectral pair one ratio lower), or a data
            set of `jfusion.data.builders`, such as cave/mhf.
        protocol: how a pair is made of a hyperspectral image.
        learn: region of the truth to learn from (first row, end row, first column, end column); the scene's own by
            default. Of a data set, of every image, all of it by default.
        judge: region to be judged on, likewise.
        blind: whether PSF and SRF are kept from the systems that are judged, which then estimate them.
        sizes: the paper's network, or a smaller one that trains within minutes on two cores.
        physics: what an unrolled network takes for its sensors, see `unrolled.physics`; the paper's by default.
        steps: optimiser steps, the paper's by default. Of a fit, the number of the catalogue's row is scaled to it, and
            each of its stages by the same factor: where known sensors spare a stage there are fewer steps, and where
            the paper takes more at large ratios, more.
        patch: side of a training patch in high-resolution pixels, the paper's by default.
        batch: patches a step, the paper's by default.
        turn: turn and mirror patches at random, also where the paper does not.
        pace: for runs much shorter than the paper's, see `jfusion.training.loop.train`.
        budget: seconds of all sittings together, with compilation, after which training ends, or the fit to each image.
        seed: of parameters and patches.
        validate: share of what there is to learn from that chooses the best step instead, where the data set has no
            split for that: of one scene the end of its longer side, of several the last ones; 0 for the last step.
        weights: of a trained network, in place of training; published ones come by `jfusion import`.
        resume: go on with the training or fit that ``out`` holds; it is refused where settings have changed.
        out: folder of the results.
        smoke: everything tiny and the trivial baseline alone, within a minute: does it run?
        distributed: train together with the other processes of the job, which jax finds by itself on TPU pods, Slurm,
            Open MPI and Kubernetes; ``out`` is one folder for all, and the first one judges.
    """

    data: str = "jasper_ridge"
    protocol: Protocol = JASPER
    learn: Region | None = None
    judge: Region | None = None
    blind: bool = False
    sizes: Literal["paper", "compact", "tiny"] = "paper"
    physics: Physics | None = None
    steps: int | None = None
    patch: int | None = None
    batch: int | None = None
    turn: bool = False
    pace: float | None = None
    budget: float | None = None
    seed: int = 0
    validate: float = 0.15
    weights: Path | None = None
    resume: bool = True
    out: Path = Path("runs/experiment")
    smoke: bool = False
    distributed: bool = False

    @property
    def embedded(self) -> bool:
        """Whether the data are a scene that comes with jfusion."""
        return self.data in scenes.names()

    def tiny(self) -> Experiment:
        """The same with everything small."""
        ratio = self.protocol.ratio
        side = max(32, 2 * ratio)
        learn, judge = (0, side, 0, side), (0, side, 0, side)
        if self.data in REGIONS:
            learn, judge = ((r[0], min(r[0] + 32, r[1]), r[2], min(r[2] + 32, r[3])) for r in REGIONS[self.data])
        patch = max(ratio, min(16, learn[1] - learn[0], learn[3] - learn[2]) // ratio * ratio)
        return dataclasses.replace(
            self, learn=learn, judge=judge, sizes="tiny", steps=20, patch=patch, batch=2, validate=0
        )


def check(experiment: Experiment, name: str) -> None:
    """Raises InputError where a number makes no sense or does not count for that system, before any work."""
    for option in ("steps", "patch", "batch", "budget"):
        value = getattr(experiment, option)
        if value is not None and not value > 0:
            raise InputError(f"--{option} must be above zero, but is {value}; leave it out for the paper's.")
    if experiment.seed < 0:
        raise InputError(f"--seed must be 0 or more, but is {experiment.seed}.")
    if not 0 <= experiment.validate < 1:
        raise InputError(f"--validate is a share from 0 to below 1, but is {experiment.validate}.")
    method = catalogue.get(name).method
    if experiment.physics and not (
        isinstance(method, Trained) and "physics" in inspect.signature(method.network).parameters
    ):
        raise InputError(f"{name} has no choice of --physics; leave it out.")
    training: tuple[str, ...] = ("patch", "batch", "turn", "pace", "distributed")
    if isinstance(method, Fitted):
        why, training = f"{name} is fitted to each pair", (*training, "weights")
    elif experiment.weights is not None:
        why, training = "--weights takes the place of one", (*training, "steps", "budget", "physics")
    else:
        return
    if idle := [option for option in training if getattr(experiment, option)]:
        raise InputError(f"--{idle[0]} is for trainings, but {why}; leave it out.")


def check_disjoint(learn: Region, judge: Region) -> None:
    """Raises InputError where a network would learn from what it is judged on."""
    if all(max(learn[k], judge[k]) < min(learn[k + 1], judge[k + 1]) for k in (0, 2)):
        raise InputError(
            f"the region to learn from, {learn}, and that to be judged on, {judge}, share pixels; give --learn and "
            "--judge that do not."
        )


def check_scale(network: Network, image: Judged) -> None:
    """Raises InputError where a network was made for images in other units, such as published ones for numbers."""
    if not image.data_range / SCALES < network.scale < image.data_range * SCALES:
        raise InputError(
            f"the network divides images by {network.scale:g}, but those of {image.name} reach {image.data_range:g} "
            f"here ({image.unit}); import its weights once more with --scale {image.data_range:g}."
        )


def check_protocol(protocol: Protocol, default: Protocol, data: str) -> None:
    """Raises InputError where options of the protocol were given that do not count."""
    given = [f.name for f in dataclasses.fields(Protocol) if getattr(protocol, f.name) != getattr(default, f.name)]
    if given and not simulated(data):
        raise InputError(f"{data} comes in pairs, of which none is simulated; leave out --protocol.{given[0]}.")
    if "crop" in given:
        raise InputError("--protocol.crop gives way to the regions; say --judge and --learn in its place.")


def simulated(data: str) -> bool:
    """Whether pairs are made of the images by a protocol; otherwise they come as pairs."""
    if data in scenes.names():
        return "hsi" in scenes.load(data)
    return not isinstance(builders.describe(data.partition("/")[0]).layout, PairFiles)


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
    if isinstance(method, Classical):
        raise InputError(f"{name} is classical: there is nothing to train or fit.")
    sizes = {"paper": {}, "compact": method.compact, "tiny": method.tiny}[experiment.sizes]
    if experiment.physics is not None:
        sizes = {**sizes, "physics": experiment.physics}
    common = {"seed": experiment.seed, "budget": experiment.budget, "sizes": sizes,
              "folder": experiment.out / "training", "resume": experiment.resume}  # fmt: skip
    if isinstance(method, Fitted):
        return {**common, "effort": 1.0 if experiment.steps is None else experiment.steps / method.steps}
    used = dataclasses.asdict(experiment)
    return {
        **common,
        "configuration": {name: used[name] for name in ("data", "protocol", "learn", "blind", "validate")},
        "steps": experiment.steps,
        "patch": experiment.patch,
        "batch": experiment.batch,
        "turn": experiment.turn or None,
        "pace": experiment.pace,
    }


def ground(experiment: Experiment, learns: bool) -> Benchmark:
    """The scene or data set of an experiment; see `experiments.places.place` and `experiments.datasets.benchmark`."""
    data, protocol, learn, judge = experiment.data, experiment.protocol, experiment.learn, experiment.judge
    if experiment.embedded:
        where = place(data, protocol, learn, judge)
        if learns and not experiment.smoke:
            check_disjoint(where.protocol["learn"], where.protocol["crop"])
        return Benchmark([where], where.learn)
    return benchmark(data, protocol, learn, judge, learns=learns, few=experiment.smoke)


def first() -> bool:
    """Whether this is the first process of the job."""
    return jax.process_index() == 0


def prepared(experiment: Experiment, learns: bool) -> Benchmark:
    """`ground`, of several processes on the first one first: where a data set is used first, it is prepared once."""
    if jax.process_count() == 1:
        return ground(experiment, learns)
    if not first():
        multihost_utils.sync_global_devices("prepared")
    where = ground(experiment, learns)
    if first():
        multihost_utils.sync_global_devices("prepared")
    return where


@dataclasses.dataclass
class Cost:
    """What a training took.

    Attributes:
        steps: that were taken.
        seconds: of all sittings together, with what a kill has undone.
        peak_memory_mib: memory above the start's, the largest of all sittings that came to an end; None where
            the system does not say.
    """

    steps: int = 0
    seconds: float = 0.0
    peak_memory_mib: float | None = None


@contextmanager
def charged(path: Path, progress: Progress) -> Iterator[tuple[Cost, Progress]]:
    """The cost of the training in this block on top of what its file says; a kill loses `NOTED` seconds of it.

    Args:
        path: of the file, JSON.
        progress: what the one that is handed out also calls.
    """
    cost = Cost(**json.loads(path.read_text())) if path.exists() else Cost()
    path.parent.mkdir(parents=True, exist_ok=True)
    before, began, noted = cost.seconds, time.perf_counter(), 0.0

    def note() -> None:
        cost.seconds = before + time.perf_counter() - began
        with replaced(path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(cost)) + "\n")

    def told(done: int, total: int, values: Mapping[str, float]) -> None:
        nonlocal noted
        progress(done, total, values)
        if time.perf_counter() - began >= noted + NOTED:
            noted = time.perf_counter() - began
            note()

    try:
        with measured() as meter:
            yield cost, told
    finally:
        peaks = [peak for peak in (cost.peak_memory_mib, meter.peak_memory_mib) if peak is not None]
        cost.peak_memory_mib = max(peaks, default=None)
        note()


def make_network(experiment: Experiment, name: str, where: Benchmark) -> tuple[Network, str, Cost]:
    """The network that the experiment trains, a sentence that says where its parameters come from, and what it took."""
    learn, validation = where.learn, where.validation
    assert learn is not None
    if not experiment.validate:
        validation = None
    elif validation is None:
        learn, validation = parted(learn, experiment.validate)
    system = catalogue.get(name)
    asked = settings(experiment, name)
    model, estimated = completed(system, learn.observation, learn.model, sizes=asked["sizes"])
    if estimated:  # the images to validate on are from the same sensors
        learn, validation = learn._replace(model=model), validation and validation._replace(model=model)
    paid = experiment.out / "training" / ("cost.json" if first() else f"cost_{jax.process_index()}.json")
    with bar(f"{experiment.data}: {name} learns") as shown, charged(paid, shown) as (cost, progress):
        result = train(system, learn, validation=validation, progress=progress, **asked)
        cost.steps = result.steps
    note = f"trained on pairs with truth: {cost.steps} steps in {cost.seconds:.0f} s"
    if result.best is None:
        return result.network, note, cost
    return result.best, f"{note}, the best by validation taken", cost


def contest_on(image: Judged, blind: bool) -> Contest:
    """The contest on one image, with or without its PSF and SRF."""
    model, protocol = image.test.model, image.protocol
    if blind:
        model = model.replace(operators=dict.fromkeys(model.operators))
        protocol = {**protocol, "model": "PSF and SRF estimated from the pair"}
    return Contest(
        image.name, image.test.observation, model, image.outline, protocol, image.reference,
        data_range=image.data_range, sensors=image.test.model if blind and image.test.model.known else None,
    )  # fmt: skip


def means(rows: Sequence[Row]) -> list[Row]:
    """A row for each system: the `mean` over all scenes."""
    parts = [[row for row in rows if row.system == name] for name in dict.fromkeys(row.system for row in rows)]
    return [
        part[0] if len(part) == 1 else dataclasses.replace(mean(part), scene=f"mean of {len(part)} images")
        for part in parts
    ]


def mean(rows: Sequence[Row]) -> Row:
    """The first row with the means over all of metrics and seconds, the largest memory, and the notes of all."""
    memory = [row.peak_memory_mib for row in rows if row.peak_memory_mib is not None]
    return dataclasses.replace(
        rows[0],
        metrics={name: float(np.mean([row.metrics[name] for row in rows])) for name in rows[0].metrics},
        seconds=float(np.mean([row.seconds for row in rows])),
        peak_memory_mib=max(memory, default=None),
        note=joined([row.note for row in rows]),
    )


NUMBER = re.compile(r"\d+(?:\.\d+)?")


def joined(notes: Sequence[str]) -> str:
    """The remarks of several notes; those that are alike but for numbers, or not in all, with how many there are.

    Of those that are alike, the one with the largest numbers.
    """
    alike: dict[str, list[str]] = {}
    for note in notes:
        for remark in filter(None, note.split("; ")):
            alike.setdefault(NUMBER.sub("#", remark), []).append(remark)

    def of_all(remarks: list[str]) -> str:
        worst = max(remarks, key=lambda remark: [float(number) for number in NUMBER.findall(remark)])
        counted = len(remarks) < len(notes) or len(set(remarks)) > 1
        return f"{worst} (the worst of {len(remarks)} in {len(notes)})" if counted else worst

    return "; ".join(map(of_all, alike.values()))


def run(experiment: Experiment, name: str, published: Mapping[str, str] | None = None) -> Path:
    """Runs an experiment with the system ``name`` and returns the path of its page.

    Of several processes that train together, the first judges and writes.

    Args:
        experiment: settings.
        name: in the catalogue.
        published: what the paper reports, by its setting; printed beside ours.

    Raises:
        InputError: options that do not count, weights that do not fit, no such scene or data set, files of it are
            missing, regions that do not fit, or the output cannot be written.
    """
    check(experiment, name)
    if experiment.smoke:
        experiment = experiment.tiny()
    network: Network | None = None
    note, cost, options = "", None, settings(experiment, name)
    if experiment.weights is not None:
        network, note = weights.load(experiment.weights, catalogue.get(name)), f"weights of {experiment.weights.name}"
    folder = experiment.out
    make_folder(folder)
    check_output(folder / "index.html", overwrite=True)
    learns = network is None and isinstance(catalogue.get(name).method, Trained)
    where = prepared(experiment, learns)
    if learns:
        network, note, cost = make_network(experiment, name, where)
        if jax.process_count() > 1:
            others = not first()
            jax.distributed.shutdown()
            if others:
                return folder / "index.html"
        weights.save(folder / "weights.safetensors", network)
    if network is not None:
        options = {"weights": network}
    rows: list[Row] = []
    sections: list[SceneSection] = []
    peaks: list[dict[str, float]] = []
    for image in where.judged:
        if network is not None:
            check_scale(network, image)
        trials = trials_on(image, experiment, name, options, note)
        rows += rows_of(trials)
        if published:
            peaks.append(psnr_of_kinds(trials[name].product, image))
        if len(sections) < PICTURED:
            sections.append(section_of(experiment, name, image, trials, network))
    return report(experiment, name, rows, sections, beside(published, peaks) if published else [], cost)


def psnr_of_kinds(product: np.ndarray, image: Judged) -> dict[str, float]:
    """PSNR in dB of a product ``(height, width, band)`` by the convention, see `KINDS`."""
    return {kind: float(psnr(product, image.reference, data_range=image.data_range, convention=kind)) for kind in KINDS}


def beside(published: Mapping[str, str], peaks: Sequence[Mapping[str, float]]) -> list[str]:
    """Sentences on published figures, with what ours are by the conventions of others, means over the images."""
    ours = ", ".join(f"{words} {np.mean([peak[kind] for peak in peaks]):.2f} dB" for kind, words in KINDS.items())
    return [
        *(f"Published, {setting}: {figures}." for setting, figures in published.items()),
        f"Published PSNR may be of another kind than that above, of all pixels and bands against full scale. Ours is, "
        f"{ours}.",
    ]


def trials_on(
    image: Judged, experiment: Experiment, name: str, options: Mapping[str, Any], note: str
) -> dict[str, Trial]:
    """The rivals and the system on one image; the note is added to the system's row."""
    contest = contest_on(image, experiment.blind)
    (experiment.out / contest.scene / "reference.tif").unlink(missing_ok=True)  # of a run that judged another region
    task = spatiospectral_task(*(contest.observation[key].shape[-1] for key in ("lr", "guide")))
    rivals = RIVALS[task.name][: 1 if experiment.smoke else None]
    trials = {rival: contest.try_system(rival, experiment.out) for rival in rivals}
    if "folder" in options:
        options = {**options, "folder": options["folder"] / image.name}
    trial = contest.try_system(name, experiment.out, **options)
    if catalogue.get(name).family == "unrolled":
        trial = contest.exactly(trial)
    row = dataclasses.replace(trial.row, note="; ".join(filter(None, (trial.row.note, note))))
    return {**trials, name: dataclasses.replace(trial, row=row)}


def report(
    experiment: Experiment,
    name: str,
    rows: Sequence[Row],
    sections: Sequence[SceneSection],
    claims: Sequence[str] = (),
    cost: Cost | None = None,
) -> Path:
    """Writes the results and the page, prints the table, and returns the page's path.

    Args:
        experiment, name: see `run`.
        rows: of all images and systems.
        sections: of the images that are shown; the first one gets the means.
        claims: sentences that stand above the table, see `beside`.
        cost: of the training, None where there is none.
    """
    folder, title = experiment.out, experiment.data
    write_results(folder / "results.json", rows)
    record = {
        "system": name,
        "experiment": dataclasses.asdict(experiment),
        "training": cost and dataclasses.asdict(cost),
        "revision": revision(),
        "environment": environment(),
    }
    with replaced(folder / "experiment.json") as temporary:
        temporary.write_text(json.dumps(record, indent=2, default=str) + "\n")
    text = " ".join(claims)
    if (count := len({row.scene for row in rows})) > 1:
        title = f"{experiment.data}, mean of {count} images"
        text = f"The table has the means over {count} images; the pictures show {sections[0].title}. {text}"
        print(f"{title}:")
    first = dataclasses.replace(sections[0], title=title, text=text, rows=means(rows))
    page = folder / "index.html"
    learned = f"Seed {experiment.seed}; nothing was learned from what is judged."
    lead = f"Weights of {experiment.weights.name}, as they came." if experiment.weights else learned
    write_page(page, catalogue.get(name).title, lead, [first, *sections[1:]], CONVENTIONS, environment())
    from rich.console import Console

    Console().print(table(means(rows), SHOWN))
    for claim in claims:
        print(claim)
    return page


def section_of(
    experiment: Experiment, name: str, image: Judged, trials: Mapping[str, Trial], network: Network | None
) -> SceneSection:
    """What the page says about one image."""
    unrolled = network is not None and catalogue.get(name).family == "unrolled"
    return image.section(
        image.name,
        facts={"sizes": experiment.sizes, "seed": experiment.seed},
        products={key: trial.product for key, trial in trials.items()},
        rows=rows_of(trials),
        stages=stage_views(network, image.test.observation, trials[name].run.model) if unrolled and network else (),
        stages_system=name if unrolled else "",
        downloads=[(key, trial.row.product) for key, trial in trials.items()],
    )


def chosen(data: str | None, paper: Experiment, embedded: Experiment) -> tuple[Experiment, str]:
    """The settings that the command line starts from, and what to tell about that.

    Those of the paper serve every data set, those with an embedded scene every scene. Where none is named, it is the
    paper's data set if its files are there.
    """
    if data is not None:
        return (embedded if data in scenes.names() else paper), ""
    try:
        builders.check(paper.data)
    except InputError as absent:
        return embedded, f"The paper's data set is {paper.data}. {absent} Going on with the embedded {embedded.data}."
    return paper, ""


def main(
    name: str,
    paper: Experiment,
    embedded: Experiment,
    published: Mapping[str, str] | None = None,
    script: str | None = None,
) -> None:
    """The command line of a script: every setting is an option.

    Args:
        name: of the system.
        paper: settings with the data set and the protocol of its paper.
        embedded: settings with a scene that comes with jfusion.
        published: see `run`.
        script: the script's own name and first words, where it is not called like the system.
    """
    from jfusion.process import answered, use_all_cores

    use_all_cores()
    import tyro

    words = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    words.add_argument("--data")
    default, told = chosen(words.parse_known_args()[0].data, paper, embedded)
    experiment = tyro.cli(Experiment, default=default, prog=f"python -m experiments.{script or name}")
    if told:
        print(told, file=sys.stderr)

    def go() -> None:
        check_protocol(experiment.protocol, default.protocol, experiment.data)
        if experiment.distributed:
            jax.distributed.initialize()
        tells = first()
        page = run(experiment, name, published)
        if tells:
            print(page)

    sys.exit(answered(go))
