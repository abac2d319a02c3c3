"""Joins finished runs of experiment scripts into one table in Markdown.

    python -m experiments.gather runs/pannet runs/fusionnet --out docs/results/pansharpening.md

Runs are put together where they judged the same scene under the same protocol; what classical systems did there is
taken from the first run. Runs of one system that differ in their seed alone make one line: mean and standard deviation.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import math
import shlex
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.runner import SHOWN, Cost, Experiment, mean, means
from jfusion.data import scenes
from jfusion.errors import InputError
from jfusion.files import make_folder, replaced
from jfusion.report.compare import PSNR_EXACT, SENSOR_ERRORS
from jfusion.report.results import (
    Row,
    display,
    in_words,
    memory_text,
    merit,
    parameters_text,
    places,
    read_results,
    seconds_text,
)
from jfusion.training.folder import differences, plain

INCIDENTAL = ("seed", "out", "resume")
"""Settings in which runs may differ that stand in one line of a table."""

COLUMNS = (
    "Training seconds are of all sittings together, the others of making the product, with compilation and, where a "
    "system is fitted to the pair, the fit. MiB are the peak of memory on top of the start's, of the training if any."
)
"""What the table's last columns mean."""

EXACT = (
    "PSNR, exact: of the image nearest to the product in which both sensors see what they saw (`exact=True`), with "
    "sensors estimated from the pair where they are not known; a guide of estimated response is left out."
)


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished run: its mean rows, and ``experiment.json``."""

    rows: list[Row]
    record: dict[str, Any]

    @property
    def system(self) -> str:
        """What was trained or fitted."""
        return str(self.record["system"])

    @property
    def row(self) -> Row:
        """Of `system`."""
        return next(row for row in self.rows if row.system == self.system)

    @property
    def used(self) -> dict[str, Any]:
        """The settings, as JSON gives them; those that came after the run are as they are by default."""
        return plain(dataclasses.asdict(Experiment())) | self.record["experiment"]

    @property
    def cost(self) -> Cost | None:
        """Of the training; None where there was none, or before it was noted."""
        noted = self.record.get("training")
        return None if noted is None else Cost(**noted)

    @property
    def seconds(self) -> float:
        """Of the training or, where a system is fitted to the pair, until its product was there."""
        return self.row.seconds if self.cost is None else self.cost.seconds

    @property
    def command(self) -> str:
        """The command that repeats it."""
        return shlex.join(["python", *command(self.system, self.used, leave=("out",))])


def command(system: str, used: Mapping[str, Any], leave: Collection[str] = ()) -> list[str]:
    """Words after ``python`` that run the script of a system with the settings ``used``, as JSON gives them.

    The data are always named, since their default depends on the files that are there. ``leave`` names settings that
    are left out. A system without a script is one of a user's own, whose module is not known here.
    """
    words = [f"experiments.{system}"]
    if importlib.util.find_spec(words[0]) is None:
        words = ["experiments.own", f"MODULE:{system}"]
    script = importlib.import_module(words[0])
    default = script.EXPERIMENT if used["data"] in scenes.names() else script.PAPER
    usual = {**plain(dataclasses.asdict(default)), "data": None}
    known = {name: value for name, value in used.items() if name in usual and name not in leave}
    return ["-m", *words, *options(known, usual)]


def options(used: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    """Words of a command line that ask for what is used and not usual."""
    words = []
    for name, value in used.items():
        if value == usual[name]:
            continue
        if isinstance(value, dict):
            inner = options(value, usual[name])
            words += [word.replace("--", f"--{name}.", 1) if word.startswith("--") else word for word in inner]
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}", *(map(str, value) if isinstance(value, list | tuple) else [str(value)])]
    return words


def read(folder: Path) -> Finished:
    """The run in ``folder``.

    Raises:
        InputError: there is none, or it has not finished.
    """
    path = folder / "experiment.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} must hold a finished run of an experiment script, but: {error}.") from error
    return Finished(means(read_results(folder / "results.json")), record)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line of the table: one system over one run or several.

    Attributes:
        row: of the run, or the mean over the runs; what the columns on training say is not in its note.
        spread: sample standard deviation over the runs by metric, empty where there is one.
        runs: how many, 0 for what was judged beside them.
        cost: of the training, means over the runs and the largest memory; None where there was none.
    """

    row: Row
    spread: dict[str, float] = dataclasses.field(default_factory=dict)
    runs: int = 0
    cost: Cost | None = None

    @staticmethod
    def of(runs: Sequence[Finished]) -> Entry:
        """The line of runs that differ in their seed alone."""
        rows, costs = [run.row for run in runs], [run.cost for run in runs if run.cost is not None]
        row, cost = mean(rows), None
        if costs:
            peaks = [cost.peak_memory_mib for cost in costs if cost.peak_memory_mib is not None]
            cost = Cost(
                round(np.mean([cost.steps for cost in costs])),
                float(np.mean([cost.seconds for cost in costs])),
                max(peaks, default=None),
            )
            told = (part for part in row.note.split("; ") if not part.startswith("trained "))
            row = dataclasses.replace(row, note="; ".join(told))
        values = {name: [row.metrics[name] for row in rows] for name in row.metrics}
        spread = {name: float(np.std(v, ddof=1)) for name, v in values.items()} if len(rows) > 1 else {}
        return Entry(row, spread, len(rows), cost)


