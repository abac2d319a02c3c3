"""HSI-CSR: its losses, its optimiser, and the design of a response."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf, psf_kernel
from priors.hsi_csr import FUSION, OPTIMISER, SpectralNetwork, design_response, fit_hsi_csr, fusion_loss
from priors.pair import Pair

GRID = Grid.nested(2)
BANDS = Bands(12, 3, 2)
SRF = jnp.asarray(np.kron(np.eye(3), np.ones((1, 4))) / 4, jnp.float32)
SIZES = {"width": 4, "layers": 1}


def simulated(scene: np.ndarray) -> tuple[dict[str, jax.Array], ObservationModel, jax.Array]:
    target = jnp.asarray(scene[None, :24, :24])
    response = SpatialResponse(gaussian_psf(0.85, GRID), GRID.ratio, GRID.phase, "circular")
    model = ObservationModel({"lr": response, "guide": SpectralResponse(SRF)}, GRID)
    return model(target), model, target


def test_loss_is_the_papers(scene):
    observation, model, _ = simulated(scene)
    f = SpectralNetwork(BANDS, rngs=nnx.Rngs(0), **SIZES)
    value, product = nnx.jit(fusion_loss)(f, Pair.of(observation, model), jax.random.key(0))
    y, z = observation["lr"], observation["guide"]
    squares = [jnp.sum((a - b) ** 2) for a, b in ((model["lr"](f(z)), y), (f(model["lr"](z)), y), (f(z) @ SRF.T, z))]
    assert float(value) == pytest.approx(float(25 * squares[0] + 25 * squares[1] + squares[2] / 2), rel=1e-4)
    np.testing.assert_allclose(product, f(z), rtol=1e-5, atol=1e-6)


def test_psfs_of_many_bands_blur_the_guide_as_one(scene):
    observation, model, _ = simulated(scene)
    banded = psf_kernel(gaussian_psf(0.85, GRID))[..., None] * jnp.ones(12)
    many = model.replace(operators=model.operators | {"lr": SpatialResponse(banded, 2, GRID.phase, "circular")})
    f = SpectralNetwork(BANDS, rngs=nnx.Rngs(0), **SIZES)
    values = [nnx.jit(fusion_loss)(f, Pair.of(observation, m), jax.random.key(0))[0] for m in (model, many)]
    assert float(values[0]) == pytest.approx(float(values[1]), rel=1e-4)


def test_rate_falls_to_a_tenth_twice():
    rates = [float(FUSION.rate(jnp.asarray(step / 5000))) for step in (0, 1999, 2001, 3999, 4001, 4999)]
    np.testing.assert_allclose(rates, [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-5)


def test_biases_learn_at_a_tenth():
    params = {"layer": {"kernel": jnp.zeros(2), "bias": jnp.zeros(2)}}
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, _ = jax.jit(lambda g, p: OPTIMISER.update(g, OPTIMISER.init(p), p))(gradients, params)
    np.testing.assert_allclose(updates["layer"]["bias"], 0.1 * updates["layer"]["kernel"], rtol=1e-5)
    np.testing.assert_allclose(updates["layer"]["kernel"], 1, rtol=1e-4)


def test_operators_must_be_known(scene):
    observation, model, _ = simulated(scene)
    for name in ("lr", "guide"):
        with pytest.raises(InputError, match=f"operator of '{name}' is not known"):
            fit_hsi_csr(observation, model.replace(operators=model.operators | {name: None}), key=jax.random.key(0))


def test_designed_response_is_a_response(scene):
    _, model, target = simulated(scene)
    free = model.replace(operators=model.operators | {"guide": None})
    response = design_response(target, free, 2, key=jax.random.key(0), effort=0.01, **SIZES)
    assert response.srf.shape == (2, 12)
    assert float(response.srf.min()) >= 0
    np.testing.assert_allclose(response.srf.sum(-1), 1, rtol=1e-5)
    assert float(jnp.abs(response.srf - 1 / 12).max()) > 1e-4
    assert float(jnp.abs(response.srf[0] - response.srf[1]).max()) > 1e-4
