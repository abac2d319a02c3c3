"""The deep decoder: its size, its layers, and images of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.inference.run import count_parameters
from priors.deep_decoder import DEEP_DECODER, DeepDecoder, code_size

RGB = Bands(3, 3, 4)


@pytest.mark.parametrize(("width", "count"), [(128, 100_224), (64, 25_536)])
def test_size_is_the_papers(width, count):
    assert count_parameters(nnx.eval_shape(lambda: DeepDecoder(RGB, width=width, rngs=nnx.Rngs(0)))) == count


@pytest.mark.parametrize("size", [(64, 32), (33, 47)])
def test_code_and_image_fit_each_other(size):
    def run() -> jax.Array:
        code = jnp.ones((1, *code_size(size, 5), 4))
        return DeepDecoder(RGB, width=4, size=size, rngs=nnx.Rngs(0))(code)

    assert jax.eval_shape(run).shape == (1, *size, 3)
    assert code_size((33, 47), 5) == (2, 2)


def test_a_level_mixes_enlarges_rectifies_and_normalises():
    decoder = DeepDecoder(RGB, width=4, levels=1, rngs=nnx.Rngs(0))
    code = jax.random.uniform(jax.random.key(0), (1, 3, 2, 4))

    def mixed(x, layer):
        return np.asarray(x) @ np.asarray(layer.kernel[0, 0])

    def normalised(x):
        x = np.maximum(x, 0)
        return (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)

    # bilinear at half-pixel centres, edges repeated
    x = np.pad(mixed(code, decoder.mixtures[0]), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    for axis in (1, 2):
        left, centre, right = (np.take(x, range(k, x.shape[axis] - 2 + k), axis) for k in range(3))
        pair = np.stack([0.25 * left + 0.75 * centre, 0.75 * centre + 0.25 * right], axis + 1)
        shape = list(x.shape)
        shape[axis] = 2 * (shape[axis] - 2)
        x = pair.reshape(shape)
    x = normalised(mixed(normalised(x), decoder.mixtures[1]))
    expected = 1 / (1 + np.exp(-mixed(x, decoder.output)))
    np.testing.assert_allclose(decoder(code), expected, atol=1e-4)


def test_row():
    assert DEEP_DECODER.parameters == (100_224, RGB)
    assert DEEP_DECODER.method.steps == 5000
