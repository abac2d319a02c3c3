"""DL-VM's own equations; what every network promises is in tests/test_catalogue.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from learning import every_parameter_learns

from jfusion.catalogue import Bands
from jfusion.operators import (
    Grid,
    ObservationModel,
    SpatialResponse,
    SpectralResponse,
    dot_test,
    gaussian_psf,
    upsample,
)
from unrolled.dl_vm import DLVM, LAMBDA_1, LAMBDA_2, D, gradient_loss

GRID = Grid(2, (0.0, 0.5))
BANDS = Bands(3, 2, 2)


@pytest.fixture(scope="module")
def pair():
    """Observation, model and target of two scenes (10, 8, 3) at ratio 2."""
    target = jax.random.uniform(jax.random.key(0), (2, 10, 8, 3))
    srf = jnp.asarray([[0.5, 0.5, 0], [0, 0.3, 0.7]])
    spatial = SpatialResponse(gaussian_psf(0.7, GRID), 2, GRID.phase)
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(srf)}, GRID)
    return model(target), model, target


def tiny(**sizes) -> DLVM:
    return DLVM(BANDS, width=4, depth=4, rngs=nnx.Rngs(0), **sizes)


def test_differences_and_laplacian() -> None:
    x = np.random.default_rng(0).normal(size=(5, 6, 2))
    found = np.asarray(D(jnp.asarray(x)))
    np.testing.assert_allclose(found[2, 3], [*(x[2, 4] - x[2, 3]), *(x[3, 3] - x[2, 3])], rtol=1e-5)
    assert not found[:, -1, :2].any()
    assert not found[-1, :, 2:].any()
    mirrored = np.pad(x, ((1, 1), (1, 1), (0, 0)), "symmetric")
    around = mirrored[:-2, 1:-1] + mirrored[2:, 1:-1] + mirrored[1:-1, :-2] + mirrored[1:-1, 2:]
    np.testing.assert_allclose(D.T(D(jnp.asarray(x))), 4 * x - around, atol=1e-5)
    assert dot_test(D, (5, 6, 2), jax.random.key(0)) < 1e-5


def test_product_minimises_the_papers_cost(pair) -> None:
    observation, model, _ = pair
    network = tiny()
    report = nnx.jit(lambda network: network(observation, model, stages=True))(network)
    start = upsample(observation["lr"], GRID)
    given = D(jnp.concatenate([start, observation["guide"]], -1))
    wanted = given + network.network(given, running=True)
    along, down = wanted[..., :3], wanted[..., 5:8]

    def cost(x):
        gradients = D(x)
        return (
            jnp.sum((model["lr"](x) - observation["lr"]) ** 2)
            + LAMBDA_1 * jnp.sum((gradients[..., :3] - along) ** 2)
            + LAMBDA_1 * jnp.sum((gradients[..., 3:] - down) ** 2)
            + LAMBDA_2 * jnp.sum(D.T(gradients) ** 2)
        )

    np.testing.assert_allclose(report.estimates[0], start, atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.grad(cost))(report.product), 0, atol=1e-5)


def test_network_learns_what_gradients_lack(pair) -> None:
    """Summed over all channels, those of the guide with them."""
    observation, _, target = pair
    network = tiny()
    network.network.last.kernel[...] *= 0
    network.eval()
    lacking = D(target) - D(upsample(observation["lr"], GRID))
    np.testing.assert_allclose(gradient_loss(network, *pair), jnp.sum(lacking**2) / 4, rtol=1e-4)
    network.network.last.bias[...] = jnp.zeros(10).at[4].set(1)
    np.testing.assert_allclose(gradient_loss(network, *pair), jnp.sum(lacking**2) / 4 + 40, rtol=1e-4)


@pytest.mark.parametrize("physics", ["exact", "learned"])
def test_every_physics_runs_and_learns(physics, pair) -> None:
    network = tiny(physics=physics)
    every_parameter_learns(network, gradient_loss, pair)
    product = jax.jit(network)(*pair[:2])
    assert product.shape == pair[2].shape
    assert bool(jnp.isfinite(product).all())
