"""Attention against its formula, windows against slices, initial values against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf, softmax

from jfusion.errors import InputError
from jfusion.layers.attention import Perceptron, attend, from_windows, gelu, layer_norm, linear, padded, to_windows


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_attention_is_its_formula():
    query, key, value = draw(0, 2, 3, 6), draw(1, 2, 5, 6), draw(2, 2, 5, 6)
    bias = draw(3, 2, 3, 5).at[:, :, 1].set(-jnp.inf)
    ours = jax.jit(attend, static_argnames="heads")(query, key, value, heads=2, bias=bias)
    for head, part in enumerate((slice(0, 3), slice(3, 6))):
        q, k, v = (np.asarray(x[..., part], np.float64) for x in (query, key, value))
        weights = softmax(q @ k.swapaxes(1, 2) / np.sqrt(3) + np.asarray(bias[head]), -1)
        assert not weights[..., 1].any()
        np.testing.assert_allclose(ours[..., part], weights @ v, atol=1e-5)


def test_heads_must_divide_the_channels():
    with pytest.raises(InputError, match="divide the channels"):
        attend(*(draw(0, 1, 4, 6),) * 3, heads=4)


def test_windows_tile_the_image():
    image = draw(0, 2, 4, 9, 2)
    windows = to_windows(image, (2, 3))
    assert windows.shape == (2, 2, 3, 6, 2)
    np.testing.assert_array_equal(windows[1, 1, 2].reshape(2, 3, 2), image[1, 2:4, 6:9])
    np.testing.assert_array_equal(from_windows(windows, (2, 3)), image)


def test_padding_mirrors_up_to_whole_windows():
    image = draw(0, 1, 4, 5, 1)
    whole = padded(image, (4, 4))
    assert whole.shape == (1, 4, 8, 1)
    np.testing.assert_array_equal(whole[:, :, 5:], image[:, :, :1:-1])
    assert padded(whole, (4, 4)).shape == whole.shape


def test_normalisation_and_perceptron_are_their_formulas():
    x = draw(0, 4, 8)
    perceptron = Perceptron(8, 16, gelu, rngs=nnx.Rngs(0))
    y = np.asarray(x @ perceptron.first.kernel[...] + perceptron.first.bias[...], np.float64)
    y = 0.5 * y * (1 + erf(y / np.sqrt(2)))
    expected = y @ perceptron.second.kernel[...] + perceptron.second.bias[...]
    np.testing.assert_allclose(perceptron(x), expected, atol=1e-5)
    small = np.asarray(1e-3 * x, np.float64)
    expected = (small - small.mean(-1, keepdims=True)) / np.sqrt(small.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(layer_norm(8, rngs=nnx.Rngs(0))(1e-3 * x), expected, atol=1e-5)


def test_linear_layers_start_as_pytorchs():
    layer = linear(100, 400, rngs=nnx.Rngs(0))
    for values in (layer.kernel[...], layer.bias[...]):
        assert 0.099 < float(jnp.abs(values).max()) <= 0.1
        np.testing.assert_allclose(values.std(), 0.1 / np.sqrt(3), rtol=0.1)
    assert linear(3, 2, use_bias=False, rngs=nnx.Rngs(0)).bias is None
