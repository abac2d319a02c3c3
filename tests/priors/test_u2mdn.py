"""u2-MDN: its loss and what of the pair it does not need."""

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
from priors.u2mdn import MutualDirichletNet, fit_u2mdn, loss, unrelated

SRF = jnp.asarray(np.kron(np.eye(3), np.ones((1, 4))) / 4, jnp.float32)


@pytest.fixture(scope="module")
def pair(scene) -> Pair:
    target = jnp.asarray(scene[None, :16, :16])
    model = ObservationModel({"lr": None, "guide": SpectralResponse(SRF)}, Grid.nested(2))
    return Pair.of({"lr": target[:, ::2, ::2], "guide": target @ SRF.T}, model)


@pytest.fixture(scope="module")
def module() -> MutualDirichletNet:
    return MutualDirichletNet(Bands(12, 3, 2), codes=4, width=2, rngs=nnx.Rngs(0))


def test_images_need_not_be_registered(pair, module):
    """What is without noise in the loss does not change where one image is mirrored, and the product is mirrored."""
    compiled = nnx.jit(loss)
    turned = pair.observation | {"guide": pair.observation["guide"][:, ::-1]}
    value, product = compiled(module, pair, jax.random.key(0))
    mirrored, other = compiled(module, dataclasses.replace(pair, observation=turned), jax.random.key(0))
    np.testing.assert_allclose(other[:, ::-1], product, rtol=1e-4, atol=1e-5)
    assert float(mirrored) == pytest.approx(float(value), rel=1e-3)


def test_loss_is_the_sum_of_its_terms(pair, module):
    value, product = nnx.jit(loss)(module, pair, jax.random.key(0))
    y, z = pair.observation["lr"], pair.observation["guide"]
    mean = y.mean((0, 1, 2))
    codes = [module.encoder(x) for x in ((y - mean) @ SRF.T, z - z.mean((0, 1, 2)))]
    spectra = module.decoder.spectra()
    np.testing.assert_allclose(product, codes[1] @ spectra + mean, rtol=1e-4, atol=1e-5)
    errors = jnp.linalg.norm(codes[0] @ spectra - y + mean, axis=-1).sum()
    errors += jnp.linalg.norm(codes[1] @ spectra @ SRF.T - z + z.mean((0, 1, 2)), axis=-1).sum() / 2
    known = errors + 1e-3 * jnp.abs(spectra + mean).sum(-1).mean()
    for code in codes:
        p = code / code.sum(-1, keepdims=True)
        known += 0.01 * jnp.mean(-p * jnp.log(p))
    # two terms of mutual information, each between its values for scores of 1 and 0 and of 0 and 1
    least, most = (np.log1p(np.exp(-1)) + np.log(2), np.log(2) + np.log1p(np.exp(1)))
    assert 0.2 * least < float(value - known) < 0.2 * most


def test_information_falls_where_codes_are_of_other_pixels():
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.random((1, 4, 4, 2)), jnp.float32)
    weight = jnp.ones((1, 4, 4, 1))

    def critic(image: jax.Array, codes: jax.Array) -> jax.Array:
        return 1.0 * jnp.all(image == codes, -1, keepdims=True)

    own, others = (unrelated(critic, image, codes, weight, jax.random.key(1)) for codes in (image, image + 1))
    assert float(own) < float(others) == pytest.approx(2 * np.log(2), rel=1e-5)


def test_response_must_be_known(pair):
    with pytest.raises(InputError, match="operator of 'guide' is not known"):
        fit_u2mdn(pair.observation, pair.model.replace(operators={"guide": None}), key=jax.random.key(0))
