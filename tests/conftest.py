"""Two devices on one CPU, so that data-parallel code is tested as it runs; small pairs that tests share."""

import os
from importlib.metadata import version

os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=2",
        # Tests compile much and compute little: these two halve their time. Later jaxlibs end at the second.
        "--xla_backend_optimization_level=0",
        *(["--xla_cpu_use_fusion_emitters=false"] if version("jaxlib").startswith(("0.8.", "0.9.", "0.10.")) else []),
    ]
).strip()
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["JAX_COMPILATION_CACHE_DIR"] = ""  # nothing is left behind, and nothing found

from collections.abc import Iterator

import jax
import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=15)
settings.load_profile("ci")


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """What a module has compiled goes with it: the programs of all systems together take gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def scene() -> np.ndarray:
    """A scene (48, 48, 12) of four smooth spectra mixed by textured abundances, values within 0 to 1."""
    rng = np.random.default_rng(7)
    bands = np.linspace(0, 1, 12)
    spectra = np.stack(
        [0.2 + 0.15 * k + 0.15 * np.sin(2 * np.pi * (bands * (0.5 + 0.4 * k) + 0.2 * k)) for k in range(4)]
    )
    rows, columns = np.mgrid[:48, :48]
    waves = [
        np.sin(rows * f + columns * g + p) for f, g, p in ((0.9, 0.2, 0), (0.3, 0.7, 1), (0.15, 0.1, 2), (1.7, 1.1, 3))
    ]
    abundances = np.exp(np.stack(waves, -1) + 0.3 * rng.standard_normal((48, 48, 4)))
    abundances /= abundances.sum(-1, keepdims=True)
    return (abundances @ spectra).astype(np.float32)
