"""What the classical systems are made of, against independent solutions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.classical.hypersharpening import (
    degrade,
    guide_per_band,
    known_response,
    select,
    srf,
)
from jfusion.classical.pixels import band_std, least_squares, ratio_or_one, regress, subspace
from jfusion.classical.unmixing import endmembers, update_abundances, update_spectra
from jfusion.classical.variational import differences, differences_adjoint
from jfusion.errors import InputError
from jfusion.operators import (
    BlockAverage,
    Blur,
    Decimate,
    Grid,
    ObservationModel,
    SpectralResponse,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def columns(image: np.ndarray) -> np.ndarray:
    return np.asarray(image, np.float64).reshape(-1, image.shape[-1])


def test_regression_of_digital_numbers_equals_float64(rng):
    """Bands that differ by 2 % of their level of 1500: normal equations in float32 would lose it."""
    common = 1500 + 300 * rng.standard_normal((2, 20, 20, 1))
    on = (common + 30 * rng.standard_normal((2, 20, 20, 4))).astype(np.float32)
    target = (
        on @ np.array([[1.0, -2], [0.5, 1], [-1, 0], [0.2, 3]]) + 100 + rng.standard_normal((2, 20, 20, 2))
    ).astype(np.float32)
    fit = jax.jit(regress)(jnp.asarray(target), on=jnp.asarray(on))
    for i in range(2):
        design = np.column_stack([columns(on[i]), np.ones(400)])
        expected = np.linalg.lstsq(design, columns(target[i]), rcond=None)[0]
        np.testing.assert_allclose(fit.matrix[i], expected[:-1], atol=1e-3)
        np.testing.assert_allclose(columns(fit(jnp.asarray(on))[i]), design @ expected, rtol=1e-4)


def test_regression_without_intercept_equals_float64(rng):
    on, target = rng.uniform(0, 1, (1, 15, 15, 3)), rng.uniform(0, 1, (1, 15, 15, 2))
    expected = np.linalg.lstsq(columns(on), columns(target), rcond=None)[0]
    np.testing.assert_allclose(jax.jit(least_squares)(jnp.asarray(target), on=jnp.asarray(on))[0], expected, atol=1e-5)


def test_regression_on_constant_or_repeated_bands(rng):
    band = rng.uniform(0, 1, (1, 8, 8, 1)).astype(np.float32)
    on = np.concatenate([band, np.full_like(band, 0.3), band], axis=-1)
    fit = jax.jit(regress)(jnp.asarray(2 * band + 1), on=jnp.asarray(on))
    np.testing.assert_allclose(fit.matrix[0, :, 0], [1, 0, 1], atol=1e-4)
    np.testing.assert_allclose(fit(jnp.asarray(on)), 2 * band + 1, atol=1e-4)


def test_standard_deviation_of_a_constant_band_is_zero():
    image = jnp.full((1, 9, 9, 2), 1234.56).at[0, 0, 0, 1].add(1)
    assert band_std(image)[0, 0, 0, 0] == 0
    np.testing.assert_allclose(band_std(image)[0, 0, 0, 1], np.std([1] + [0] * 80), rtol=1e-2)


@pytest.mark.parametrize("unit", [1.0, 1e-8])
def test_ratio_or_one(unit):
    a, b = (unit * jnp.array(x).reshape(1, 4, 1) for x in ([3.0, 3.0, 0.0, 3.0], [2.0, 0.0, 0.0, -1.0]))
    np.testing.assert_allclose(ratio_or_one(a, b).ravel(), [1.5, 1, 1, 1], rtol=1e-6)


def test_subspace(rng):
    spectra = rng.uniform(0, 1, (2, 36, 3)) @ rng.uniform(0, 1, (2, 3, 8))
    basis = subspace(jnp.asarray(spectra.reshape(2, 6, 6, 8)), 5)
    assert basis.shape == (2, 8, 5)
    for i in range(2):
        expected = np.linalg.svd(spectra[i])[2][:3].T
        np.testing.assert_allclose(basis[i] @ basis[i].T, expected @ expected.T, atol=1e-4)
        np.testing.assert_allclose(basis[i].T @ basis[i], np.diag([1, 1, 1, 0, 0]), atol=1e-5)


def test_hypersharpening_recovers_a_linear_relation(simulate):
    """Bands that are mixtures of the guide's come back exactly, at full resolution."""
    grid = Grid.nested(2)
    _, observation, model = simulate(4, 3, grid)
    guide = observation["guide"]
    mixing = jnp.asarray([[0.5, 1.0, 0.0, 2.0], [0.2, 0.0, -1.0, 0.3], [0.3, 0.0, 1.0, 0.1]])
    pair = {"lr": degrade(guide @ mixing + 0.1, model), "guide": guide}
    np.testing.assert_allclose(jax.jit(guide_per_band)(pair, model), guide @ mixing + 0.1, atol=1e-4)


