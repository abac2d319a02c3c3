"""Interpolation onto the high-resolution grid, and the grid itself."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jfusion.errors import InputError
from jfusion.operators import Grid, ObservationModel, SpectralResponse, relative_residual, upsample
from jfusion.operators.resample import TAPS, phase_weights

METHODS = tuple(TAPS)
# Aiazzi et al., TGRS 40(10), 2002: coefficients of the 23-tap interpolator, centre and the odd lags
ODD_LAGS = 2 * np.array(
    [0.305334091185, -0.072698593239, 0.021809577942, -0.005192756653, 0.000807762146, -0.000060081482]
)


@st.composite
def grids(draw):
    ratio = draw(st.integers(1, 5))
    fraction = st.floats(0, 1)
    return Grid(ratio, (draw(fraction) * ratio - 0.5, draw(fraction) * ratio - 0.5))


@given(grid=grids(), method=st.sampled_from(METHODS))
def test_rows_sum_to_one_everywhere(grid, method):
    _, weights = phase_weights(grid.ratio, grid.centre[0], method)
    assert len(weights) == grid.ratio
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)


@given(grid=grids(), method=st.sampled_from(["bilinear", "cubic", "interp23"]))
def test_ramps_keep_their_place(grid, method):
    size, reach = 16, 7
    rows, columns = (np.arange(size) * grid.ratio + c for c in grid.centre)
    ramp = 2 * rows[:, None] - 3 * columns[None, :]
    y = np.asarray(upsample(jnp.asarray(ramp, jnp.float32)[..., None], grid, method))[..., 0]
    fine = np.arange(size * grid.ratio)
    inside = slice(reach * grid.ratio, -reach * grid.ratio)
    expected = (2 * fine[:, None] - 3 * fine[None, :])[inside, inside]
    np.testing.assert_allclose(y[inside, inside], expected, atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_samples_are_kept_where_pixel_centres_coincide(method):
    grid = Grid(4, (1.0, 2.0))
    x = jnp.asarray(np.random.default_rng(0).random((2, 5, 6, 3)), jnp.float32)
    np.testing.assert_allclose(upsample(x, grid, method)[:, 1::4, 2::4], x, atol=1e-6)


def test_nearest_on_a_nested_grid_repeats_pixels():
    x = jnp.arange(6.0).reshape(2, 3, 1)
    expected = np.repeat(np.repeat(x, 3, 0), 3, 1)
    np.testing.assert_array_equal(upsample(x, Grid.nested(3), "nearest"), expected)


def impulse_response(size, ratio, centre):
    line = jnp.zeros((size, 3, 1)).at[size // 2].set(1)
    return np.asarray(upsample(line, Grid(ratio, (centre, 0.0)), "interp23"))[:, 0, 0]


def test_23_taps_are_the_published_ones():
    impulse = impulse_response(32, 2, 0.0)
    taps = impulse[32 - 11 : 32 + 12]
    assert taps[11] == pytest.approx(1)
    np.testing.assert_allclose(taps[12::2], ODD_LAGS, atol=1e-7)
    np.testing.assert_allclose(taps[10::-2], ODD_LAGS, atol=1e-7)
    np.testing.assert_allclose(np.delete(taps[1::2], 5), 0, atol=1e-7)
    assert np.count_nonzero(np.abs(impulse) > 1e-6) == 13


def test_23_taps_at_ratio_4_peak_two_pixels_after_the_block_begins():
    # published toolboxes insert zeros at the second and then the first position: the peak lies at 4 i + 2
    for centre, peak in ((2.0, 2), (0.0, 0), (3.0, 3)):
        impulse = impulse_response(16, 4, centre)
        assert impulse.argmax() == 32 + peak
        ahead, behind = impulse[32 + peak + 1 :][:20], impulse[: 32 + peak][::-1][:20]
        np.testing.assert_allclose(ahead, behind, atol=1e-7)


def test_upsample_is_batched_and_keeps_the_dtype():
    x = jnp.asarray(np.random.default_rng(0).random((2, 3, 4, 5, 2)), jnp.float32)
    y = upsample(x, Grid.nested(2))
    assert y.shape == (2, 3, 8, 10, 2)
    np.testing.assert_allclose(y[1, 2], upsample(x[1, 2], Grid.nested(2)), atol=1e-6)
    assert upsample(x.astype(jnp.bfloat16), Grid.nested(2)).dtype == jnp.bfloat16


@given(grid=grids())
def test_phase_and_shift_make_up_the_centre(grid):
    for centre, phase, shift in zip(grid.centre, grid.phase, grid.shift, strict=True):
        assert phase + shift == pytest.approx(centre)
        assert -0.5 <= shift < 1
        assert 0 <= phase < grid.ratio


def test_nested_grid_is_block_centred():
    assert Grid.nested(4) == Grid(4, (1.5, 1.5))
    assert Grid.nested(1) == Grid(1, (0.0, 0.0))


def test_mistakes_are_named():
    with pytest.raises(InputError, match="nearest, bilinear, cubic, interp23"):
        upsample(jnp.ones((4, 4, 1)), Grid.nested(2), "lanczos")
    with pytest.raises(InputError, match="height, width, band"):
        upsample(jnp.ones((4, 4)), Grid.nested(2))


def test_observation_model_applies_what_it_knows():
    srf = SpectralResponse(jnp.asarray([[0.5, 0.5]]))
    model = ObservationModel({"lr": None, "guide": srf}, Grid.nested(2))
    assert set(model(jnp.ones((4, 4, 2)))) == {"guide"}
    assert not model.known
    assert model.replace(operators={"guide": srf}).known
    assert model.ratio == 2
    with pytest.raises(InputError, match="'lr' is not known"):
        model["lr"]


def test_relative_residual_is_a_ratio_of_norms_per_image():
    observed = jnp.asarray(np.random.default_rng(0).random((3, 4, 4, 2)), jnp.float32).at[2].set(0)
    predicted = observed * jnp.asarray([1.1, 1.0, 1.0])[:, None, None, None]
    np.testing.assert_allclose(relative_residual(predicted, observed), [0.1, 0, 0], atol=1e-6)
