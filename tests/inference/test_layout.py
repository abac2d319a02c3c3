"""The windows that a scene goes through in."""

import numpy as np
import pytest

from jfusion import catalogue
from jfusion.data.scene import Scene
from jfusion.inference.fuse import InMemory, Layout, Sources


@pytest.mark.parametrize(("size", "windows"), [(40, 1), (64, 1), (65, 4)])
def test_windows_that_memory_decides_are_larger_than_their_margins(size: int, windows: int) -> None:
    """Of 230 bands at a ratio of 6, 1 GiB holds 192 pixels a side: no more than the margins, 2 x 16 x 6."""
    lr = np.broadcast_to(np.float32(1), (size, size, 230))
    guide = np.broadcast_to(np.float32(1), (6 * size, 6 * size, 1))
    sources = Sources(InMemory(Scene(lr)), InMemory(Scene(guide)))
    assert Layout.of(catalogue.get("fuse"), sources, None, 1024).windows == windows
