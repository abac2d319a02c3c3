"""What coupled unmixing autoencoders share: reductions of their losses, projections, and the operator of abundances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, one_psf
from priors.coupled import (
    RELEASED,
    Encoder,
    clamp_kernels,
    clamp_psf,
    he_conv,
    sensor_mismatch,
    sparsity,
    sum_to_one,
)
from priors.degradation import Degradation
from priors.pair import Pair

RNG = np.random.default_rng(0)
BANDS = Bands(6, 2, 2)


def test_abundances_are_summed_over_pixels():
    assert float(sum_to_one(jnp.full((1, 3, 4, 5), 0.1), jnp.ones((1, 3, 4, 1)))) == pytest.approx(12 * 0.5, rel=1e-5)


def test_sparsity_is_least_where_every_endmember_is_rare():
    """However the abundances are spread over the pixels: one pixel in a hundred may be pure."""
    rare = jnp.zeros((1, 10, 10, 3)).at[0, 2, 3].set(1)
    assert float(sparsity(rare, jnp.ones((1, 10, 10, 1)))) == pytest.approx(0, abs=1e-6)
    assert float(sparsity(jnp.full((1, 10, 10, 3), 0.01), jnp.ones((1, 10, 10, 1)))) == pytest.approx(0, abs=1e-6)
    half = 0.01 * np.log(0.01 / 0.5) + 0.99 * np.log(0.99 / 0.5)
    assert float(sparsity(jnp.full((1, 2, 2, 3), 0.5), jnp.ones((1, 2, 2, 1)))) == pytest.approx(3 * half, rel=1e-5)
    unused = jax.grad(sparsity)(jnp.zeros((1, 2, 2, 3)), jnp.ones((1, 2, 2, 1)))
    assert np.isfinite(unused).all()


def test_abundances_count_where_their_pixels_have_weight():
    abundances = jax.random.uniform(jax.random.key(0), (1, 4, 6, 3))
    weight = jnp.zeros((1, 4, 6, 1)).at[:, :, :2].set(1)
    seen, ones = abundances[:, :, :2], jnp.ones((1, 4, 2, 1))
    for term in (sum_to_one, sparsity):
        np.testing.assert_allclose(term(abundances, weight), term(seen, ones), rtol=1e-5)


def test_encoders_start_as_he_et_al_say():
    encoder = Encoder(300, 200, (250,), rngs=nnx.Rngs(0))
    for layer in (encoder.trunk.layers[0], encoder.head):
        kernel = layer.kernel[...]
        assert float(kernel.std()) == pytest.approx(np.sqrt(2 / kernel.shape[-2]), rel=0.02)
        assert not layer.bias[...].any()


def test_projections():
    decoder = he_conv(4, 3, use_bias=False, rngs=nnx.Rngs(0))
    decoder.kernel[...] = decoder.kernel[...].at[0, 0, 0, 0].set(3)
    clamp_kernels(decoder)
    assert (float(decoder.kernel[...].min()), float(decoder.kernel[...].max())) == (0, 1)
    blind = ObservationModel({"lr": None, "guide": None}, Grid.nested(2))
    for constraints, changed in ((RELEASED, True), (("softmax", "softmax"), False)):
        degradation = Degradation(blind, BANDS, constraints)
        weight = degradation.psf.weights.weight
        weight[...] = jnp.asarray([[-1.0, 0.5, 2.0, 0.0]])
        clamp_psf(degradation)
        assert np.array_equal(weight[...], [[0.0, 0.5, 1.0, 0.0]]) == changed


def test_sensors_are_compared_where_one_is_learned():
    response = SpectralResponse(jnp.asarray(RNG.dirichlet(np.ones(6), 2), jnp.float32))
    kernels = jnp.asarray(RNG.dirichlet(np.ones(4), 6).T.reshape(2, 2, 6), jnp.float32)
    operators = {"lr": SpatialResponse(kernels, 2, (0, 0)), "guide": response}
    image = jnp.asarray(RNG.uniform(size=(1, 8, 8, 6)), jnp.float32)
    model = ObservationModel(dict(operators), Grid.nested(2))
    pair = Pair.of(model(image), model)
    assert float(sensor_mismatch(Degradation(model, BANDS), model, pair)) == 0
    half = model.replace(operators=operators | {"guide": None})
    degradation = Degradation(half, BANDS)
    filled = degradation(half)
    expected = jnp.abs(filled["guide"](pair.observation["lr"]) - one_psf(filled["lr"])(pair.observation["guide"]))
    assert float(sensor_mismatch(degradation, filled, pair)) == pytest.approx(float(expected.sum()), rel=1e-5)
