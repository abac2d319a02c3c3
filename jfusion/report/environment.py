"""Where a result was made."""

from __future__ import annotations

import platform
from importlib.metadata import version

import jax

from jfusion import __version__


def environment() -> dict[str, str]:
    """Versions and device, for the foot of a page and beside saved settings."""
    return {
        "jfusion": __version__,
        "jax": jax.__version__,
        "flax": version("flax"),
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
    }
