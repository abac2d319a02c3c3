"""PSGAN: published sizes, the network and the critic layer by layer, their losses, any size and any ratio."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jfusion.baselines.spatiospectral import psgan
from jfusion.baselines.spatiospectral.psgan import PSGAN, Critic, critic_loss, interpolated, network_loss, turn_up
from jfusion.catalogue import Bands
from jfusion.operators.grid import Grid
from jfusion.operators.observation import ObservationModel
from jfusion.operators.spatial import BlockAverage

BANDS = Bands(3, 2, 4)


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape), jnp.float32)


def averaging(ratio):
    return ObservationModel(operators={"lr": BlockAverage(ratio), "guide": None}, grid=Grid.nested(ratio))


def pair(height, width, ratio=4):
    return {"lr": draw(0, 2, height, width, 3), "guide": draw(1, 2, height * ratio, width * ratio, 2)}


@pytest.fixture(scope="module")
def network():
    """With kernels ten times as large as at the start, so that every layer shows in the product."""
    network = PSGAN(BANDS, width=4, rngs=nnx.Rngs(0))
    nnx.update(network, jax.tree.map(lambda x: 10 * x, nnx.state(network)))
    return network


@pytest.mark.parametrize(
    ("module", "bands", "count"),
    [(PSGAN, 4, 1_885_856), (PSGAN, 8, 1_889_312), (Critic, 4, 391_680)],
)
def test_parameter_count_is_published(module, bands, count):
    state = nnx.eval_shape(lambda: nnx.state(module(Bands(bands, 1, 4), rngs=nnx.Rngs(0)), nnx.Param))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == count


def test_a_patch_of_128_has_16_x_16_scores():
    critic = nnx.eval_shape(lambda: Critic(BANDS, width=4, rngs=nnx.Rngs(0)))
    image = jnp.zeros((2, 128, 128, 3))
    assert nnx.eval_shape(lambda critic: critic(image, image), critic).shape == (2, 16, 16, 1)


def slope(x):
    return jnp.where(x > 0, x, 0.2 * x)


def layer(x, layer, stride=1):
    return lax.conv_general_dilated(
        x, layer.kernel[...], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def enlarged(x, layer):
    y = jnp.einsum("nhwi,abio->nhawbo", x, layer.kernel[...])
    return y.reshape(len(x), 2 * x.shape[1], 2 * x.shape[2], -1)


def layer_by_layer(net, low, guide):
    """The release's list of layers: encoders 1 to 6, decoders 7 to 13."""
    fine, half = [], []
    for stream, image in ((net.guide_stream, guide), (net.lr_stream, low)):
        fine.append(layer(slope(layer(image, stream.first)), stream.second))
        half.append(layer(slope(fine[-1]), stream.halve, 2))
    five = layer(slope(layer(slope(jnp.concatenate(half, -1)), net.merge)), net.half)
    six = layer(slope(five), net.quarter[0], 2)
    eight = layer(slope(layer(slope(six), net.quarter[1])), net.quarter[2])
    ten = layer(slope(jnp.concatenate([enlarged(slope(eight), net.to_half), five], -1)), net.half_again)
    twelve = layer(slope(jnp.concatenate([enlarged(slope(ten), net.to_full), *fine], -1)), net.full)
    return jnp.maximum(layer(slope(twelve), net.tail), 0)


def test_network_layer_by_layer(network):
    observation, model = pair(4, 5), averaging(4)
    expected = layer_by_layer(network, interpolated(observation, model), observation["guide"])
    assert float((expected > 0).mean()) > 0.2
    np.testing.assert_allclose(nnx.jit(network)(observation, model), expected, rtol=1e-3, atol=1e-5 * expected.max())


def test_losses_are_those_of_probabilities(network, monkeypatch):
    """With D the logistic function of the score that the layers of the critic give, one after the other."""
    observation, model, target = pair(4, 5), averaging(4), draw(2, 2, 16, 20, 3)
    critic = Critic(BANDS, width=4, rngs=nnx.Rngs(1))
    nnx.update(critic, jax.tree.map(lambda x: 10 * x, nnx.state(critic)))
    low = interpolated(observation, model)
    product = layer_by_layer(network, low, observation["guide"])

    def probability(image):
        x = jnp.concatenate([low, image], -1)
        for number, stride in enumerate((2, 2, 2, 1)):
            x = slope(layer(x, critic.layers[number], stride))
        return 1 / (1 + np.exp(-np.asarray(layer(x, critic.layers[4]), np.float64)))

    real, fake = probability(target), probability(product)
    assert np.abs(real - fake).max() > 0.01
    data = observation, model, target, jax.random.key(0)
    assert psgan.PIXELS == 100 * (2**11 - 1)
    monkeypatch.setattr(psgan, "PIXELS", 100)  # else float32 would hide the critic's part
    losses = nnx.jit(lambda n, c: (critic_loss(c, n, *data), network_loss(n, c, *data)))(network, critic)
    assert float(losses[0]) == pytest.approx(-np.log(real).mean() - np.log(1 - fake).mean(), rel=1e-4)
    assert float(losses[1]) == pytest.approx(-np.log(fake).mean() + 100 * np.abs(target - product).mean(), rel=1e-4)


def test_any_size_is_the_mirrored_image_cropped_and_the_unit_does_not_matter(network):
    observation, model = pair(3, 4, ratio=3), averaging(3)
    product = nnx.jit(network)(observation, model)
    assert product.shape == (2, 9, 12, 3)
    low, guide = (
        jnp.concatenate([x, x[:, :-4:-1]], 1) for x in (interpolated(observation, model), observation["guide"])
    )
    expected = layer_by_layer(network, low, guide)[:, :9]
    np.testing.assert_allclose(product, expected, rtol=1e-3, atol=1e-5 * expected.max())
    thousandfold = nnx.jit(network)({name: 1000 * x for name, x in observation.items()}, model)
    np.testing.assert_allclose(thousandfold, 1000 * product, rtol=1e-3, atol=1e-2 * expected.max())


def test_bands_that_begin_below_zero_are_turned_up():
    network, observation, model = PSGAN(BANDS, width=4, rngs=nnx.Rngs(0)), pair(4, 4), averaging(4)
    before = network.tail.kernel[...]

    def share():
        return (nnx.jit(network)(observation, model) > 0).mean((0, 1, 2))

    below = share() < 0.5
    assert bool(below.any())
    assert not bool(below.all())
    turn_up(network, observation, model, draw(2, 2, 16, 16, 3))
    np.testing.assert_array_equal(network.tail.kernel[...], jnp.where(below, -before, before))
    assert bool((share() >= 0.5).all())
