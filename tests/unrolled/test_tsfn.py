"""The minimum-distance criterion and TSFN's parts; what every network promises is in tests/test_catalogue.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from unrolled.stages import closed_form_step
from unrolled.tsfn import TSFN, balanced, golden_section, prior_loss

GRID = Grid(2, (1.0, 0.0))
BANDS = Bands(4, 2, 2)
WEIGHT = (2 / 4) ** 2 + (1 / 2**2) ** 2

corrected_by = jax.jit(balanced)


@pytest.fixture(scope="module")
def pair():
    """Noisy observation, model and target (2, 8, 12, 4) on a grid that is not nested."""
    keys = jax.random.split(jax.random.key(0), 3)
    target = jax.random.uniform(keys[0], (2, 8, 12, 4))
    srf = jnp.asarray([[0.5, 0.5, 0, 0], [0, 0, 0.3, 0.7]])
    spatial = SpatialResponse(gaussian_psf(0.8, GRID), 2, GRID.phase, "circular")
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(srf)}, GRID)
    seen = model(target)
    noise = zip(seen, keys[1:], strict=True)
    return {k: seen[k] + 0.1 * jax.random.normal(key, seen[k].shape) for k, key in noise}, model, target


@pytest.mark.parametrize("minimum", [0.0, 0.3, 0.97])
def test_golden_section_closes_in_on_the_minimum(minimum: float) -> None:
    found = jax.jit(lambda: golden_section(lambda x: (x - minimum) ** 2, 0.0, 1.0, 1e-3))()
    assert abs(float(found) - minimum) < 1e-3 / (5**0.5 - 2) / 2


def test_weight_is_nearest_to_the_origin_of_both_costs(pair) -> None:
    """For each image of its own, against the distance on a fine grid of weights."""
    observation, model, target = pair
    prior = target + jnp.asarray([0.02, 0.2])[:, None, None, None] * jnp.sin(jnp.arange(12.0))[:, None]
    corrected, mu = corrected_by(prior, observation, model)
    assert mu.shape == (2,)
    assert float(mu[0]) < float(mu[1])

    @jax.jit
    def at(mu):
        x = closed_form_step(prior, observation, model, mu)
        data = sum(jnp.sum((model[k](x) - observation[k]) ** 2, (1, 2, 3)) for k in observation)
        return x, jnp.sqrt(data**2 + (WEIGHT * jnp.sum((x - prior) ** 2, (1, 2, 3))) ** 2)

    best = np.min([at(WEIGHT * share)[1] for share in np.linspace(1e-3, 1, 60)], 0)
    for image in range(2):
        x, distance = at(mu[image])
        np.testing.assert_allclose(corrected[image], x[image], atol=1e-4)
        assert float(distance[image]) < 1.001 * best[image]


def test_a_prior_that_explains_everything_is_kept(pair) -> None:
    _, model, target = pair
    corrected, mu = corrected_by(target, model(target), model)
    np.testing.assert_allclose(corrected, target, atol=1e-4)
    assert bool(jnp.isfinite(mu).all())


@pytest.mark.parametrize("physics", ["exact", "learned"])
def test_the_network_learns_before_the_correction(physics, pair) -> None:
    """The loss is the error of X_cnn, with the misfit of learned responses; the product is X(mu)."""
    observation, model, target = pair
    network = TSFN(BANDS, width=4, blocks=1, physics=physics, rngs=nnx.Rngs(0))
    network.eval()
    graph, parameters, rest = nnx.split(network, nnx.Param, ...)

    @jax.jit
    def run(parameters):
        def loss(parameters):
            return prior_loss(nnx.merge(graph, parameters, rest, copy=True), observation, model, target)

        stages = nnx.merge(graph, parameters, rest, copy=True)(observation, model, stages=True)
        return stages, jax.value_and_grad(loss)(parameters)

    stages, (loss, gradient) = run(parameters)
    expected = jnp.mean(jnp.abs(stages.estimates[1] - target)) + network.sensors.misfit(observation, model, target)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert stages.steps["mu"].shape == (1, 2)
    assert all(bool(jnp.isfinite(leaf).all() & leaf.any()) for leaf in jax.tree.leaves(gradient))
    corrected, _ = corrected_by(stages.estimates[1], observation, network.sensors(model))
    np.testing.assert_allclose(stages.product, corrected, atol=1e-4)
