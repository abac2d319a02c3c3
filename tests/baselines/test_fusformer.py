"""Fusformer: published size, attention without places, and windows that go through in parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.baselines.spatiospectral import fusformer
from jfusion.baselines.spatiospectral.fusformer import Fusformer
from jfusion.catalogue import Bands
from jfusion.operators.grid import Grid
from jfusion.operators.observation import ObservationModel
from jfusion.operators.resample import upsample
from jfusion.operators.spatial import BlockAverage


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape), jnp.float32)


def tiny(window):
    return Fusformer(Bands(3, 2, 2), width=4, heads=2, depth=1, window=window, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(("bands", "count"), [(Bands(31, 3, 4), 111_247), (Bands(31, 3, 8), 111_247)])
def test_parameter_count_is_that_of_the_used_layers(bands, count):
    state = nnx.eval_shape(lambda: nnx.state(Fusformer(bands, rngs=nnx.Rngs(0)), nnx.Param))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == count


def test_pixels_attend_to_all_others_wherever_they_are():
    """Exchanged pixels give exchanged features, and each pixel moves all."""
    network, features = tiny(6), draw(0, 1, 6, 6, 4)
    transform = nnx.jit(lambda network, x: network.transform(x))
    order = np.random.default_rng(0).permutation(36)

    def exchanged(x):
        return x.reshape(1, 36, 4)[:, order].reshape(1, 6, 6, 4)

    out = transform(network, features)
    np.testing.assert_allclose(transform(network, exchanged(features)), exchanged(out), atol=1e-5)
    moved = transform(network, features.at[0, 5, 0, 0].add(1.0)) - out
    assert float(jnp.abs(moved).max(-1).min()) > 1e-6


def test_larger_images_are_split_evenly(monkeypatch):
    """9 x 5 pixels with windows of 4: 3 x 2 windows of 3 x 3, the last column mirrored; in parts or at once."""
    network, features = tiny(4), draw(0, 1, 9, 5, 4)
    mirrored = jnp.concatenate([features, features[:, :, -1:]], 2)

    @nnx.jit
    def one_by_one(network):
        rows = [[network.transform(mirrored[:, r : r + 3, c : c + 3]) for c in (0, 3)] for r in (0, 3, 6)]
        return jnp.concatenate([jnp.concatenate(row, 2) for row in rows], 1)[:, :, :5]

    expected = one_by_one(network)
    np.testing.assert_allclose(nnx.jit(lambda network: network.transform(features))(network), expected, atol=1e-5)
    monkeypatch.setattr(fusformer, "PAIRS", 4 * 9**2)
    np.testing.assert_allclose(nnx.jit(lambda network: network.transform(features))(network), expected, atol=1e-5)


def test_without_its_last_layer_it_is_the_interpolator():
    network = tiny(8)
    network.tail.kernel[...] = jnp.zeros_like(network.tail.kernel[...])
    network.tail.bias[...] = jnp.zeros_like(network.tail.bias[...])
    observation = {"lr": 2 * draw(0, 1, 3, 4, 3) - 0.5, "guide": draw(1, 1, 6, 8, 2)}
    model = ObservationModel(operators={"lr": BlockAverage(2), "guide": None}, grid=Grid.nested(2))
    expected = upsample(observation["lr"], model.grid, "cubic")
    np.testing.assert_allclose(nnx.jit(network)(observation, model), expected, atol=1e-6)
