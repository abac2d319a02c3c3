"""Kernels of bounded spectral norm."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jfusion.layers.conv import Conv
from jfusion.layers.spectral import SpectralNorm

RNG = np.random.default_rng(0)


def test_spectral_norm_is_the_largest_singular_value() -> None:
    kernel = jnp.asarray(RNG.normal(size=(3, 3, 2, 5)).astype(np.float32))
    layer = SpectralNorm(Conv(2, 5, 3, use_bias=False, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(1))
    layer.layer.kernel[...] = kernel
    x = jnp.asarray(RNG.normal(size=(1, 4, 4, 2)).astype(np.float32))
    for _ in range(50):
        y = layer(x)
    largest = np.linalg.svd(np.asarray(kernel).reshape(-1, 5), compute_uv=False)[0]
    np.testing.assert_allclose(y, layer.layer(x) / largest, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(layer.layer.kernel[...], kernel)
    layer.eval()
    before = np.asarray(layer.u[...])
    layer(x)
    np.testing.assert_array_equal(layer.u[...], before)
