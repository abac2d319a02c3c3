"""The part of a scene that stands for all of it."""

import numpy as np
import pytest

from jfusion.data.scene import Scene
from jfusion.errors import InputError
from jfusion.inference.fuse import InMemory, Sources, sample


def sources(mask: np.ndarray) -> Sources:
    """A pair of ratio 2 whose low-resolution image is valid where ``mask`` is True."""
    lr = Scene(np.ones((*mask.shape, 4), np.float32), name="ms", mask=mask)
    guide = Scene(np.ones((2 * mask.shape[0], 2 * mask.shape[1], 1), np.float32), name="pan")
    return Sources(InMemory(lr), InMemory(guide))


def test_the_centre_stands_for_a_scene_without_gaps() -> None:
    assert sample(sources(np.ones((9, 12), bool)), 6) == (slice(3, 6), slice(4, 7))
    assert sample(sources(np.ones((9, 2), bool)), 6) == (slice(3, 6), slice(0, 2))


def test_another_part_does_where_the_centre_is_nodata() -> None:
    mask = np.zeros((9, 12), bool)
    mask[5:, :4] = True
    assert sample(sources(mask), 6) == (slice(6, 9), slice(0, 3))
    hidden = np.zeros((30, 40), bool)
    hidden[10:14, 10:14] = True
    assert sample(sources(hidden), 6) == (slice(9, 12), slice(9, 12))
    with pytest.raises(InputError, match="ms and its guide have no valid pixel in common"):
        sample(sources(np.zeros((9, 12), bool)), 6)
