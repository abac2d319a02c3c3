"""The step down of resizing networks lies where the interpolation puts its pixels."""

import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.errors import InputError
from jfusion.layers.resample import sample
from jfusion.operators import Grid, upsample

GRIDS = [Grid.nested(2), Grid.nested(3), Grid(4, (1.0, 2.25)), Grid(2, (1.0, 0.0)), Grid(1, (0.0, 0.0))]


def ramps(height: int, width: int, top: float = 0.0, left: float = 0.0, step: float = 1.0) -> jnp.ndarray:
    rows, columns = top + step * jnp.arange(height), left + step * jnp.arange(width)
    return jnp.stack(jnp.broadcast_arrays(rows[:, None], columns), -1)


@pytest.mark.parametrize("method", ["bilinear", "cubic"])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_pixels_are_those_at_the_centres(grid: Grid, method) -> None:
    ratio = grid.ratio
    image = ramps(5 * ratio, 6 * ratio)
    expected = ramps(5, 6, *grid.centre, ratio)
    inner = np.s_[1:-1, 1:-1]
    np.testing.assert_allclose(sample(image, grid, method)[inner], expected[inner], atol=1e-4)
    np.testing.assert_allclose(sample(upsample(expected, grid, method), grid, method)[2:-2, 2:-2], expected[2:-2, 2:-2])


def test_half_a_pixel_is_keys_kernel() -> None:
    peak = jnp.zeros((2, 12, 2, 1)).at[0, 6].set(1.0)
    np.testing.assert_allclose(sample(peak, Grid(2, (0.5, 0)))[0, :, 0, 0] * 16, [0, 0, -1, 9, 0, 0])


def test_half_precision_stays() -> None:
    assert sample(jnp.zeros((4, 4, 1), jnp.bfloat16), Grid.nested(2)).dtype == jnp.bfloat16


def test_sizes_are_multiples_of_the_ratio() -> None:
    with pytest.raises(InputError, match="multiples of the ratio 2"):
        sample(jnp.zeros((3, 4, 1)), Grid.nested(2))
