"""Joins finished runs of experiment scripts into one table in Markdown.

    python -m experiments.gather runs/pannet runs/fusionnet --out docs/results/pansharpening.md

Runs are put together where they judged the same scene under the same protocol; what classical systems did there is
taken from the first run.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.runner import SHOWN, Experiment, means
from jfusion.errors import InputError
from jfusion.files import replaced
from jfusion.report.results import Row, display, merit, parameters_text, places, read_results


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished run: its mean rows, and ``experiment.json``."""

    rows: list[Row]
    record: dict[str, Any]

    @property
    def command(self) -> str:
        """The command that repeats it."""
        script = importlib.import_module(f"experiments.{self.record['system']}")
        used = self.record["experiment"]
        default = script.EXPERIMENT if used["data"] == script.EXPERIMENT.data else script.PAPER
        usual = json.loads(json.dumps(dataclasses.asdict(default), default=str))
        changed = [
            f"--{field.name}" if used[field.name] is True else f"--{field.name} {used[field.name]}"
            for field in dataclasses.fields(Experiment)
            if field.name != "out" and used.get(field.name) != usual[field.name]
        ]
        return " ".join([f"python -m experiments.{self.record['system']}", *changed])


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


def rows_of(runs: Sequence[Finished]) -> list[Row]:
    """One row a system, the trivial baseline first and then by merit.

    Raises:
        InputError: the runs were not judged alike.
    """
    rows: dict[str, Row] = {}
    for run in runs:
        first = run.rows[0]
        if (first.scene, first.protocol) != (runs[0].rows[0].scene, runs[0].rows[0].protocol):
            raise InputError(
                f"{run.record['system']} was judged on {first.scene}, {runs[0].record['system']} on "
                f"{runs[0].rows[0].scene}, or under another protocol; make one table of each."
            )
        for row in run.rows:
            rows.setdefault(row.system, row)
    return sorted(rows.values(), key=lambda row: (not row.is_baseline, -merit(SHOWN[0], row)))


def markdown(runs: Sequence[Finished]) -> str:
    """The page: a table of all systems, and how each of them was run."""
    rows = rows_of(runs)
    values = {name: [row.metrics.get(name, math.nan) for row in rows] for name in SHOWN}
    ranks = {name: places(name, values[name]) for name in SHOWN}
    heads = ["system", "family", *(f"{display(n).label} {display(n).arrow}" for n in SHOWN), "parameters", "note"]
    lines = [f"# {rows[0].scene}, {rows[0].task.replace('_', ' ')}", "", _line(heads)]
    lines.append(_line(["---", "---", *["---:"] * (len(SHOWN) + 1), "---"]))
    for k, row in enumerate(rows):
        cells = [display(name).text(values[name][k]) for name in SHOWN]
        bold = [f"**{cell}**" if ranks[name][k] == 1 else cell for name, cell in zip(SHOWN, cells, strict=True)]
        lines.append(_line([row.system, row.family, *bold, parameters_text(row.parameters), row.note]))
    used = {json.dumps(run.record["environment"], sort_keys=True): run.record["environment"] for run in runs}
    lines += ["", "Judged: " + _told(rows[0].protocol) + ".", "", "```"]
    lines += [run.command for run in runs] + ["```", ""]
    lines += [f"{_told(environment)}." for environment in used.values()]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())


def main(runs: Sequence[Path], out: Path) -> None:
    """Writes the table of ``runs`` to ``out``, and prints where."""
    text = markdown([read(folder) for folder in runs])
    out.parent.mkdir(parents=True, exist_ok=True)
    with replaced(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(out)


if __name__ == "__main__":
    import tyro

    from jfusion.cli import answered

    @dataclasses.dataclass(frozen=True)
    class Arguments:
        """Which runs to join, and the file to write."""

        runs: tyro.conf.Positional[tuple[Path, ...]]
        out: Path

    arguments = tyro.cli(Arguments, prog="python -m experiments.gather")
    sys.exit(answered(lambda: main(arguments.runs, arguments.out)))
