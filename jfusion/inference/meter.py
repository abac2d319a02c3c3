"""Seconds and memory of a piece of work."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERVAL = 0.01


@dataclasses.dataclass
class Meter:
    """What `measured` fills in: wall-clock seconds, and the peak of memory above the start's in MiB."""

    seconds: float = 0.0
    peak_memory_mib: float | None = None


def resident_mib() -> float | None:
    """Resident memory of this process in MiB; None where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return None


def used_mib() -> float | None:
    """Memory of the local devices that is in use, in MiB, where they count it (GPU, TPU), else `resident_mib`."""
    import jax

    counts = [device.memory_stats() for device in jax.local_devices()]
    if all(counts):
        return sum(count["bytes_in_use"] for count in counts) / 2**20
    return resident_mib()


@contextmanager
def measured(memory: Callable[[], float | None] = used_mib) -> Iterator[Meter]:
    """Measures the block: memory is sampled every 10 ms, so shorter peaks can be missed."""
    meter, start, done = Meter(), memory(), threading.Event()
    peak = start or 0.0

    def watch() -> None:
        nonlocal peak
        while not done.wait(INTERVAL):
            peak = max(peak, memory() or 0.0)

    watcher = threading.Thread(target=watch, daemon=True)
    began = time.perf_counter()
    watcher.start()
    try:
        yield meter
    finally:
        done.set()
        watcher.join()
        meter.seconds = time.perf_counter() - began
        if start is not None:
            meter.peak_memory_mib = max(peak, memory() or 0.0) - start
