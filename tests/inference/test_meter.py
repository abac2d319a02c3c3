"""What a piece of work is said to have taken."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jfusion.inference.meter import measured, used_mib


def test_memory_on_a_cpu_is_what_the_process_holds() -> None:
    with measured() as meter:
        block = np.ones(64 * 2**17)
    assert meter.seconds > 0
    assert meter.peak_memory_mib is not None
    assert meter.peak_memory_mib > 0.9 * block.nbytes / 2**20


def test_memory_is_that_of_devices_that_count_it(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = [SimpleNamespace(memory_stats=lambda mib=mib: {"bytes_in_use": mib * 2**20}) for mib in (3, 4)]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert used_mib() == 7
