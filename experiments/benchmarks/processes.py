"""Work in processes of its own, timed in turns.

Each rival lives alone in its process and sleeps on a queue while the others are timed: the thread pools of two
libraries in one process would get into each other's way (OpenMP's threads spin for a while after each parallel loop),
and forbidding the one to spin would slow it down by itself. Work is named "module.function", of this folder, so that
the process that measures imports neither library and its memory does not count as theirs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import get_context
from typing import Any, Protocol

from jfusion.errors import RunError
from jfusion.inference.meter import measured, resident_mib
from jfusion.process import use_all_cores

LONG_ENOUGH = 0.3
"""Seconds of one turn; shorter work is done so often in a row, and the mean taken."""

STEPS = 3
"""Calls while memory is measured."""

_work: Callable[[], object]
"""What a rival's process is there for."""


class Timed(Protocol):
    """What can take part in a `race`."""

    def wait(self) -> None:
        """Returns when it is prepared."""
        ...

    def seconds(self) -> float:
        """Of one turn."""
        ...


# In the process of the work ------------------------------------------------------------------------------------------


def _function(name: str) -> Callable[..., Any]:
    module, function = name.split(".")
    if module == "jax_side":
        use_all_cores()
    found: Callable[..., Any] = getattr(import_module(f"{__package__}.{module}"), function)
    return found


def _call(name: str, *arguments: Any) -> Any:
    """What the function returns; an error comes as one sentence, since others may not survive the way back."""
    try:
        return _function(name)(*arguments)
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise RunError(f"{name} failed: {type(error).__name__}: {first}") from None


def _prepare(name: str, *arguments: Any) -> None:
    global _work
    _work = _call(name, *arguments)
    _call("processes.seconds", 1)


def seconds(times: int) -> float:
    """Mean of so many calls of the work in a row."""
    start = time.perf_counter()
    for _ in range(times):
        _work()
    return (time.perf_counter() - start) / times


def peak(name: str, *arguments: Any) -> tuple[float, float | None]:
    """Seconds until work is prepared and done once, and the peak of memory in MiB of this and a few calls more.

    Memory is what is resident beyond that of the process after its imports.
    """
    make = _function(name)
    with measured(resident_mib) as meter:
        start = time.perf_counter()
        work = make(*arguments)
        work()
        first = time.perf_counter() - start
        for _ in range(STEPS):
            work()
    return first, meter.peak_memory_mib


# In the process that measures -----------------------------------------------------------------------------------------


def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def _result(name: str, future: Future[Any]) -> Any:
    try:
        return future.result()
    except BrokenProcessPool:
        raise RunError(f"the process of {name} died; is there enough memory?") from None


def alone(name: str, *arguments: Any) -> Any:
    """What a function returns in a new process.

    Raises:
        RunError: it failed, or its process died.
    """
    with _process() as process:
        return _result(name, process.submit(_call, name, *arguments))


class Rival:
    """Work in its own process, which prepares it at once.

    Args:
        name: of a function that returns the work.
        arguments: of the function.
    """

    def __init__(self, name: str, *arguments: Any) -> None:
        self.name, self.process, self.times = name, _process(), 0
        self.prepared = self.process.submit(_prepare, name, *arguments)

    def wait(self) -> None:
        """Returns when the work is prepared and warm.

        Raises:
            RunError: it failed, or its process died.
        """
        _result(self.name, self.prepared)

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return _result(self.name, self.process.submit(function, *arguments))

    def seconds(self) -> float:
        """Of the work, in one turn."""
        if not self.times:
            self.times = max(1, math.ceil(LONG_ENOUGH / self._ask(seconds, 1)))
        return float(self._ask(seconds, self.times))

    def close(self) -> None:
        """Ends the process."""
        self.process.shutdown()


@contextmanager
def rival(name: str, *arguments: Any) -> Iterator[Rival]:
    """A `Rival` whose process ends with the block."""
    made = Rival(name, *arguments)
    try:
        yield made
    finally:
        made.close()


def race(rivals: Mapping[str, Timed], rounds: int) -> dict[str, list[float]]:
    """Seconds of each rival in each round; in a round each has one turn. None begins before all are prepared."""
    for rival in rivals.values():
        rival.wait()
    turns = [{name: rival.seconds() for name, rival in rivals.items()} for _ in range(rounds)]
    return {name: [turn[name] for turn in turns] for name in rivals}
