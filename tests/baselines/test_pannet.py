"""PanNet: published size, published filter, and the reach that lets scenes be tiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.ndimage import uniform_filter

from jfusion.baselines.spatiospectral.pannet import PANNET, PanNet, high_pass
from jfusion.catalogue import Bands
from jfusion.operators.grid import Grid
from jfusion.operators.observation import ObservationModel
from jfusion.operators.resample import upsample
from jfusion.operators.spatial import BlockAverage


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape), jnp.float32)


def averaging(ratio):
    return ObservationModel(operators={"lr": BlockAverage(ratio), "guide": None}, grid=Grid.nested(ratio))


@pytest.mark.parametrize(("bands", "count"), [(8, 83_024), (4, 77_640)])
def test_parameter_count_is_published(bands, count):
    state = nnx.eval_shape(lambda: nnx.state(PanNet(Bands(bands, 1, 4), rngs=nnx.Rngs(0)), nnx.Param))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == count


def test_high_pass_is_what_the_mean_of_5x5_leaves():
    image = draw(0, 1, 7, 9, 2)
    low = uniform_filter(np.asarray(image, np.float64), (0, 5, 5, 0), mode="mirror")
    np.testing.assert_allclose(high_pass(image), image - low, atol=1e-6)


def test_a_low_resolution_pixel_is_enlarged_where_pytorch_does():
    """Kernel 8, stride 4, padding 2: pixel i lays its kernel on 4 i - 2 to 4 i + 5."""
    network = PanNet(Bands(1, 1, 4), width=2, blocks=0, rngs=nnx.Rngs(0))
    enlarged = network.enlarge(jnp.zeros((1, 5, 5, 1)).at[0, 2, 1].set(1))
    expected = jnp.zeros((20, 20)).at[6:14, 2:10].set(network.enlarge.kernel[..., 0, 0])
    np.testing.assert_allclose(enlarged[0, ..., 0], expected, atol=1e-6)


def test_sees_no_level_but_adds_it():
    """A constant added to both images is added to the product; without its last layer the network interpolates."""
    network = PanNet(Bands(3, 2, 3), width=4, blocks=1, rngs=nnx.Rngs(0))
    observation, model = {"lr": draw(0, 1, 4, 5, 3), "guide": draw(1, 1, 12, 15, 2)}, averaging(3)
    fuse = nnx.jit(lambda network, observation: network(observation, model))
    product = fuse(network, observation)
    assert product.shape == (1, 12, 15, 3)
    raised = fuse(network, jax.tree.map(lambda x: x + 0.5, observation))
    np.testing.assert_allclose(raised, product + 0.5, atol=1e-5)
    network.tail.kernel[...] = jnp.zeros_like(network.tail.kernel[...])
    expected = upsample(observation["lr"], model.grid, "interp23")
    np.testing.assert_allclose(fuse(network, observation), expected, atol=1e-6)


@pytest.mark.parametrize("ratio", [1, 2])
def test_reach_is_stated(ratio):
    """A product pixel depends on nothing further away than the catalogue says."""
    network = PanNet(Bands(1, 1, ratio), width=2, rngs=nnx.Rngs(0))
    side = 40
    observation = {"lr": draw(0, 1, side, 4, 1), "guide": draw(1, 1, side * ratio, 4 * ratio, 1)}
    changed = {
        "lr": observation["lr"].at[:, 0].add(1),
        "guide": observation["guide"].at[:, :ratio].add(1),
    }
    fuse, model = nnx.jit(network), averaging(ratio)
    change = jnp.abs(fuse(changed, model) - fuse(observation, model)).max((0, 2, 3))
    touched = np.flatnonzero(change > 1e-6).max() // ratio
    assert 5 < touched <= PANNET.local
