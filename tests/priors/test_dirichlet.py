"""Codes from a broken stick."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from priors.dirichlet import Decoder, DenseStack, broken_stick, centred, entropy


def test_codes_are_the_pieces_of_a_stick():
    rng = np.random.default_rng(0)
    logits, beta = rng.standard_normal((5, 4)), rng.standard_normal((5, 1))
    v = (1 / (1 + np.exp(-logits))) ** (1 / np.log1p(np.exp(beta)))
    left, pieces = np.ones(5), []
    for k in range(4):
        pieces.append(v[:, k] * left)
        left = left * (1 - v[:, k])
    codes = jax.jit(broken_stick)(jnp.asarray(logits, jnp.float32), jnp.asarray(beta, jnp.float32))
    np.testing.assert_allclose(codes, np.stack(pieces, 1), rtol=1e-4)
    np.testing.assert_allclose(codes.sum(-1), 1 - left, rtol=1e-4)


def test_codes_have_gradients_where_logarithms_end():
    logits, beta = jnp.asarray([[90.0, -90.0, 0.0]] * 2), jnp.asarray([[90.0], [-90.0]])
    gradients = jax.jit(jax.grad(lambda a, b: jnp.sum(broken_stick(a, b) ** 2), argnums=(0, 1)))(logits, beta)
    assert all(bool(jnp.isfinite(g).all()) for g in gradients)


def test_entropy_of_one_and_of_equal_codes():
    one, equal = jnp.zeros((1, 1, 2, 4)).at[..., 2].set(0.7), jnp.full((1, 1, 2, 4), 0.2)
    weight = jnp.asarray([1.0, 0.0]).reshape(1, 1, 2, 1)
    assert abs(float(entropy(one, weight))) < 1e-6
    np.testing.assert_allclose(entropy(equal, weight), np.log(4) / 4, rtol=1e-5)


def test_means_are_of_the_pixels_that_count():
    image = jnp.asarray([1.0, 3.0, 50.0]).reshape(1, 1, 3, 1)
    rest, mean = centred(image, jnp.asarray([1.0, 1.0, 0.0]).reshape(1, 1, 3, 1))
    np.testing.assert_allclose(mean[0, 0, 0], [2.0])
    np.testing.assert_allclose(rest[0, 0, :2, 0], [-1.0, 1.0])


def test_stack_is_linear_and_keeps_its_input():
    stack = DenseStack(2, (3, 4), rngs=nnx.Rngs(0))
    x = jnp.asarray([[[0.5, -1.0]]])
    made = stack(x)
    assert made.shape == (1, 1, stack.outputs) == (1, 1, 9)
    np.testing.assert_array_equal(made[..., :2], x)
    np.testing.assert_allclose(stack(2 * x), 2 * made, rtol=1e-5)


def test_decoder_mixes_its_spectra():
    decoder = Decoder(3, 5, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(decoder(jnp.eye(3)), decoder.spectra(), rtol=1e-5)
