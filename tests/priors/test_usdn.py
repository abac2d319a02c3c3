"""uSDN: its losses, its stages, and what it returns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.operators import Grid, ObservationModel, SpectralResponse
from priors.dirichlet import entropy
from priors.pair import Pair
from priors.usdn import STAGES, SparseDirichletNet, angle, fit_usdn, guide_loss, lr_loss

SRF = jnp.asarray(np.kron(np.eye(3), np.ones((1, 4))) / 4, jnp.float32)
SIZES = {"codes": 4, "width": 2}


def observed(scene: np.ndarray) -> Pair:
    """A pair whose low-resolution pixels are the guide's odd ones."""
    target = jnp.asarray(scene[None, :16, :16])
    model = ObservationModel({"lr": None, "guide": SpectralResponse(SRF)}, Grid(2, (1.0, 1.0)))
    return Pair.of({"lr": target[:, 1::2, 1::2], "guide": target @ SRF.T}, model)


@pytest.fixture(scope="module")
def module() -> SparseDirichletNet:
    return SparseDirichletNet(Bands(12, 3, 2), rngs=nnx.Rngs(0), **SIZES)


def test_losses_are_the_papers(scene, module):
    pair, ones = observed(scene), jnp.ones((1, 16, 16, 1))
    y, z = pair.observation["lr"], pair.observation["guide"]
    mean, spectra = y.mean((0, 1, 2)), module.decoder.spectra()
    codes = module.lr(y - mean, (y - mean) @ SRF.T)
    error = jnp.sum((codes @ spectra - (y - mean)) ** 2) / 12
    volume = jnp.mean((spectra + mean).T @ (spectra + mean))
    expected = error + 1e-4 * volume + 1e-3 * entropy(codes, ones[:, ::2, ::2])
    assert float(nnx.jit(lr_loss)(module, pair, jax.random.key(0))[0]) == pytest.approx(float(expected), rel=1e-4)

    value, product = nnx.jit(guide_loss)(module, pair, jax.random.key(0))
    guide_codes = module.guide(*[z - z.mean((0, 1, 2))] * 2)
    np.testing.assert_allclose(product, guide_codes @ spectra + mean, rtol=1e-4, atol=1e-5)
    sampled = z[:, 1::2, 1::2]
    turned = angle(module.guide(*[sampled - sampled.mean((0, 1, 2))] * 2), codes, ones[:, ::2, ::2])
    expected = jnp.sum((product @ SRF.T - z) ** 2) / 3 + 1e-4 * entropy(guide_codes, ones) + turned / 20
    assert float(value) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("value", [0.0, 1e-20])
def test_angle_to_a_map_that_vanishes_has_a_derivative(value):
    one, ones = jnp.full((1, 2, 2, 1), value), jnp.ones((1, 2, 2, 1))
    for pair in ((one, ones), (ones, one)):
        assert all(jnp.isfinite(slope).all() for slope in jax.grad(angle, (0, 1))(*pair, ones))


def test_angle_is_between_maps():
    a = jnp.zeros((1, 2, 2, 3)).at[0, 0, 0].set(1.0)
    b = jnp.stack([a[..., 0], 2 * a[..., 0] + 2 * jnp.roll(a[..., 0], 1, -1), jnp.roll(a[..., 0], 1, -1)], -1)
    np.testing.assert_allclose(angle(a, b, jnp.ones((1, 2, 2, 1))), (0 + 1 / 4 + 1 / 2) / 3, atol=1e-3)


def test_stages_fit_what_is_theirs():
    assert [stage.trainable for stage in STAGES] == [("lr", "decoder"), ("guide",), ("guide",)]
    assert STAGES[1].steps == 15_000


def test_response_must_be_known(scene):
    pair = observed(scene)
    with pytest.raises(InputError, match="operator of 'guide' is not known"):
        fit_usdn(pair.observation, pair.model.replace(operators={"guide": None}), key=jax.random.key(0))
