"""Parts of untrained generators: where strided pixels lie, what the borders show, and whose moments normalise."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.layers.untrained import MirroredConv, Norm, enlarge, normalise


@pytest.mark.parametrize(("size", "strides"), [(6, 1), (6, 2), (7, 2)])
def test_convolution_is_centred_on_the_pixels_it_keeps_and_mirrors_the_borders(size, strides):
    layer = MirroredConv(1, 1, 3, strides, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).random((size, size)).astype(np.float32)
    padded = np.pad(x, 1, mode="reflect")
    kernel, bias = np.asarray(layer.conv.kernel[...])[:, :, 0, 0], float(layer.conv.bias[0])
    expected = [
        [(padded[i : i + 3, j : j + 3] * kernel).sum() + bias for j in range(0, size, strides)]
        for i in range(0, size, strides)
    ]
    np.testing.assert_allclose(layer(jnp.asarray(x)[None, :, :, None])[0, :, :, 0], expected, atol=1e-5)


def test_moments_are_those_of_each_channel_of_the_image():
    x = np.random.default_rng(0).random((1, 8, 8, 3)).astype(np.float32) * np.array([1, 5, 9], np.float32)
    y = np.asarray(normalise(jnp.asarray(x)))
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-3)
    norm = Norm(3)
    norm.scale[...], norm.shift[...] = jnp.full(3, 2.0), jnp.arange(3.0)
    np.testing.assert_allclose(norm(jnp.asarray(x)), 2 * y + np.arange(3), atol=1e-5)


def test_enlarging_is_bilinear_and_cut_at_the_end():
    ramp = jnp.arange(4.0)[None, :, None, None] * jnp.ones((1, 1, 3, 1))
    fine = enlarge(ramp, (7, 5))
    assert fine.shape == (1, 7, 5, 1)
    np.testing.assert_allclose(fine[0, :, 0, 0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75], atol=1e-6)
