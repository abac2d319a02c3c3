"""DHSIS's own equations; what every network promises is in tests/test_catalogue.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf, upsample
from unrolled.dhsis import DHSIS, ETA, residual_loss

GRID = Grid(3, (0.0, 2.0))
BANDS = Bands(4, 2, 3)


@pytest.fixture(scope="module")
def pair():
    """Observation, periodic model and target (1, 12, 9, 4) on a grid that is not nested."""
    target = jax.random.uniform(jax.random.key(0), (1, 12, 9, 4))
    srf = jnp.asarray([[0.5, 0.5, 0, 0], [0, 0, 0.3, 0.7]])
    spatial = SpatialResponse(gaussian_psf(0.8, GRID), 3, GRID.phase, "circular")
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(srf)}, GRID)
    return model(target), model, target


def evaluated(network: DHSIS, pair):
    """Stages and loss of a network, and the gradient of the loss, compiled together."""
    observation, model, target = pair
    graph, parameters, rest = nnx.split(network, nnx.Param, ...)

    @jax.jit
    def run(parameters):
        def loss(parameters):
            return residual_loss(nnx.merge(graph, parameters, rest, copy=True), observation, model, target)

        stages = nnx.merge(graph, parameters, rest, copy=True)(observation, model, stages=True)
        return stages, jax.value_and_grad(loss)(parameters)

    return run(parameters)


def test_solutions_minimise_the_papers_costs(pair) -> None:
    """Equations 5 and 12; between them the network adds its residual, whose squared error is the loss."""
    observation, model, target = pair
    network = DHSIS(BANDS, width=4, depth=3, rngs=nnx.Rngs(0))
    network.eval()
    stages, (loss, _) = evaluated(network, pair)
    first, learned, last = stages.estimates

    def cost(x, prior):
        error = sum(jnp.sum((model[key](x) - observation[key]) ** 2) for key in observation)
        return error + ETA * jnp.sum((x - prior) ** 2)

    slope = jax.jit(jax.grad(cost))
    np.testing.assert_allclose(slope(first, upsample(observation["lr"], GRID)), 0, atol=1e-5)
    np.testing.assert_allclose(slope(last, learned), 0, atol=1e-5)
    np.testing.assert_allclose(learned, first + network.residual(first), atol=1e-5)
    np.testing.assert_allclose(loss, jnp.mean((learned - target) ** 2), rtol=1e-4)
    assert float(stages.residuals["guide"][2].max()) < 0.01 < float(stages.residuals["guide"][1].max())


def test_product_is_the_same_in_training(pair) -> None:
    """A network that is in training learns from the batch's moments and answers by its own."""
    network = DHSIS(BANDS, width=4, depth=3, rngs=nnx.Rngs(0))
    stages, (loss, _) = evaluated(network, pair)
    network.eval()
    still, (kept, _) = evaluated(network, pair)
    np.testing.assert_allclose(stages.product, still.product, atol=1e-6)
    assert abs(float(loss - kept)) > 1e-3 * float(kept)


def test_physics_can_be_learned(pair) -> None:
    network = DHSIS(BANDS, width=4, depth=3, physics="learned", rngs=nnx.Rngs(0))
    stages, (loss, gradient) = evaluated(network, pair)
    assert stages.product.shape == pair[2].shape
    assert bool(jnp.isfinite(loss))
    for leaf in jax.tree.leaves(gradient):
        assert bool(jnp.isfinite(leaf).all() & leaf.any())
