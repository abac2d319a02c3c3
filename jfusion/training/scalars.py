"""Figures of a run by step: one line of JSON each, and the same as events for TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from jfusion.errors import RunError
from jfusion.files import replaced
from jfusion.training import events

LINES, EVENTS = "scalars.jsonl", "events.out.tfevents.jfusion"


def read(folder: Path) -> list[dict[str, float]]:
    """All figures of a run, in order of their step; a line that was cut off at its end does not count."""
    rows = []
    path = folder / LINES
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _line(row: Mapping[str, float]) -> bytes:
    return f"{json.dumps(row)}\n".encode()


def _event(row: Mapping[str, float]) -> bytes:
    return events.event(row["time"], int(row["step"]), {n: v for n, v in row.items() if n not in ("step", "time")})


class Scalars:
    """Writes the figures of a run into its folder; to be closed.

    Args:
        folder: of the run.
        after: the step that the run goes on from; figures of later steps, of a past that was lost, are removed.

    Raises:
        RunError: no space is left.
    """

    def __init__(self, folder: Path, after: int) -> None:
        kept = [row for row in read(folder) if row["step"] <= after]
        start = kept[0]["time"] if kept else time.time()
        with replaced(folder / LINES) as lines, replaced(folder / EVENTS) as file:
            lines.write_bytes(b"".join(map(_line, kept)))
            file.write_bytes(events.header(start) + b"".join(map(_event, kept)))
        # without a buffer: what is written survives a kill, and nothing is left to fail at the end
        self._lines, self._events = ((folder / name).open("ab", buffering=0) for name in (LINES, EVENTS))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the figures of a step, and the time.

        Raises:
            RunError: they cannot be written.
        """
        row = {"step": step, **values, "time": round(time.time(), 3)}
        try:
            self._lines.write(_line(row))
            self._events.write(_event(row))
        except OSError as error:
            raise RunError(
                f"the figures of step {step} could not be written to {self._lines.name} ({error.strerror}); free some "
                "space and resume."
            ) from error

    def close(self) -> None:
        """Closes the files."""
        self._lines.close()
        self._events.close()