def entries(runs: Sequence[Finished], beside: Sequence[Row] = ()) -> list[Entry]:
    """One line a system, the trivial baseline first and then by merit.

    Args:
        runs: of one scene.
        beside: what else was judged there; it goes before what the runs' scripts have judged beside their own system.

    Raises:
        InputError: the runs were not judged alike, or those of one system differ in more than their seed.
    """
    rows = [*beside, *(row for run in runs for row in run.rows)]
    for row in rows:
        if (row.scene, row.protocol) != (rows[0].scene, rows[0].protocol):
            raise InputError(
                f"{row.system} was judged on {row.scene}, {rows[0].system} on {rows[0].scene}, or under another "
                "protocol; make one table of each."
            )
    found: dict[str, Entry] = {}
    for name in dict.fromkeys(run.system for run in runs):
        found[name] = Entry.of(_repeats([run for run in runs if run.system == name]))
    for row in rows:
        found.setdefault(row.system, Entry(row))
    return sorted(found.values(), key=lambda entry: (not entry.row.is_baseline, -merit(SHOWN[0], entry.row)))


def unlike(run: Finished, used: Mapping[str, Any]) -> list[str]:
    """How settings differ from those of a finished run that may stand for them, one sentence part each.

    What is `INCIDENTAL` does not count, nor does a budget that a training ended within. A fit gives each of its stages
    a share of the budget, which may have cut it short all the same.

    Args:
        run: what was done.
        used: settings, as JSON gives them.
    """
    budgets = [settings.get("budget") for settings in (run.used, used)]
    within = run.cost is not None and all(budget is None or run.cost.seconds < budget for budget in budgets)
    left = (*INCIDENTAL, "budget") if within else INCIDENTAL
    was, now = ({name: value for name, value in settings.items() if name not in left} for settings in (run.used, used))
    return differences(was, now)


def _repeats(runs: Sequence[Finished]) -> Sequence[Finished]:
    for other in runs[1:]:
        if changed := unlike(runs[0], other.used):
            raise InputError(f"runs of {runs[0].system} may differ in their seed alone, but: {'; '.join(changed)}.")
    return runs


