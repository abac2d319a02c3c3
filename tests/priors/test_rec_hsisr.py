"""Rec-HSISR: its size, its rounds, and its weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.operators import BlockAverage, Grid, ObservationModel, SpectralResponse, upsample
from priors.fit import Stage, fit
from priors.pair import Pair
from priors.rec_hsisr import (
    COARSE,
    DECAYED_ADAM,
    FINE,
    REC_HSISR,
    ROUND,
    SHARPNESS,
    RecHsisr,
    fit_rec_hsisr,
    refinement_loss,
    renew,
)

TINY = {"width": 2, "scales": 1, "window": 3}
GRID = Grid.nested(2)
BANDS = Bands(4, 2, 2)
KNOWN = ObservationModel(
    {"lr": BlockAverage(2), "guide": SpectralResponse(jnp.asarray([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]))}, GRID
)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair.of(KNOWN(jax.random.uniform(jax.random.key(0), (1, 8, 6, 4))), KNOWN)


@pytest.fixture(scope="module")
def module(pair) -> RecHsisr:
    return RecHsisr(pair, BANDS, rngs=nnx.Rngs(0), **TINY)


def test_row():
    assert REC_HSISR.parameters == (13_559_888, Bands(31, 3, 8))
    assert FINE.steps == COARSE.steps == REC_HSISR.method.steps == 2000


def test_rates_are_halved_three_times():
    for stage, first in ((FINE, 6e-4), (COARSE, 1.5e-3)):
        rates = [float(stage.rate(jnp.asarray(done / 2000))) for done in (0, 499, 500, 1000, 1500, 1999)]
        np.testing.assert_allclose(rates, first / np.array([1, 1, 2, 4, 8, 8]), rtol=1e-6)


def test_first_round_is_fitted_to_the_interpolated_image_without_weights(pair, module):
    np.testing.assert_array_equal(module.memory.image[...], upsample(pair.observation["lr"], GRID, "bilinear"))
    loss, (product, learned) = refinement_loss(module, pair, jax.random.key(0))
    assert 0 < float(product.min()) < float(product.max()) < 1
    assert learned == {}
    errors = [float(jnp.abs(KNOWN[key](product) - image).mean()) for key, image in pair.observation.items()]
    assert float(loss) == pytest.approx(sum(errors), rel=1e-5)


def test_losses_are_weighted_by_what_the_sensors_see_of_the_weights(pair):
    module = RecHsisr(pair, BANDS, rngs=nnx.Rngs(0), **TINY)
    weights = jax.random.uniform(jax.random.key(1), (1, 8, 6, 4))
    module.memory.weight[...] = weights
    loss, (product, _) = refinement_loss(module, pair, jax.random.key(0))
    errors = [
        float((KNOWN[key](weights) * jnp.abs(KNOWN[key](product) - image)).mean())
        for key, image in pair.observation.items()
    ]
    assert float(loss) == pytest.approx(sum(errors), rel=1e-5)


@pytest.mark.parametrize(("taken", "renewed"), [(0, False), (ROUND - 1, False), (ROUND, True), (2 * ROUND + 7, False)])
def test_round_ends_every_hundred_steps_after_the_first(pair, taken, renewed):
    module = RecHsisr(pair, BANDS, rngs=nnx.Rngs(0), **TINY)
    before, product = module.memory.image[...], module()
    module.memory.steps[...] = jnp.asarray(float(taken))
    renew(module)
    assert float(module.memory.steps[...]) == taken + 1
    expected = (product, jnp.exp(SHARPNESS * jnp.abs(product - before))) if renewed else (before, jnp.ones_like(before))
    np.testing.assert_allclose(module.memory.image[...], expected[0], rtol=1e-6)
    np.testing.assert_allclose(module.memory.weight[...], expected[1], rtol=1e-6)


def test_the_optimiser_leaves_the_memory_alone_and_counts_its_steps(pair):
    stage = Stage(refinement_loss, 3, FINE.rate, DECAYED_ADAM, project=renew)
    fitted = fit(lambda key: RecHsisr(pair, BANDS, rngs=nnx.Rngs(key), **TINY), pair, (stage,), key=jax.random.key(0))
    memory = fitted.module.memory
    assert float(memory.steps[...]) == 3
    np.testing.assert_array_equal(memory.image[...], upsample(pair.observation["lr"], GRID, "bilinear"))
    np.testing.assert_array_equal(memory.weight[...], 1)


def test_unknown_sensors_are_learned(pair):
    blind = ObservationModel({"lr": None, "guide": None}, GRID)
    fitted = fit_rec_hsisr(pair.observation, blind, key=jax.random.key(0), effort=3 / FINE.steps, **TINY)
    kernel, srf = fitted.model["lr"].psf, fitted.model["guide"].srf
    assert kernel.shape == (4, 4)
    assert float(jnp.ptp(srf)) > 0
    for rows in (kernel.reshape(1, -1), srf):
        np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-5)
