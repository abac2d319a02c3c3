"""One way to say how far a long work is: a function ``progress(done, total, values)`` that the work calls."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called with the steps done, the steps in all (0 where that is not known) and named figures such as the loss."""


def silent(done: int, total: int, values: Mapping[str, float]) -> None:
    """Says nothing."""


def _figures(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def _lines(description: str, interval: float = 60.0) -> Progress:
    last = time.monotonic()

    def report(done: int, total: int, values: Mapping[str, float]) -> None:
        nonlocal last
        if time.monotonic() - last >= interval:
            last = time.monotonic()
            print(f"{description}: {done}/{total or '?'}  {_figures(values)}", file=sys.stderr)

    return report


@contextmanager
def bar(description: str, quiet: bool = False) -> Iterator[Progress]:
    """A progress bar on standard error; a line a minute where that is not a terminal; nothing when ``quiet``.

    The bar shows steps, time left, the last value of every figure, and the steps a second.
    """
    if quiet:
        yield silent
    elif not sys.stderr.isatty():
        yield _lines(description)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        with RichProgress(*columns, console=Console(stderr=True), transient=True) as rich:
            task = rich.add_task(description, total=None, figures="")
            shown: dict[str, float] = {}

            def report(done: int, total: int, values: Mapping[str, float]) -> None:
                shown.update(values)
                speed = rich.tasks[0].speed
                rate = f"  {speed:.3g}/s" if speed else ""
                rich.update(task, completed=done, total=total or None, figures=f"{_figures(shown)}{rate}")

            yield report


def counted(done: int, planned: int) -> str:
    """Steps in words, with those that were planned where they are more."""
    return f"{done:,} of {planned:,} steps" if done < planned else f"{done:,} step{'s' * (done != 1)}"
