"""FusionNet: published size and published formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.baselines.spatiospectral.fusionnet import FusionNet
from jfusion.catalogue import Bands
from jfusion.operators.grid import Grid
from jfusion.operators.observation import ObservationModel
from jfusion.operators.resample import upsample
from jfusion.operators.spatial import BlockAverage


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape), jnp.float32)


def averaging(ratio):
    return ObservationModel(operators={"lr": BlockAverage(ratio), "guide": None}, grid=Grid.nested(ratio))


@pytest.mark.parametrize(("bands", "count"), [(8, 78_632), (4, 76_324)])
def test_parameter_count_is_published(bands, count):
    state = nnx.eval_shape(lambda: nnx.state(FusionNet(Bands(bands, 1, 4), rngs=nnx.Rngs(0)), nnx.Param))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == count


@pytest.mark.parametrize(("guide_bands", "ratio"), [(1, 4), (3, 2)])
def test_product_is_on_the_fine_grid(guide_bands, ratio):
    network = FusionNet(Bands(5, guide_bands, ratio), width=4, blocks=1, rngs=nnx.Rngs(0))
    observation = {"lr": draw(0, 2, 5, 6, 5), "guide": draw(1, 2, 5 * ratio, 6 * ratio, guide_bands)}
    product = jax.jit(network)(observation, averaging(ratio))
    assert product.shape == (2, 5 * ratio, 6 * ratio, 5)
    assert np.isfinite(product).all()


def test_without_its_last_layer_it_is_the_interpolator():
    network = FusionNet(Bands(3, 1, 4), width=4, blocks=1, rngs=nnx.Rngs(0))
    network.tail.kernel[...] = jnp.zeros_like(network.tail.kernel[...])
    observation, model = {"lr": draw(0, 1, 4, 4, 3), "guide": draw(1, 1, 16, 16, 1)}, averaging(4)
    np.testing.assert_allclose(
        jax.jit(network)(observation, model), upsample(observation["lr"], model.grid, "interp23"), atol=1e-6
    )


def test_details_are_the_guide_minus_the_interpolator():
    """With the head and tail as identities and no blocks the network returns its positive details plus M."""
    network = FusionNet(Bands(3, 1, 2), width=3, blocks=0, rngs=nnx.Rngs(0))
    identity = jnp.zeros((3, 3, 3, 3)).at[1, 1].set(jnp.eye(3))
    network.head.kernel[...] = network.tail.kernel[...] = identity
    observation, model = {"lr": draw(2, 1, 4, 4, 3), "guide": draw(3, 1, 8, 8, 1)}, averaging(2)
    interpolated = upsample(observation["lr"], model.grid, "interp23")
    expected = interpolated + nnx.relu(observation["guide"] - interpolated)
    np.testing.assert_allclose(jax.jit(network)(observation, model), expected, atol=1e-6)
