"""All systems of a family under one protocol on embedded scenes, beside all classical ones.

    python -m experiments.compare --family unrolled
    python -m experiments.compare --family prior --systems gdd --scenes jasper_ridge_right
    python -m experiments.compare --smoke --out runs/smoke

Jasper Ridge is fused from a hyperspectral image at ratio 4 (35 dB) and Landsat-8's multispectral bands (40 dB);
Momotombo is pansharpened, and Sentinel-2's bands of 20 m are fused with those of 10 m, both images one ratio lower.
Untrained networks also fuse Jasper Ridge blind: neither PSF nor spectral response is told. A system learns on one
region, chooses its step on a held-out part of it and is judged on another region. Every run is the system's own script
in a process of its own, so that memory is its own and a kill costs what lies behind its last checkpoint: the same
command goes on, and what is finished is not run again. A training that took less than five minutes, or a fit that took
less than three, is repeated with two more seeds, when all others are done, unless it was made on another device.

``out`` gets a folder and a log a run; ``FAMILY.md``, the tables with the commands, anew after each run; and at the end
``FAMILY.html`` with the pictures. The two JSON files of a finished run are enough for the tables: copied into ``out``,
those under ``docs/results`` count as finished, and the page leaves out their pictures.
"""

from __future__ import annotations

import dataclasses
import fcntl
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import tyro

from experiments.gather import Entry, Finished, command, entries, environments, options, read, section, unlike
from experiments.places import Judged
from experiments.runner import SHOWN, Experiment, contest_on, ground
from jfusion import catalogue
from jfusion.data import readers
from jfusion.demo import LEFT, RIGHT
from jfusion.errors import InputError, JFusionError, RunError
from jfusion.files import check_output, make_folder, replaced
from jfusion.inference.evaluate import CONVENTIONS
from jfusion.inference.run import completed
from jfusion.process import answered, use_all_cores
from jfusion.report.compare import stage_views
from jfusion.report.content import SceneSection, StageView
from jfusion.report.environment import environment
from jfusion.report.page import write_page
from jfusion.report.results import Row, display, read_results, seconds_text, with_unit, write_results
from jfusion.tasks import TASKS
from jfusion.training import weights
from jfusion.training.folder import plain

Changes = Mapping[str, Any]
"""Settings of an `Experiment` by name; the others are its own."""

SCENES: dict[str, Changes] = {
    "jasper_ridge": {"data": "jasper_ridge"},
    "jasper_ridge_right": {"data": "jasper_ridge", "learn": LEFT, "judge": RIGHT},
    "jasper_ridge_right_blind": {"data": "jasper_ridge", "learn": LEFT, "judge": RIGHT, "blind": True},
    "landsat8_momotombo": {"data": "landsat8_momotombo"},
    "sentinel2_fields": {"data": "sentinel2_fields"},
}
"""Where systems are compared; blind where they are not told the sensors. Fits, which learn from no other region, are
judged on the right half of Jasper Ridge, as in `jfusion.demo`."""

FAMILY_SCENES = {
    "unrolled": ("jasper_ridge", "landsat8_momotombo", "sentinel2_fields"),
    "prior": ("jasper_ridge_right", "jasper_ridge_right_blind", "landsat8_momotombo"),
}
"""Those of a family where none are named: networks that learned with known sensors are not asked for others."""

DATA_TASKS = {"jasper_ridge": "hs_ms", "landsat8_momotombo": "pansharpening", "sentinel2_fields": "hs_ms"}
"""The task on an embedded scene."""

SEEDS = (0, 1, 2)
SHORT = {"unrolled": 300.0, "prior": 180.0}
"""Seconds below which a run of a family is repeated with all seeds."""

TITLES = {"unrolled": "Unrolled networks", "prior": "Untrained networks"}


def short(steps: int, pace: float | None = None, **changes: Any) -> Changes:
    """A training of minutes on two cores: a small network and small patches; see `Experiment`."""
    few = {"sizes": "compact", "patch": 32, "batch": 4, "turn": True}
    return {**few, "steps": steps, "pace": pace, **changes}