def section(runs: Sequence[Finished], beside: Sequence[Row] = ()) -> list[str]:
    """Lines of Markdown: a heading, a table of all systems, how they were judged, and how each of them was run.

    Args:
        runs, beside: see `entries`; at least one of both.
    """
    lines_of = entries(runs, beside)
    first, costs = lines_of[0].row, [entry.cost for entry in lines_of]
    among = {name for entry in lines_of for name in entry.row.metrics}
    shown = [*SHOWN, *(name for name in (PSNR_EXACT, *SENSOR_ERRORS) if name in among)]
    heads = ["system", "family", *(f"{display(n).label} {display(n).arrow}" for n in shown), "parameters", "steps"]
    heads += ["training s", "s", "MiB", "note"]
    lines = [f"# {first.scene}, {first.task.replace('_', ' ')}", "", markdown_line(heads)]
    lines.append(markdown_line(["---", "---", *["---:"] * (len(heads) - 3), "---"]))
    columns = [_column(name, lines_of) for name in shown]
    for entry, cost, *cells in zip(lines_of, costs, *columns, strict=True):
        row = entry.row
        training = ["–"] * 2 if cost is None else [f"{cost.steps:,}", seconds_text(cost.seconds)]
        peak = row.peak_memory_mib if cost is None else cost.peak_memory_mib
        took = [*training, seconds_text(row.seconds), memory_text(peak)]
        note = "; ".join(filter(None, [row.note, f"{entry.runs} seeds" if entry.runs > 1 else ""]))
        lines.append(markdown_line([row.system, row.family, *cells, parameters_text(row.parameters), *took, note]))
    lines += ["", f"Judged: {_told(first.protocol)}.", COLUMNS, *([EXACT] if PSNR_EXACT in among else [])]
    if any(entry.spread for entry in lines_of):
        lines.append("± is the standard deviation over runs that differ in their seed; other figures are their means.")
    if runs:
        lines += ["", "```", *_commands(runs), "```"]
    return lines


def _column(name: str, lines: Sequence[Entry]) -> list[str]:
    """Cells of a metric; the best is bold."""
    values = [entry.row.metrics.get(name, math.nan) for entry in lines]
    cells = []
    for entry, value, rank in zip(lines, values, places(name, values), strict=True):
        spread = f" ± {display(name).text(entry.spread[name])}" if name in entry.spread else ""
        cell = display(name).text(value)
        cells.append((f"**{cell}**" if rank == 1 else cell) + spread)
    return cells


def _commands(runs: Sequence[Finished]) -> list[str]:
    """A command a system; its other seeds stand in a comment."""
    lines = []
    for name in dict.fromkeys(run.system for run in runs):
        first, *others = (run for run in runs if run.system == name)
        seeds = ", ".join(str(run.used["seed"]) for run in others)
        lines.append(first.command + (f"  # and --seed {seeds}" if seeds else ""))
    return lines


def environments(runs: Sequence[Finished]) -> list[str]:
    """A sentence for each environment and revision in which some of the runs were made."""
    found = ({**run.record["environment"], "revision": run.record.get("revision") or "unknown"} for run in runs)
    return [f"{told}." for told in dict.fromkeys(map(_told, found))]


def markdown(runs: Sequence[Finished]) -> str:
    """The page: a table of all systems, how each of them was run, and where."""
    return "\n".join([*section(runs), "", *environments(runs)]) + "\n"


def markdown_line(cells: Iterable[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def markdown_table(heads: Sequence[str], lines: Iterable[Iterable[str]]) -> str:
    """A table with these heads, a line a row."""
    return "".join(f"{markdown_line(line)}\n" for line in (heads, ["---"] * len(heads), *lines))


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in in_words(values).items())


def main(runs: Sequence[Path], out: Path) -> None:
    """Writes the table of ``runs`` to ``out``, and prints where."""
    make_folder(out.parent)
    text = markdown([read(folder) for folder in runs])
    with replaced(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(out)


if __name__ == "__main__":
    import tyro

    from jfusion.process import answered

    @dataclasses.dataclass(frozen=True)
    class Arguments:
        """Which runs to join, and the file to write."""

        runs: tyro.conf.Positional[tuple[Path, ...]]
        out: Path

    arguments = tyro.cli(Arguments, prog="python -m experiments.gather")
    sys.exit(answered(lambda: main(arguments.runs, arguments.out)))
