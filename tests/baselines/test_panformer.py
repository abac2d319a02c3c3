"""PanFormer: published size, attention token by token, any size and any ratio."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import softmax

from jfusion.baselines.spatiospectral.panformer import Block, PanFormer, WindowAttention, pixel_shuffle
from jfusion.catalogue import Bands
from jfusion.operators.grid import Grid
from jfusion.operators.observation import ObservationModel
from jfusion.operators.spatial import BlockAverage


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape), jnp.float32)


def averaging(ratio):
    return ObservationModel(operators={"lr": BlockAverage(ratio), "guide": None}, grid=Grid.nested(ratio))


@pytest.mark.parametrize(("bands", "count"), [(4, 1_525_144), (8, 1_527_708)])
def test_parameter_count_is_published(bands, count):
    state = nnx.eval_shape(lambda: nnx.state(PanFormer(Bands(bands, 1, 4), rngs=nnx.Rngs(0)), nnx.Param))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == count


@pytest.mark.parametrize(
    ("ratio", "steps"), [(1, (1,)), (2, (2,)), (4, (2, 2)), (5, (5,)), (6, (3, 2)), (12, (3, 2, 2))]
)
def test_any_ratio_is_the_product_of_its_steps(ratio, steps):
    network = nnx.eval_shape(lambda: PanFormer(Bands(3, 2, ratio), width=4, heads=2, stages=1, rngs=nnx.Rngs(0)))
    assert network.factors == steps
    observation = {"lr": draw(0, 1, 4, 5, 3), "guide": draw(1, 1, 4 * ratio, 5 * ratio, 2)}
    shape = nnx.eval_shape(lambda network: network(observation, averaging(ratio)), network).shape
    assert shape == (1, 4 * ratio, 5 * ratio, 3)


def token_by_token(attention, x, other):
    """Every token attends to those of its window, which begins two rows and columns earlier where it is shifted."""
    window, heads = attention.window, attention.heads
    height, width, channels = x.shape
    query = np.asarray(attention.query(other), np.float64)
    key, value = np.split(np.asarray(attention.key_value(x), np.float64), 2, -1)
    table = np.asarray(attention.positions[...])
    y = np.zeros((height, width, channels))
    spans = [
        [range(max(start, 0), min(start + window, size)) for start in range(-attention.shift, size, window)]
        for size in (height, width)
    ]
    for rows in spans[0]:
        for columns in spans[1]:
            place = [(r, c) for r in rows for c in columns]
            k, v = (np.stack([image[p] for p in place]).reshape(-1, heads, channels // heads) for image in (key, value))
            for r, c in place:
                q = query[r, c].reshape(heads, -1)
                scores = np.einsum("hd,jhd->hj", q, k) / np.sqrt(channels // heads)
                scores += [table[row - r + window - 1, column - c + window - 1] for row, column in place]
                y[r, c] = np.einsum("hj,jhd->hd", softmax(scores, -1), v).ravel()
    return attention.out(jnp.asarray(y, jnp.float32))


@pytest.mark.parametrize("shift", [0, 2])
def test_attention_token_by_token(shift):
    attention = WindowAttention(4, 2, 4, shift, rngs=nnx.Rngs(0))
    x, other = draw(0, 1, 8, 12, 4), draw(1, 1, 8, 12, 4)
    ours = nnx.jit(attention)(x, other)
    np.testing.assert_allclose(ours[0], token_by_token(attention, x[0], other[0]), atol=1e-5)


def test_a_cross_block_normalises_the_stream_and_not_the_queries():
    block = Block(4, 2, 4, 0, rngs=nnx.Rngs(0))
    x, other = draw(0, 1, 4, 4, 4), 5 + draw(1, 1, 4, 4, 4)

    @nnx.jit
    def both(block):
        attended = x + block.attention(block.attention_norm(x), other)
        return block(x, other), attended + block.perceptron(block.perceptron_norm(attended))

    np.testing.assert_allclose(*both(block), atol=1e-5)


def test_any_size_is_the_mirrored_image_cropped():
    network = PanFormer(Bands(2, 1, 2), width=4, heads=2, stages=1, rngs=nnx.Rngs(0))
    observation, model = {"lr": draw(0, 1, 7, 8, 2), "guide": draw(1, 1, 14, 16, 1)}, averaging(2)
    mirrored = {name: jnp.concatenate([x, x[:, : -1 - x.shape[1] // 7 : -1]], 1) for name, x in observation.items()}
    assert mirrored["guide"].shape == (1, 16, 16, 1)
    fuse = nnx.jit(network)
    np.testing.assert_allclose(fuse(observation, model), fuse(mirrored, model)[:, :14], atol=1e-6)


def test_pixel_shuffle_puts_channels_side_by_side():
    x = jnp.arange(8.0).reshape(1, 1, 2, 4)
    np.testing.assert_array_equal(pixel_shuffle(x, 2)[0, ..., 0], [[0, 1, 4, 5], [2, 3, 6, 7]])