PROTOCOL: dict[str, Changes] = {
    "admm_hfnet": short(3000, 2),
    "bmhf_net": short(3000, 10),
    "cnn_fus": short(4000, 1),
    "dbin": short(3000, 2),
    "dhif_net": short(3000, 3),
    "dhsis": short(6000, 1),
    "dl_vm": short(3000, 1),
    "edbin": short(3000, 2),
    "gppnn": short(6000, 2),
    "lgteun": short(4000, 1),
    "mhf_net": short(3000, 10),
    "mog_dcn": short(3000, 10),
    "pancsc_net": short(6000, 30),
    "spfnet": short(3000, 1),
    "sun": short(2000, 1),
    "tonwmd": short(4000, 1),
    "tsfn": short(4000, 5),
    "vo_net": short(6000, 5),
    "vp_net": short(6000, 10),
    "cucanet": {"steps": 1500},
    "dbsr": {"sizes": "compact"},
    "deep_decoder": {"steps": 5000},
    "dhp": {"sizes": "compact"},
    "dip": {},
    "dip_hyperkite": {"sizes": "compact"},
    "eu2adl": {"sizes": "compact", "steps": 12000},
    "gdd": {"steps": 1000},
    "hsi_csr": {},
    "hyconet": {"sizes": "compact"},
    "m2u_net": {"sizes": "compact", "steps": 6000},
    "miae": {"sizes": "compact"},
    "nonregsrnet": {"sizes": "compact"},
    "rafnet": {"sizes": "compact", "steps": 12000},
    "rec_hsisr": {"sizes": "compact"},
    "u2mdn": {},
    "ual": {"sizes": "compact"},
    "udaln": {"steps": 6000},
    "usdn": {},
}
"""How each system runs; a number of steps and a pace, for a quarter of an hour or so on two cores."""

MANY_BANDS: dict[str, Changes] = {
    "admm_hfnet": {"steps": 1600, "pace": 1.0},
    "bmhf_net": {"steps": 600, "batch": 2},
    "dbin": {"steps": 2300},
    "dhif_net": {"steps": 1500},
    "dhsis": {"steps": 20000},
    "dl_vm": {"steps": 12000},
    "edbin": {"steps": 1800},
    "mhf_net": {"steps": 800, "batch": 2},
    "mog_dcn": {"steps": 2000},
    "pancsc_net": {"steps": 1500, "pace": 1.0},
    "sun": {"patch": 48, "batch": 2},
    "tonwmd": {"patch": 48, "batch": 2},
    "tsfn": {"steps": 12000},
    "vo_net": {"steps": 12000},
    "vp_net": {"pace": 2.0},
}
"""What changes where there are hundreds of bands: fewer steps, a pace at which the loss does not blow up, and patches
as large as the region to learn from where statistics of the patch enter."""

FEW_BANDS: dict[str, Changes] = {
    "admm_hfnet": {"steps": 7000},
    "bmhf_net": {"steps": 8000},
    "cnn_fus": {"steps": 18000},
    "dbin": {"steps": 7000},
    "dhif_net": {"steps": 9000},
    "dhsis": {"steps": 30000},
    "dl_vm": {"steps": 28000},
    "edbin": {"steps": 6000},
    "gppnn": {"steps": 28000},
    "lgteun": {"steps": 6000},
    "mhf_net": {"steps": 10000},
    "mog_dcn": {"steps": 5000},
    "pancsc_net": {"steps": 8000},
    "spfnet": {"steps": 16000},
    "sun": {"steps": 6000},
    "tonwmd": {"steps": 10000},
    "tsfn": {"steps": 11000},
    "vo_net": {"steps": 24000},
    "vp_net": {"steps": 11000},
}
"""What changes where there are so few bands that a training of the steps above takes but a minute or two."""

MORE_GROUND: dict[str, Changes] = {
    **FEW_BANDS,
    "dbin": {"steps": 14000},
    "spfnet": {"steps": 32000},
    "tonwmd": {"steps": 20000},
}
"""The same where there is more to learn from: longer for three that were behind FUSE and still gaining on held-out
pixels."""

CHANGED = {"jasper_ridge": MANY_BANDS, "landsat8_momotombo": FEW_BANDS, "sentinel2_fields": MORE_GROUND}
"""What changes on a scene."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is compared.

    Attributes:
        family: whose systems take part, beside the classical ones.
        systems: of the family, all by default.
        scenes: where they are judged, of `SCENES`; by default where `FAMILY_SCENES` says.
        budget: seconds after which the training or fit of a run ends, whatever its steps. A training that took less
            is not repeated for another budget, a fit is.
        out: folder of the runs and results; a folder that holds some is gone on with.
        smoke: everything tiny: does it run?
    """

    family: Literal["unrolled", "prior"] = "unrolled"
    systems: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    budget: float | None = None
    out: Path = Path("runs/compare")
    smoke: bool = False

    @property
    def places(self) -> tuple[str, ...]:
        """The scenes, also where none are named."""
        return self.scenes or FAMILY_SCENES[self.family]


