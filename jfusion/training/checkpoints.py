"""Checkpoints of a run: written by Orbax in the background, whole or not at all, and checked before they are read.

Each checkpoint is a folder that gets its name, the step, when all is written and the digest of every file is noted in
it; one flipped bit is noticed before anything is parsed, and nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jfusion.errors import InputError, RunError

Tree = Any
Record = dict[str, Any]
"""Plain values for JSON."""

KEEP = 2
"""The last checkpoints that are kept, beside the best: the one before the last stands in if that is damaged."""

STATE, RECORD, DIGESTS = "state", "record.json", "digests.json"
"""What a checkpoint consists of."""

UNFINISHED, DELETED = "unfinished", "deleted"
"""Begin the names of folders that are no checkpoints yet, or no longer."""


def _arrays(tree: Tree) -> dict[str, np.ndarray]:
    """Copies of all arrays on the host by their path; random keys as their numbers."""

    def plain(x: Any) -> np.ndarray:
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        return np.array(x)  # a copy: the step after this one reuses the memory

    return {_name(path): plain(x) for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _nested(arrays: dict[str, np.ndarray]) -> Tree:
    tree: Tree = {}
    for name, array in arrays.items():
        *folders, last = name.split("/")
        inside = tree
        for folder in folders:
            inside = inside.setdefault(folder, {})
        inside[last] = array
    return tree


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint by its path."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != DIGESTS:
            with path.open("rb") as file:
                digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def damage_in(folder: Path) -> str:
    """What is not as it was written in the folder of a checkpoint, empty where it is sound."""
    try:
        noted = json.loads((folder / DIGESTS).read_text())
        found = _digests(folder)
        wrong = sorted(name for name in noted.keys() | found.keys() if noted.get(name) != found.get(name))
    except (OSError, ValueError, AttributeError) as error:
        return f"{DIGESTS}: {type(error).__name__}"
    return f"{len(wrong)} files differ, such as {wrong[0]}" if wrong else ""


class Checkpoints:
    """The checkpoints in one folder; to be closed.

    Attributes:
        folder: of the checkpoints, made if it is not there.
        best: the step whose checkpoint is kept however old it gets, 0 for none.
    """

    def __init__(self, folder: Path) -> None:
        import orbax.checkpoint as ocp

        self.folder, self.best = folder.absolute(), 0
        self._ocp = ocp
        self._alone = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(),
            active_processes={jax.process_index()},
            barrier_sync_key_prefix=f"process{jax.process_index()}",
        )
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._written: Future[None] | None = None
        self._step = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the run's folder {folder} cannot be made ({error.strerror}); choose another.") from error
        if jax.process_index() == 0:
            for left in folder.iterdir():
                if left.name.startswith((UNFINISHED, DELETED)):
                    shutil.rmtree(left)

    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint, sound or not, in order."""
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())

    def save(self, step: int, state: Tree, record: Record) -> None:
        """Begins to write the checkpoint of a step, in the first process, when the one before is finished.

        Raises:
            RunError: the one before it could not be written.
        """
        self.wait()
        if jax.process_index() == 0:
            self._step = step
            self._written = self._thread.submit(self._write, step, _nested(_arrays(state)), record, self.best)

    def _write(self, step: int, arrays: Tree, record: Record, best: int) -> None:
        """Writes a checkpoint, notes its digests, gives it its name and deletes what is not kept; in the background."""
        self._delete([old for old in self.steps() if old >= step])  # of a past that was given up
        folder = self.folder / f"{UNFINISHED}-{step}"
        try:
            folder.mkdir()
            with self._checkpointer() as writer:
                writer.save(folder / STATE, args=self._ocp.args.StandardSave(arrays))
            (folder / RECORD).write_text(json.dumps(record))
            with (folder / DIGESTS).open("w") as file:
                json.dump(_digests(folder), file)
                file.flush()
                os.fsync(file.fileno())
            folder.rename(self.folder / str(step))
            self._delete([old for old in self.steps()[: -KEEP - 1] if old != best])
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _checkpointer(self) -> Any:
        handler = self._ocp.StandardCheckpointHandler(multiprocessing_options=self._alone)
        return self._ocp.Checkpointer(handler, multiprocessing_options=self._alone)

    def _delete(self, steps: list[int]) -> None:
        for step in steps:
            path = self.folder / str(step)
            shutil.rmtree(path.rename(path.with_name(f"{DELETED}-{step}")))

    def check(self) -> None:
        """Raises RunError if writing in the background has failed."""
        if self._written is not None and self._written.done():
            self.wait()

    def wait(self) -> None:
        """Returns when the last save is on the disk.

        Raises:
            RunError: it could not be written.
        """
        written, self._written = self._written, None
        if written is None or (error := written.exception()) is None:
            return
        sound = self.steps()
        left = f"that of step {sound[-1]} is intact" if sound else "there is none before it"
        raise RunError(
            f"the checkpoint of step {self._step} could not be written to {self.folder} "
            f"({' '.join(str(error).split())[:300]}); {left}; free some space and resume."
        ) from error

    def close(self) -> None:
        """Ends the background writing."""
        self._thread.shutdown()

    def damage(self, step: int) -> str:
        """What is not as it was written in a checkpoint, empty where it is sound."""
        return damage_in(self.folder / str(step))

    def newest(self) -> int:
        """The step of the newest sound checkpoint, 0 where there is none; a warning names each damaged one.

        Raises:
            RunError: there are checkpoints, and all are damaged.
        """
        steps = self.steps()
        while steps:
            if not (damage := self.damage(steps[-1])):
                return steps[-1]
            step = steps.pop()
            use = f"that of step {steps[-1]} is used" if steps else "there is none before it"
            warnings.warn(
                f"the checkpoint of step {step} in {self.folder} is damaged ({damage}); {use}.",
                RuntimeWarning,
                stacklevel=2,
            )
        if self.steps():
            raise RunError(f"all checkpoints in {self.folder} are damaged; start anew in another folder.")
        return 0

    def record(self, step: int) -> Record:
        """What was saved with a sound checkpoint beside the state."""
        return json.loads((self.folder / str(step) / RECORD).read_text())

    def state(self, step: int, template: Tree) -> Tree:
        """The state of a sound checkpoint, which must have the structure and shapes of ``template``."""
        with self._checkpointer() as reader:
            args = self._ocp.args.StandardRestore(_nested(_arrays(template)))
            nested = reader.restore(self.folder / str(step) / STATE, args=args)
        arrays, (like, structure) = _arrays(nested), jax.tree_util.tree_flatten_with_path(template)

        def typed(path: tuple[Any, ...], x: Any) -> Any:
            array = arrays[_name(path)]
            if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(x))
            return array

        return jax.tree.unflatten(structure, [typed(path, x) for path, x in like])
