"""Every system has its line, what is finished is not run again, and what fails is named while the others go on."""

import dataclasses
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from experiments import compare
from experiments.compare import (
    DATA_TASKS,
    FAMILY_SCENES,
    PROTOCOL,
    SCENES,
    SEEDS,
    SHORT,
    Run,
    Scene,
    Settings,
    attempt,
    planned,
    work,
)
from experiments.gather import command
from experiments.places import REGIONS
from experiments.runner import Experiment
from jfusion import catalogue
from jfusion.errors import InputError, RunError
from jfusion.report.environment import environment
from jfusion.report.results import Row, write_results
from jfusion.tasks import TASKS
from jfusion.training.folder import plain

NAMES = [row.name for row in catalogue.systems().values() if row.family in ("unrolled", "prior")]
RUN = Experiment(data="jasper_ridge", steps=7)


def run_of(out: Path, system: str, seed: int = 0) -> Run:
    return compare.run_in(out, system, dataclasses.replace(RUN, seed=seed))


def finish(run: Run, psnr: float, seconds: float, device: str = environment()["device"]) -> None:
    """Makes up what a run leaves."""
    run.experiment.out.mkdir(parents=True)
    protocol = {"ratio": 4}
    rows = [
        Row("jasper_ridge", "hs_ms", name, family, protocol, {"PSNR": value}, None, 1.0, None, "x", "y")
        for name, family, value in (("cubic", "classical", 20.0), (run.system, "unrolled", psnr))
    ]
    write_results(run.experiment.out / "results.json", rows)
    record = {
        "system": run.system,
        "experiment": dataclasses.asdict(run.experiment),
        "training": {"steps": 7, "seconds": seconds, "peak_memory_mib": 10.0},
        "environment": {"jax": "1", "device": device},
    }
    (run.experiment.out / "experiment.json").write_text(json.dumps(record, default=str))


@pytest.mark.parametrize("name", NAMES)
def test_every_system_has_its_line(name: str) -> None:
    """And the command line asks its script for what the line says."""
    experiment = Experiment(data=next(iter(DATA_TASKS)), seed=1, budget=9.0, out=Path("here"), **PROTOCOL[name])
    words = command(name, plain(dataclasses.asdict(experiment)))
    default = importlib.import_module(f"experiments.{name}").EXPERIMENT
    assert words[:2] == ["-m", f"experiments.{name}"]
    assert tyro.cli(Experiment, args=words[2:], default=default) == experiment


def test_scenes_and_classical_systems() -> None:
    assert {place["data"] for place in SCENES.values()} == set(DATA_TASKS) <= set(REGIONS)
    assert set().union(*FAMILY_SCENES.values()) == set(SCENES)
    assert all(compare.scene_name(Experiment(**place)) == name for name, place in SCENES.items())
    rows = {row.name for row in catalogue.systems().values() if row.family == "classical"}
    assert set().union(*(compare.classical(scene, smoke=False) for scene in DATA_TASKS)) == rows
    for scene, task in DATA_TASKS.items():
        assert compare.classical(scene, smoke=True) == [TASKS[task].baseline]


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match="systems must be among"):
        planned(Settings(systems=("gsa",)))
    with pytest.raises(InputError, match="scenes must be among jasper_ridge"):
        planned(Settings(scenes=("paris_hs_pan",)))
    with pytest.raises(InputError, match="budget"):
        planned(Settings(budget=0))
    with pytest.raises(InputError, match="mhf_net must have a line"):
        planned(Settings(systems=("mhf_net",)), {})


def test_short_runs_are_repeated_and_failures_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def made_up(run: Run) -> str:
        started.append(run.name)
        if run.system == "lgteun":
            return f"{run.name} ended with 1: no memory"
        finish(
            run,
            {"sun": 30.0, "tsfn": 35.0}[run.system] + run.experiment.seed,
            SHORT["unrolled"] + (1 if run.system == "tsfn" else -1),
        )
        return ""

    monkeypatch.setattr(compare, "attempt", made_up)
    first = [run_of(tmp_path, system) for system in ("sun", "lgteun", "tsfn")]
    published: list[int] = []
    failed = work(first, lambda: published.append(len(started)))
    assert failed == ["lgteun-jasper_ridge-0 ended with 1: no memory"]
    assert started == [run.name for run in first] + [f"sun-jasper_ridge-{seed}" for seed in SEEDS[1:]]
    assert published == [0, 1, 2, 3, 4, 5]

    lines = Scene("jasper_ridge", None, tmp_path / "classical", first).table()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][2:]
    assert [row[0] for row in rows] == ["cubic", "tsfn", "sun"]
    assert [row[2] for row in rows] == ["20.00", "**35.00**", "31.00 ± 1.00"]
    assert [row[7:9] for row in rows] == [["–", "–"], ["7", "301"], ["7", "299"]]
    assert "Not finished: lgteun-jasper_ridge-0." in lines
    assert "python -m experiments.sun --data jasper_ridge --steps 7  # and --seed 1, 2" in lines

    started.clear()
    work(first, lambda: None)
    assert started == ["lgteun-jasper_ridge-0"]
    other = Run("sun", dataclasses.replace(first[0].experiment, steps=8))
    with pytest.raises(InputError, match="steps was 7 and is now 8"):
        other.finished()