@dataclasses.dataclass(frozen=True)
class Run:
    """A system's script with settings."""

    system: str
    experiment: Experiment

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.experiment.out.name

    @property
    def log(self) -> Path:
        """What the script says."""
        return self.experiment.out.with_suffix(".log")

    @property
    def repeats(self) -> list[Run]:
        """The same with the other seeds."""
        return [
            run_in(self.experiment.out.parent, self.system, dataclasses.replace(self.experiment, seed=seed))
            for seed in SEEDS[1:]
        ]

    def finished(self) -> Finished | None:
        """What it left, None where it has not finished.

        Raises:
            InputError: the folder holds a run of other settings.
        """
        if not (self.experiment.out / "experiment.json").exists():
            return None
        found = read(self.experiment.out)
        asked = plain(dataclasses.asdict(self.experiment.tiny() if self.experiment.smoke else self.experiment))
        if changed := unlike(found, asked):
            raise InputError(
                f"{self.experiment.out} holds a run of other settings: {'; '.join(changed)}. Remove it or name another "
                "--out."
            )
        return found


def scene_name(experiment: Experiment) -> str:
    """Its name in `SCENES`."""
    usual = {"learn": None, "judge": None, "blind": False}
    return next(
        name
        for name, place in SCENES.items()
        if all(getattr(experiment, key) == value for key, value in {**usual, **place}.items())
    )


def is_blind(scene: str) -> bool:
    """Whether systems are not told the sensors there."""
    return bool(SCENES[scene].get("blind", False))


def run_in(out: Path, system: str, experiment: Experiment) -> Run:
    """A run whose folder lies in ``out``."""
    folder = out / f"{system}-{scene_name(experiment)}-{experiment.seed}"
    return Run(system, dataclasses.replace(experiment, out=folder))


def planned(settings: Settings, protocol: Mapping[str, Changes] = PROTOCOL) -> list[Run]:
    """The runs with the first seed, scene by scene.

    Raises:
        InputError: a system or scene that is not there, or a system without a line in the protocol.
    """
    rows = (row for row in catalogue.systems().values() if row.family == settings.family)
    family = [row for row in rows if row.name in protocol or row.name in settings.systems]
    names = [row.name for row in family]
    for kind, asked, known in (("systems", settings.systems, names), ("scenes", settings.scenes, list(SCENES))):
        if wrong := [name for name in asked if name not in known]:
            raise InputError(f"--{kind} must be among {', '.join(known)}, but has {', '.join(wrong)}.")
    if settings.budget is not None and settings.budget <= 0:
        raise InputError(f"--budget must be seconds above 0, but is {settings.budget:g}.")
    chosen = [row for row in family if row.name in (settings.systems or names)]
    if lacking := [row.name for row in chosen if row.name not in protocol]:
        raise InputError(f"{', '.join(lacking)} must have a line in experiments.compare.PROTOCOL; write it.")
    common: Changes = {"seed": SEEDS[0], "budget": settings.budget, "smoke": settings.smoke}
    return [
        run_in(
            settings.out,
            row.name,
            Experiment(**{**protocol[row.name], **CHANGED[place["data"]].get(row.name, {}), **common, **place}),
        )
        for place in map(SCENES.__getitem__, settings.places)
        for row in chosen
        if DATA_TASKS[place["data"]] in row.tasks
    ]


