"""Output files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jfusion.errors import InputError, RunError


def check_output(path: Path, overwrite: bool = False) -> None:
    """Raises InputError unless a file can be written at ``path``: before any long work starts."""
    if path.is_dir():
        raise InputError(f"the output {path} is a folder; name a file in it.")
    if path.exists() and not overwrite:
        raise InputError(f"the output {path} exists already; choose another name or say --overwrite.")
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"the folder {folder} of the output does not exist; make it first.")
    _check_writable(folder, f".{path.name}.")


def check_apart(output: Path, *others: Path) -> None:
    """Raises InputError where an output would take the place of another file, however either is spelled or linked."""
    for other in others:
        same = output.samefile(other) if output.exists() and other.exists() else output.resolve() == other.resolve()
        if same:
            raise InputError(f"the output {output} would replace {other}; choose another name.")


def check_folder(folder: Path) -> None:
    """Raises InputError unless files can be written into ``folder``, which may still have to be made."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.exists(path))
    if not there.is_dir():
        raise InputError(f"the output {folder} must be a folder, but {there} is a file; choose another name.")
    _check_writable(there, ".probe.")


def make_folder(folder: Path) -> None:
    """Makes a folder that is not there; raises InputError as `check_folder` does."""
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)


def _check_writable(folder: Path, prefix: str) -> None:
    try:
        handle, probe = tempfile.mkstemp(dir=folder, prefix=prefix)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be written to ({os.strerror(error.errno or 0)}).") from error
    os.close(handle)
    os.unlink(probe)


@contextmanager
def replaced(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name when the block ends well and is removed when it does not.

    Where ``path`` is a link, the file that it leads to is replaced.

    Raises:
        InputError: the output exists and ``overwrite`` is off, or its folder cannot be written to.
        RunError: no space is left.
    """
    check_output(path, overwrite)
    path = path.resolve() if path.is_symlink() else path
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"no space is left to write {path}; free some or choose another disk.") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
