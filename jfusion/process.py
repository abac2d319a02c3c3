"""What a program needs around its work: cores, kept compilations, signals, and errors that become one sentence."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from jfusion.errors import JFusionError, RunError

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

CACHE_BYTES = 2**30
"""Of compiled programs that are kept; the least recently used ones go first."""

WORTH_KEEPING = 0.1
"""Seconds of compilation from which a program is kept."""


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_all_cores(devices: int | None = None) -> None:
    """One jax device a core, or ``devices``, which halves training time on CPU; before jax computes anything."""
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    import jax

    with contextlib.suppress(RuntimeError):  # jax has begun to compute
        jax.config.update("jax_num_cpu_devices", devices or cores())


def keep_programs() -> None:
    """Compiled programs stay in the user's cache for the next command; before jax computes anything.

    JAX_COMPILATION_CACHE_DIR names another folder, or none where it is empty. A cache that cannot be read or written
    costs time alone.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax
    from platformdirs import user_cache_path

    jax.config.update("jax_compilation_cache_dir", str(user_cache_path("jfusion", appauthor=False) / "programs"))
    jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING)
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


def _terminated(signum: int, frame: Any) -> None:
    """Ends the work; once more where the signal came within the garbage collector, which drops what is raised."""

    def dropped(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, SystemExit):
            threading.Timer(0.1, signal.pthread_kill, [threading.main_thread().ident, signum]).start()

    sys.unraisablehook = dropped
    raise SystemExit(128 + signum)


def _leave(code: int) -> NoReturn:
    """Ends the process at once: jax's threads may still compute, and the interpreter's own exit would crash on them."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def answered(work: Callable[[], None], verbose: bool | None = None) -> int:
    """Does some work of the command line and returns its exit code; errors become one sentence on standard error.

    Args:
        work: that is done.
        verbose: whether errors also show where they arose; None, of programs that do not ask, for unexpected ones.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, _terminated)
    try:
        work()
        sys.stdout.flush()
        return DONE
    except KeyboardInterrupt:
        print("jfusion: interrupted", file=sys.stderr)
        _leave(INTERRUPTED)
    except SystemExit as stop:
        _leave(int(stop.code or DONE))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if verbose or (verbose is None and not isinstance(error, JFusionError)):
            traceback.print_exc()
        if isinstance(error, JFusionError):
            print(f"jfusion: error: {error}", file=sys.stderr)
            return FAILED if isinstance(error, RunError) else BAD_INPUT
        hint = " (-v shows where)" if verbose is False else ""
        print(f"jfusion: unexpected {type(error).__name__}: {' '.join(str(error).split())}{hint}", file=sys.stderr)
        return FAILED