def test_one_guide_band_stays_what_it_is(simulate):
    _, observation, model = simulate(4, 1, Grid.nested(2))
    each = guide_per_band(observation, model)
    np.testing.assert_array_equal(each, np.repeat(observation["guide"], 4, axis=-1))
    np.testing.assert_array_equal(select(observation["guide"], model), observation["guide"])


def test_select_takes_the_spectrally_nearest_band():
    weights = jnp.asarray([[0, 0, 0, 0, 0.5, 0.5], [0.5, 0.5, 0, 0, 0, 0]])
    model = ObservationModel({"lr": None, "guide": SpectralResponse(weights)}, Grid.nested(2))
    guide = jnp.asarray([7.0, 8.0]).reshape(1, 1, 1, 2)
    np.testing.assert_array_equal(select(guide, model).ravel(), [8, 8, 8, 7, 7, 7])


def test_select_goes_by_where_most_of_a_response_lies():
    """Estimated responses may have a second mode, or nothing."""
    weights = jnp.asarray([[0.6, 0, 0, 0, 0, 0.3], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0.5, 0.5, 0]])
    model = ObservationModel({"lr": None, "guide": SpectralResponse(weights)}, Grid.nested(2))
    guide = jnp.asarray([7.0, 8.0, 9.0]).reshape(1, 1, 1, 3)
    np.testing.assert_array_equal(select(guide, model).ravel(), [7, 7, 9, 9, 9, 9])


def test_block_average_is_a_spatial_response(rng):
    model = ObservationModel({"lr": BlockAverage(4), "guide": None}, Grid.nested(4))
    image = jnp.asarray(rng.uniform(0, 1, (1, 16, 24, 2)), jnp.float32)
    np.testing.assert_allclose(known_response(model)(image), BlockAverage(4)(image), atol=1e-6)


def test_operators_of_another_kind_are_refused():
    model = ObservationModel({"lr": Decimate(2), "guide": Blur(jnp.ones((1, 1)))}, Grid.nested(2))
    with pytest.raises(InputError, match="SpatialResponse or a BlockAverage, but is a Decimate"):
        known_response(model)
    with pytest.raises(InputError, match="SpectralResponse, but is a Blur"):
        srf(model)


def test_endmembers_are_the_pure_pixels(rng):
    spectra = rng.uniform(0, 1, (4, 12))
    abundances = np.concatenate([rng.dirichlet(np.ones(4), 60) * 0.9 + 0.025, np.eye(4)])
    found = np.asarray(jax.jit(endmembers, static_argnums=1)(jnp.asarray(abundances @ spectra, jnp.float32), 4))
    distance = np.abs(found[:, None] - spectra[None]).max(-1)
    assert sorted(distance.argmin(1)) == [0, 1, 2, 3]
    assert distance.min(1).max() < 1e-4


def test_multiplicative_updates_lower_the_misfit_and_stay_non_negative(rng):
    image = rng.uniform(0, 1, (50, 6)).astype(np.float32)
    spectra, abundances = jnp.asarray(rng.uniform(0, 1, (3, 6))), jnp.asarray(rng.uniform(0, 1, (50, 3)))
    delta = 0.7

    def misfit(*factors: jax.Array) -> float:
        w, a = (np.asarray(factor) for factor in factors)
        return float(np.sum((image - a @ w) ** 2) + delta**2 * np.sum((a.sum(1) - 1) ** 2))

    before = misfit(spectra, abundances)
    for _ in range(20):
        abundances = update_abundances(image, spectra, abundances, delta)
        between = misfit(spectra, abundances)
        spectra = update_spectra(image, spectra, abundances)
        after = misfit(spectra, abundances)
        assert after <= between <= before
        before = after
    assert float(abundances.min()) >= 0
    assert float(spectra.min()) >= 0


def test_differences_and_their_adjoint(rng):
    x, *y = (jnp.asarray(rng.standard_normal((5, 7, 2))) for _ in range(3))
    down, along = differences(x)
    np.testing.assert_allclose(
        jnp.vdot(down, y[0]) + jnp.vdot(along, y[1]), jnp.vdot(x, differences_adjoint(*y)), rtol=1e-4
    )
