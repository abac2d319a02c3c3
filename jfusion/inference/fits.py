"""The fit of a system to a pair, in memory or in a folder from which it goes on after a kill."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from jfusion.catalogue import Fit, Fitted, System
from jfusion.errors import InputError
from jfusion.operators import Observation, ObservationModel
from jfusion.progress import Progress, silent
from jfusion.training.folder import Run, code_of, open_run
from jfusion.training.loop import name_of

SECONDS = 10.0
"""Of a fit that a kill may lose."""

LEAST = 1e-3
"""Seconds that are left of a budget that is used up: the fit then ends after its next step."""


def _split(state: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plain values and the pytrees of arrays of a fit's state, by attribute."""
    values = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    plain = {name: value for name, value in values.items() if isinstance(value, int | float | list)}
    return plain, {name: value for name, value in values.items() if name not in plain}


@dataclasses.dataclass
class Course:
    """How a fit went on; its `__call__` is the progress of the fit.

    Attributes:
        progress: also called.
        planned: steps that the fit was to have before a budget or its own stopping shortened it; 0 where it has not
            begun.
        done: steps until now.
        total: steps that the fit is to have.
        figures: of the last step.
    """

    progress: Progress
    planned: int = 0
    done: int = 0
    total: int = 0
    figures: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __call__(self, done: int, total: int, values: Mapping[str, float]) -> None:
        self.planned, self.done, self.total, self.figures = self.planned or total, done, total, values
        self.progress(done, total, values)

    @property
    def share(self) -> float:
        """Of the planned steps, those that were done."""
        return self.done / self.planned if self.planned else 1.0


class Keeper:
    """What a fit is given so that it goes on where its folder says; see `kept`.

    Attributes:
        run: the open folder.
        step: that the fit goes on from, 0 where it is new.
        course: of the fit.
    """

    def __init__(self, run: Run, step: int, record: Mapping[str, Any], course: Course) -> None:
        self.run, self.step, self.course, self._record = run, step, course, record
        self._spent: float = record.get("seconds", 0.0)
        self._began, self._saved = time.monotonic(), time.monotonic()

    def left(self, budget: float | None) -> float | None:
        """What earlier sittings have left of a budget of seconds."""
        return None if budget is None else max(budget - self._spent, LEAST)

    def restore(self, begin: Callable[[int], Any]) -> Any:
        """The state that the fit goes on from, None where it is new; see `jfusion.catalogue.Fitter`."""
        if not self.step:
            return None
        plain = self._record["state"]
        fresh = begin(plain["stage"])
        saved = self.run.checkpoints.state(self.step, _split(fresh)[1])
        return dataclasses.replace(fresh, **plain, **saved)

    def save(self, state: Any) -> None:
        """Keeps the state, whenever `SECONDS` have gone by and at the end of the fit, and obeys SIGTERM."""
        now = time.monotonic()
        due = now - self._saved >= SECONDS or self.course.done == self.course.total
        if due:
            self._saved = now
        plain, arrays = _split(state)
        record = {"state": plain, "seconds": self._spent + now - self._began, "planned": self.course.planned}
        self.run.after(self.course.done, arrays, self.course.figures if due else {}, record, save=due)


@contextmanager
def kept(
    folder: Path, configuration: Mapping[str, Any], code: str, resume: bool = True, progress: Progress = silent
) -> Iterator[Keeper]:
    """A fit's folder, see `jfusion.training.folder`, while the fit runs.

    Args:
        folder: made where it is not there.
        configuration: plain values; only a fit with the same is gone on with.
        code: see `jfusion.training.folder.code_of`.
        resume: whether a fit in the folder is gone on with; otherwise there must be none.
        progress: what the keeper's course also calls.

    Raises:
        InputError: the folder holds a fit that is not to be resumed, or one of other settings.
        RunError: no checkpoint is sound, or one cannot be written.
        SystemExit: SIGTERM has come; with code 143, when the state is on the disk.
    """
    with open_run(folder, configuration, code) as run:
        step, record = run.newest(resume)
        with run.writing(step):
            yield Keeper(run, step, record, Course(progress, record.get("planned", 0), step))
        run.checkpoints.wait()


def check_fitted(system: System) -> Fitted:
    """The system's method; raises InputError unless it is fitted to each pair."""
    if not isinstance(system.method, Fitted):
        raise InputError(
            f"{system.name} is of the family {system.family} and not fitted to a pair, from whose fits an ensemble "
            "could be made; `jfusion list --family prior` shows systems that are."
        )
    return system.method


def fit(
    system: System,
    observation: Observation,
    model: ObservationModel,
    key: Array,
    *,
    effort: float = 1.0,
    budget: float | None = None,
    progress: Progress = silent,
    sizes: Mapping[str, Any] | None = None,
    valid: Mapping[str, np.ndarray] | None = None,
    folder: Path | None = None,
    resume: bool = True,
) -> tuple[Fit, Course]:
    """Fits a system to a pair; with a folder, a fit that was stopped goes on and ends as if it never had been; with a
    budget of seconds, after other numbers of steps.

    Args:
        system: a row of the catalogue whose method is `Fitted`.
        observation, model: of the pair.
        key: random key, or ``(members,)`` keys of an ensemble.
        effort, budget, sizes, valid: see `jfusion.catalogue.Fitter`; the budget is that of all sittings together.
        progress: called while it fits.
        folder, resume: see `kept`.

    Returns:
        The fit, and how it went.

    Raises:
        InputError: the system is not fitted, the pair does not suit it, or see `kept`.
        RunError: the loss is not finite, or see `kept`.
    """
    method = check_fitted(system)
    arguments = {"key": key, "effort": effort, "valid": valid, **(sizes or {})}
    pair = model.linear(observation)
    if folder is None:
        course = Course(progress)
        return _with_offset(method.fit(*pair, budget=budget, progress=course, **arguments), model), course
    settings = {
        "system": system.name, "sizes": sizes or {}, "effort": effort, "budget": budget,
        "seed": name_of(jax.random.key_data(key)),
        "pair": name_of((dict(observation), model, valid)),
    }  # fmt: skip
    with kept(folder, settings, code_of(method.fit, method.generator), resume, progress) as keeper:
        done = method.fit(
            *pair, budget=keeper.left(budget), progress=keeper.course, restore=keeper.restore, save=keeper.save,
            **arguments,
        )  # fmt: skip
        return _with_offset(done, model), keeper.course


def _with_offset(done: Fit, model: ObservationModel) -> Fit:
    """A fit to the pair less what the sensors add, as one to the pair."""
    return dataclasses.replace(done, model=done.model.replace(offset=model.offset))