def test_short_runs_of_another_device_are_not_repeated(tmp_path: Path) -> None:
    runs = [run_of(tmp_path, "sun"), run_of(tmp_path, "tsfn")]
    finish(runs[0], 30.0, SHORT["unrolled"] - 1, device="1 x another")
    finish(runs[1], 30.0, SHORT["unrolled"] - 1)
    assert [len(compare.wanted(run)) for run in runs] == [1, len(SEEDS)]


def test_fits_are_repeated_below_a_limit_of_their_own(tmp_path: Path) -> None:
    runs = [run_of(tmp_path, "udaln"), run_of(tmp_path, "gdd")]
    finish(runs[0], 30.0, SHORT["prior"] - 1)
    finish(runs[1], 30.0, SHORT["prior"] + 1)
    assert SHORT["prior"] + 1 < SHORT["unrolled"]
    assert [len(compare.wanted(run)) for run in runs] == [len(SEEDS), 1]


def script(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(compare, "command", lambda system, used: ["-c", code])


def test_a_script_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, "import sys; print('step 1'); print('jfusion: error: no'); sys.exit(2)")
    run = run_of(tmp_path, "sun")
    assert attempt(run) == "sun-jasper_ridge-0 ended with 2: jfusion: error: no"
    assert run.log.read_text().startswith("step 1")


def test_a_script_ends_with_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Told(subprocess.Popen):
        """The first time it is waited for, SIGTERM comes."""

        def wait(self, timeout: float | None = None) -> int:
            if not children:
                children.append(self)
                raise SystemExit(143)
            return super().wait(timeout)

    children: list[subprocess.Popen] = []
    script(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(compare.subprocess, "Popen", Told)
    with pytest.raises(SystemExit):
        attempt(run_of(tmp_path, "sun"))
    assert children[0].returncode != 0


def test_a_script_that_a_kill_left_at_work_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path, "sun")
    with run.log.open("ab") as log:
        compare.fcntl.flock(log, compare.fcntl.LOCK_EX)
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.3)"], stdout=log)
    finish(run, 30.0, 1.0)
    script(monkeypatch, "raise SystemExit('it must not run')")
    assert attempt(run) == ""
    assert left.wait() == 0


def test_smoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run in its process, tables, page with its stages; then nothing is left to do, nor where its record is."""
    settings = Settings(systems=("sun",), scenes=("jasper_ridge",), out=tmp_path / "out", smoke=True)
    protocol = {"sun": compare.short(100)}
    tables = compare.compare(settings, protocol).read_text()
    assert "python -m experiments.compare --family unrolled --systems sun --scenes jasper_ridge --smoke\n" in tables
    sun = next(line for line in tables.splitlines() if line.startswith("| sun |"))
    assert " | 20 | " in sun
    heads = next(line for line in tables.splitlines() if line.startswith("| system |")).split(" | ")
    assert float(sun.split(" | ")[heads.index("PSNR, exact ↑")].strip("*")) > 10
    page = (settings.out / "unrolled.html").read_text()
    assert "residual after each stage" in page
    assert 'href="sun-jasper_ridge-0/jasper_ridge/sun.tif"' in page

    monkeypatch.setattr(compare, "attempt", lambda run: pytest.fail(f"{run.name} ran again"))
    assert compare.compare(settings, protocol).read_text() == tables

    run, elsewhere = "sun-jasper_ridge-0", tmp_path / "records"
    (elsewhere / run).mkdir(parents=True)
    for name in ("experiment.json", "results.json"):
        shutil.copy(settings.out / run / name, elsewhere / run / name)
    assert sun in compare.compare(dataclasses.replace(settings, out=elsewhere), protocol).read_text().splitlines()
    assert 'href="sun-' not in (elsewhere / "unrolled.html").read_text()

    with pytest.raises(InputError, match="another protocol"):
        compare.compare(dataclasses.replace(settings, smoke=False, systems=("tsfn",)))


def test_all_that_failed_is_named_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "work", lambda first, publish: ["tsfn ended with 1: no memory"])
    settings = Settings(systems=("tsfn",), scenes=("jasper_ridge",), out=tmp_path, smoke=True)
    with pytest.raises(RunError, match="tsfn ended with 1"):
        compare.compare(settings)
    assert (tmp_path / "unrolled.html").exists()
