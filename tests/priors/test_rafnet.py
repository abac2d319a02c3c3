"""RAFnet: its groups, its cells, its codes and its patches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.operators import Grid, ObservationModel, SpectralResponse
from priors.pair import Pair
from priors.rafnet import (
    BothWays,
    Gru,
    RecurrentAttentionFusion,
    at_once,
    divergence,
    even_split,
    fit_rafnet,
    joint_loss,
    response_split,
)


def test_groups_end_half_way_between_the_guides_bands():
    srf = np.zeros((3, 12), np.float32)
    srf[0, 8:12], srf[1, 0:2], srf[2, 3:6] = 0.25, 0.5, 1 / 3
    assert response_split(SpectralResponse(jnp.asarray(srf)), 12) == (3, 7, 12)
    assert response_split(SpectralResponse(jnp.full((1, 5), 0.2)), 5) == (5,)
    flat = SpectralResponse(jnp.full((3, 4), 0.25))
    assert response_split(flat, 4) == (2, 3, 4)
    assert response_split(SpectralResponse(jnp.full((3, 2), 0.5)), 2) == (1, 2)
    assert even_split(103, 4) == (25, 51, 77, 103)


def test_a_group_is_read_to_its_end_and_not_beyond():
    module = RecurrentAttentionFusion(Bands(5, 2, 2), split=(2, 5), local=3, width=2, attention=2, rngs=nnx.Rngs(0))
    spectra = jnp.asarray(np.random.default_rng(0).random((4, 5)), jnp.float32)

    def last_state(bands: jax.Array) -> jax.Array:
        state = module.local.begin(4)
        for band in bands.T:
            state = module.local(state, band[None])[0]
        return state.T

    groups = jnp.stack([last_state(spectra[:, :2]), last_state(spectra[:, 2:])], -2)
    np.testing.assert_allclose(nnx.jit(lambda m, x: m.read(x))(module, spectra), module.across(groups), atol=1e-5)


def test_gru_is_the_papers():
    """The gates start at sigmoid(1), the reset gate acts on the state before the product."""
    cell, rng = Gru(1, 2, rngs=nnx.Rngs(0)), np.random.default_rng(0)
    x, h = rng.random((3, 1)).astype(np.float32), rng.random((3, 2)).astype(np.float32)
    gates = 1 / (1 + np.exp(-(np.concatenate([x, h], -1) @ np.asarray(cell.gates[...]) + 1)))
    reset, keep = gates[:, :2], gates[:, 2:]
    expected = keep * h + (1 - keep) * np.tanh(np.concatenate([x, reset * h], -1) @ np.asarray(cell.candidate[...]))
    np.testing.assert_allclose(cell(jnp.asarray(h.T), jnp.asarray(x.T))[1].T, expected, rtol=1e-5)


def test_both_ways_is_one_way_and_the_other():
    both = BothWays(Gru, 2, 3, rngs=nnx.Rngs(0))
    sequence = jnp.asarray(np.random.default_rng(0).random((2, 4, 2)), jnp.float32)
    made = both(sequence)
    swapped = BothWays(Gru, 2, 3, rngs=nnx.Rngs(0))
    swapped.forward, swapped.backward = both.backward, both.forward
    np.testing.assert_allclose(swapped(sequence[:, ::-1])[:, ::-1, 3:], made[..., :3], atol=1e-6)


def test_divergence_vanishes_for_the_normal_law():
    zero, weight = jnp.zeros((1, 2, 2, 3, 4)), jnp.ones((1, 2, 2, 1))
    assert float(divergence((zero, zero), weight)) == 0
    np.testing.assert_allclose(divergence((zero + 1, zero), weight), 0.5 * 2 * 2 * 3 * 4)


def test_pixels_of_several_images_go_together():
    images = jnp.arange(12.0).reshape(1, 2, 3, 2), jnp.ones((2, 1, 1, 2))
    doubled = at_once(lambda pixels: 2 * pixels[:, :1], *images)
    for made, image in zip(doubled, images, strict=True):
        np.testing.assert_array_equal(made, 2 * image[..., :1])


def test_guides_deviation_counts_once_a_band():
    """Where sigma is so large that no error counts, the loss grows with its logarithm by the guide's bands alone."""
    rng = np.random.default_rng(0)
    images = {"lr": rng.random((1, 2, 2, 4)), "guide": rng.random((1, 4, 4, 3)), "upsampled": rng.random((1, 4, 4, 4))}
    observation = {name: jnp.asarray(image, jnp.float32) for name, image in images.items()}
    model = ObservationModel({"lr": None, "guide": SpectralResponse(jnp.full((3, 4), 0.25))}, Grid.nested(2))
    pair = dataclasses.replace(Pair.of(observation, model), observation=observation)
    module = RecurrentAttentionFusion(Bands(4, 3, 2), local=2, width=2, attention=2, rngs=nnx.Rngs(0))

    def loss(sigma: float) -> float:
        module.noise[...] = jnp.asarray(sigma)
        return float(joint_loss(module, pair, jax.random.key(0))[0])

    np.testing.assert_allclose(loss(30.0) - loss(20.0), 10 * 3, rtol=1e-4)


def test_response_must_be_known():
    observation = {"lr": jnp.ones((1, 4, 4, 4)), "guide": jnp.ones((1, 8, 8, 2))}
    model = ObservationModel({"lr": None, "guide": None}, Grid.nested(2))
    with pytest.raises(InputError, match="operator of 'guide' is not known"):
        fit_rafnet(observation, model, key=jax.random.key(0))