def attempt(run: Run) -> str:
    """Runs a script to its end and returns what went wrong, empty if nothing did.

    Its log stays locked until the script itself has ended: one that a killed comparison left at work is waited for.
    """
    with run.log.open("ab") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{run.name} is at work already; waiting for it", file=sys.stderr)
            fcntl.flock(log, fcntl.LOCK_EX)
        if run.finished():
            return ""
        words = command(run.system, plain(dataclasses.asdict(run.experiment)))
        child = subprocess.Popen([sys.executable, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            code = child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise
    if code == 0:
        return ""
    said = run.log.read_text(encoding="utf-8", errors="replace").splitlines()
    return f"{run.name} ended with {code}: {next((line for line in reversed(said) if line.strip()), 'no word')}"


def wanted(run: Run) -> list[Run]:
    """The run and, once it is known to be short, its repeats; not where it came from another device."""
    found = run.finished()
    if found is None or run.experiment.smoke:
        return [run]
    here = found.record["environment"]["device"] == environment()["device"]
    soon = found.seconds < SHORT[catalogue.get(run.system).family]
    return [run, *(run.repeats if here and soon else ())]


def work(first: Sequence[Run], publish: Callable[[], None]) -> list[str]:
    """Runs what is not finished, the repeats when all others are done, and returns what went wrong.

    Args:
        first: the runs with the first seed.
        publish: called before and after each run.
    """
    failed = []
    repeats = (again for run in first for again in wanted(run)[1:])  # not asked before the first are done
    publish()
    for run in chain(first, repeats):
        if run.finished():
            continue
        print(f"{run.name} runs, see {run.log}", file=sys.stderr)
        if failure := attempt(run):
            failed.append(failure)
        publish()
        print(failure or told(run), file=sys.stderr)
    return failed


def told(run: Run) -> str:
    """What a finished run has reached."""
    found = run.finished()
    assert found is not None
    reached = with_unit(SHOWN[0], found.row.metrics[SHOWN[0]])
    return f"{run.name}: {display(SHOWN[0]).label} {reached} after {seconds_text(found.seconds)} s"


@dataclasses.dataclass(frozen=True)
class Scene:
    """What is known of a scene so far.

    Attributes:
        name: in `SCENES`.
        where: the pair that is judged.
        classical: folder of what classical systems did there.
        runs: with the first seed.
    """

    name: str
    where: Judged
    classical: Path
    runs: Sequence[Run]

    def judge(self, smoke: bool) -> list[str]:
        """Judges the classical systems that have not been judged yet, and returns what went wrong.

        Raises:
            InputError: the folder holds results under another protocol.
        """
        self.classical.mkdir(exist_ok=True)
        rows, failed = self.rows(), []
        contest = contest_on(self.where, is_blind(self.name))
        if any(row.protocol != plain(contest.protocol) for row in rows):
            raise InputError(f"{self.classical} holds results under another protocol; remove it or name another --out.")
        for name in classical(self.where.name, smoke):
            if name in [row.system for row in rows]:
                continue
            try:
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                    rows.append(process.submit(trial, self.name, smoke, name, self.classical).result())
            except (JFusionError, BrokenProcessPool) as error:
                failed.append(f"{name} on {self.where.name}: {error}")
            write_results(self.classical / "results.json", rows)
        return failed

    def rows(self) -> list[Row]:
        """Of the classical systems."""
        path = self.classical / "results.json"
        return read_results(path) if path.exists() else []

    def finished(self) -> list[tuple[Run, Finished]]:
        """All runs that are finished, those with the first seed before their repeats."""
        found = [(again, again.finished()) for run in self.runs for again in wanted(run)]
        return [(run, result) for run, result in found if result is not None]

    def table(self) -> list[str]:
        """Lines of Markdown."""
        results = [result for _, result in self.finished()]
        waiting = [again.name for run in self.runs for again in wanted(run) if again.finished() is None]
        lines = section(results, self.rows())
        return [
            f"#{lines[0]}{', blind' * is_blind(self.name)}",
            *lines[1:],
            *(["", f"Not finished: {', '.join(waiting)}."] if waiting else []),
        ]

    def section(self, out: Path) -> SceneSection:
        """What the page, which lies in ``out``, says; it shows the products whose files are there."""
        results = self.finished()
        found = entries([result for _, result in results], self.rows())
        files: dict[str, Path] = {}
        for folder, rows in [(self.classical, self.rows()), *((run.experiment.out, r.rows) for run, r in results)]:
            for row in rows:
                if (product := folder / row.product).exists():
                    files.setdefault(row.system, product)
        shown = [entry.row for entry in found if entry.row.system in files]
        unrolled = next((row.system for row in shown if row.family == "unrolled"), "")
        best = next((run for run, _ in results if run.system == unrolled), None)
        return self.where.section(
            self.where.name + ", blind" * is_blind(self.name),
            products={row.system: readers.read(files[row.system]).physical() for row in shown},
            rows=[with_note(entry) for entry in found],
            stages=stages_of(best, self.where) if best else (),
            stages_system=unrolled,
            downloads=[(row.system, files[row.system].relative_to(out).as_posix()) for row in shown],
        )


def trial(scene: str, smoke: bool, name: str, folder: Path) -> Row:
    """What one classical system does; in a process of its own, where the memory that others took is not at hand."""
    use_all_cores()
    return contest_on(pair_of(scene, smoke), is_blind(scene)).try_system(name, folder).row


def with_note(entry: Entry) -> Row:
    """The row of the page, with what its table has no columns for in the note."""
    told = [entry.row.note]
    if entry.cost is not None:
        told.append(f"{entry.cost.steps:,} steps in {seconds_text(entry.cost.seconds)} s")
    if entry.spread:
        told.append(f"{entry.runs} seeds, {SHOWN[0]} ± {with_unit(SHOWN[0], entry.spread[SHOWN[0]])}")
    return dataclasses.replace(entry.row, note="; ".join(filter(None, told)))


def stages_of(run: Run, where: Judged) -> list[StageView]:
    """What the stages of a trained network estimated."""
    network = weights.load(run.experiment.out / "weights.safetensors")
    model, _ = completed(network.system, where.test.observation, where.test.model, sizes=network.sizes)
    return stage_views(network, where.test.observation, model)


def document(settings: Settings, scenes: Sequence[Scene]) -> str:
    """The tables in Markdown, with the command that makes them."""
    usual = {**dataclasses.asdict(Settings()), "family": None}
    used = {name: value for name, value in dataclasses.asdict(settings).items() if name != "out"}
    lines = [f"# {TITLES[settings.family]} beside classical systems", ""]
    lines += ["```", shlex.join(["python", "-m", "experiments.compare", *options(used, usual)]), "```", ""]
    for scene in scenes:
        lines += [*scene.table(), ""]
    return "\n".join([*lines, *environments([result for scene in scenes for _, result in scene.finished()])]) + "\n"


def compare(settings: Settings, protocol: Mapping[str, Changes] = PROTOCOL) -> Path:
    """Does what is still to be done, writes tables and page, and returns the path of the tables.

    Raises:
        InputError: see `planned`; the folder cannot be written to, or holds runs of other settings.
        RunError: some runs failed; all others are in the tables and on the page.
    """
    first, out = planned(settings, protocol), settings.out
    make_folder(out)
    tables, page = out / f"{settings.family}.md", out / f"{settings.family}.html"
    for path in (tables, page):
        check_output(path, overwrite=True)
    for run in first:
        for again in (run, *run.repeats):
            again.finished()
    scenes = [scene_of(name, settings, first) for name in settings.places]
    failed = [failure for scene in scenes for failure in scene.judge(settings.smoke)]

    def publish() -> None:
        with replaced(tables) as temporary:
            temporary.write_text(document(settings, scenes), encoding="utf-8")

    failed += work(first, publish)
    title = f"{TITLES[settings.family]} beside classical systems"
    lead = f"All under one protocol; {tables.name} has the commands."
    write_page(page, title, lead, [scene.section(out) for scene in scenes], CONVENTIONS, environment())
    print(page)
    if failed:
        raise RunError(f"{'; '.join(failed)}. All others are in {tables}; the same command tries these again.")
    return tables


def scene_of(name: str, settings: Settings, first: Sequence[Run]) -> Scene:
    """A scene with its runs."""
    runs = [run for run in first if scene_name(run.experiment) == name]
    return Scene(name, pair_of(name, settings.smoke), settings.out / f"classical-{name}", runs)


def pair_of(scene: str, smoke: bool) -> Judged:
    """The pair that is judged on a scene of `SCENES`."""
    experiment = Experiment(**SCENES[scene])
    return next(iter(ground(experiment.tiny() if smoke else experiment, learns=False).judged))


def classical(data: str, smoke: bool) -> list[str]:
    """The classical systems that are judged on an embedded scene; with ``smoke`` the trivial baseline alone."""
    task = TASKS[DATA_TASKS[data]]
    rows = [row for row in catalogue.systems().values() if row.family == "classical" and task.name in row.tasks]
    return [row.name for row in rows if not smoke or row.name == task.baseline]


def main() -> None:
    """The command line."""
    use_all_cores()
    settings = tyro.cli(Settings, prog="python -m experiments.compare")
    sys.exit(answered(lambda: print(compare(settings))))


if __name__ == "__main__":
    main()
