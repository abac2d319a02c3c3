"""Batch normalisation learns from batches and serves single images."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn.initializers import constant

from jfusion.layers.batch_norm import ConvNorm


def test_moments_are_those_of_the_batch_or_those_that_were_kept() -> None:
    layer = ConvNorm(1, 2, momentum=0.9, epsilon=0.5, kernel_init=constant(1 / 9), rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 1))
    y = layer.conv(x)
    np.testing.assert_allclose(layer(x, running=True), y / np.sqrt(1.5), atol=1e-5)
    mean, variance = y.mean((0, 1, 2)), y.var((0, 1, 2))
    np.testing.assert_allclose(layer(x), (y - mean) / jnp.sqrt(variance + 0.5), atol=1e-5)
    kept = (y - 0.1 * mean) / jnp.sqrt(0.9 + 0.1 * variance + 0.5)
    np.testing.assert_allclose(layer(x, running=True), kept, atol=1e-5)
    layer.eval()
    np.testing.assert_allclose(layer(x[:1]), kept[:1], atol=1e-5)
