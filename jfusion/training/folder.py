"""The folder of a run: what it goes on from, what it leaves behind, and an orderly end when it is told to stop.

It holds `checkpoints`, see the module of that name; `scalars.jsonl`, figures by step; and the same figures for
TensorBoard in `events.out.tfevents.jfusion`; and `lock`, which keeps a second process out.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jfusion.errors import TERMINATED, InputError
from jfusion.training.checkpoints import Checkpoints, Record
from jfusion.training.scalars import Scalars

LOCK = "lock"
"""File in a run's folder that the process at work there has locked."""

PACKAGES = ("jfusion", "jax", "flax", "optax", "orbax-checkpoint", "grain")


def plain(values: Any) -> Any:
    """Values as JSON gives them back."""
    return json.loads(json.dumps(values, default=str))


def _flat(values: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(values, dict) or not values:
        return {name: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{name}.{key}" if name else key)
    return flat


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """What differs between two configurations, one sentence part for each setting."""
    there, now = _flat(dict(stored)), _flat(dict(asked))
    return [
        f"{name} was {there.get(name, 'not set')} and is now {now.get(name, 'not set')}"
        for name in sorted(there.keys() | now.keys())
        if there.get(name, "not set") != now.get(name, "not set")
    ]


def code_of(*functions: Any) -> str:
    """A short name for the source files in which functions and classes are written."""
    content = hashlib.sha256()
    for function in functions:
        module = inspect.getmodule(inspect.unwrap(getattr(function, "func", function)))
        file = getattr(module, "__file__", None)  # a notebook has none
        if file is not None and Path(file).is_file():
            content.update(Path(file).read_bytes())
    return content.hexdigest()[:16]


class Run:
    """An open run folder; see `open_run`.

    Attributes:
        checkpoints: of the run.
        configuration: of the experiment, plain values, saved in every checkpoint.
        code: see `code_of`, saved likewise.
    """

    def __init__(self, folder: Path, configuration: Record, code: str, checkpoints: Checkpoints) -> None:
        self.folder, self.configuration, self.code, self.checkpoints = folder, configuration, code, checkpoints
        self._scalars: Scalars | None = None
        self._told = False

    def resume(self, template: Any, again: bool) -> tuple[int, Any, Record]:
        """Step, state and record to go on from, ``template`` where the run is new; see `newest`."""
        step, record = self.newest(again)
        return step, self.checkpoints.state(step, template) if step else template, record

    def newest(self, again: bool) -> tuple[int, Record]:
        """Step and record of the checkpoint to go on from; step 0 and an empty record where the run is new.

        It is said where other code made it.

        Raises:
            InputError: the folder holds a run that is not to be resumed, or one of another experiment.
            RunError: all checkpoints are damaged.
        """
        if not again and self.checkpoints.steps():
            raise InputError(f"{self.folder} holds a run already; resume it, choose another folder or delete it.")
        step = self.checkpoints.newest()
        if jax.process_count() > 1 and np.ptp(multihost_utils.process_allgather(np.int32(step))):
            raise InputError(
                f"the processes see different runs in {self.folder}; choose a folder that all of them share."
            )
        if not step:
            return 0, {}
        record = self.checkpoints.record(step)
        if changed := differences(record["configuration"], self.configuration):
            raise InputError(
                f"{self.folder} holds a run of other settings: {'; '.join(changed)}. Choose another folder or the "
                "same settings."
            )
        if record.get("code", self.code) != self.code:
            warnings.warn(
                f"the code has changed since {self.folder} was begun, whose step {step} is gone on from all the same; "
                "choose another folder to begin anew.",
                RuntimeWarning,
                stacklevel=3,
            )
        return step, record

    def after(
        self,
        step: int,
        state: Any,
        figures: Mapping[str, float],
        record: Record,
        save: bool,
        failed: Callable[[], int] = lambda: 0,
    ) -> None:
        """What is to be done after a step: figures are noted, the state is saved, and SIGTERM is obeyed.

        Args:
            step: that is done.
            state: what training or a fit goes on from.
            figures: of the step, empty for none.
            record: is saved with the state, and joined by configuration and versions.
            save: whether it is time for it.
            failed: the step at which the state went wrong, 0 for none; asked before it is saved.

        Raises:
            RunError: figures or an earlier checkpoint could not be written.
            SystemExit: with code 143, when the state is on the disk.
        """
        self.checkpoints.check()
        if figures and self._scalars is not None:
            self._scalars.write(step, figures)
        told = self.must_stop(step)
        if (save or told) and not failed():
            versions = {name: version(name) for name in PACKAGES}
            record = {**record, "configuration": self.configuration, "code": self.code, "versions": versions}
            self.checkpoints.save(step, state, record)
        if told:
            self.checkpoints.wait()
            raise SystemExit(TERMINATED)

    def must_stop(self, step: int) -> bool:
        """Whether SIGTERM has come; all processes are told at the same step."""
        if jax.process_count() > 1:
            return bool(multihost_utils.reached_preemption_sync_point(step))
        return self._told

    @contextmanager
    def writing(self, after: int) -> Iterator[None]:
        """While figures are written and SIGTERM waits for the end of a step, or of the work.

        Args:
            after: the step gone on from.

        Raises:
            SystemExit: with code 143, where SIGTERM came too late for `after` to obey it.
        """
        ours = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()

        def tell(number: int, frame: Any) -> None:
            self._told = True

        before = signal.signal(signal.SIGTERM, tell) if ours else None
        try:
            if jax.process_index() != 0:
                yield
            else:
                with closing(Scalars(self.folder, after)) as self._scalars:
                    yield
        finally:
            self._scalars = None
            if ours:
                signal.signal(signal.SIGTERM, before)
        if self._told:
            raise SystemExit(TERMINATED)


@contextmanager
def open_run(folder: Path, configuration: Mapping[str, Any], code: str) -> Iterator[Run]:
    """The run in a folder, new or to be resumed; see `Run`.

    Raises:
        InputError: the folder cannot be made.
    """
    with alone_in(folder), closing(Checkpoints(folder / "checkpoints")) as checkpoints:
        yield Run(folder, plain(configuration), code, checkpoints)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """While no other run writes into a folder, as far as its file system knows locks.

    Raises:
        InputError: one does, or the folder cannot be made.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        fcntl = None  # type: ignore[assignment]
    if fcntl is None or jax.process_index() != 0:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise InputError(f"the run's folder {folder} cannot be made ({error.strerror}); choose another.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another process is at work in {folder}; wait for its end, or choose another folder."
            ) from error
        except OSError:  # some file systems know no locks
            pass
        yield
