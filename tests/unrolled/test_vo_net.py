"""VO+Net's own equations; what every network promises is in tests/test_catalogue.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from learning import every_parameter_learns

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from unrolled.vo_net import LAMBDA, Terms, VONet, modulation, network_loss, solve

GRID = Grid(2, (0.5, 1.0))
BANDS = Bands(3, 1, 2)
SRF = jnp.asarray([[0.2, 0.3, 0.5]])


def sensors(boundary: str = "reflect") -> ObservationModel:
    spatial = SpatialResponse(gaussian_psf(0.6, GRID), 2, GRID.phase, boundary)
    return ObservationModel({"lr": spatial, "guide": SpectralResponse(SRF)}, GRID)


@pytest.fixture(scope="module")
def target():
    return jax.random.uniform(jax.random.key(0), (1, 12, 10, 3), minval=0.2)


def tiny(**sizes) -> VONet:
    return VONet(BANDS, width=4, blocks=1, rounds=2, turns=3, rngs=nnx.Rngs(0), **sizes)


@pytest.mark.parametrize("boundary", ["circular", "reflect"])
def test_turns_lead_to_the_minimiser(boundary: str, target) -> None:
    """Of the three terms together, against dense normal equations in float64."""
    model = sensors(boundary)
    keys = jax.random.split(jax.random.key(1), 3)
    gain, trust = (jax.random.uniform(key, target.shape, minval=0.8, maxval=1.2) for key in keys[:2])
    terms = Terms(target + 0.1 * jax.random.normal(keys[2], target.shape), gain, trust)
    lr, alpha = model["lr"](target), 0.004
    run = jax.jit(lambda: solve(terms, lr, model["lr"], jnp.asarray(alpha), rounds=20, turns=100))
    found = run()[:, 0]

    pixels = jnp.eye(120).reshape(120, 12, 10, 1)
    B, H = (np.asarray(jax.vmap(f)(pixels), np.float64).reshape(120, -1).T for f in (model["lr"].blur, model["lr"]))
    for band in range(3):
        tau, W, N = (np.asarray(t[0, ..., band], np.float64).ravel() for t in (gain, trust, terms.network))
        spatial = np.eye(120) - tau[:, None] * B
        normal = H.T @ H + 2 * LAMBDA * spatial.T @ spatial + 2 * alpha * np.diag(W)
        wanted = np.linalg.solve(normal, H.T @ np.asarray(lr[0, ..., band]).ravel() + 2 * alpha * W * N)
        assert wanted.min() > 0  # or else the bound would have a say
        np.testing.assert_allclose(found[-1, ..., band].ravel(), wanted, atol=2e-3)
    assert float(jnp.abs(found[1] - found[-1]).max()) < 0.02  # the paper's 200 turns


def test_gain_is_high_pass_modulation(target) -> None:
    """It restores what the guide lost, and adds nothing where the guide is flat."""
    model = sensors()
    guide = target.mean(-1, keepdims=True)
    observation = {"lr": model["lr"](target), "guide": guide}
    gain = modulation(observation, model)
    level, contrast = observation["lr"].mean((1, 2)), observation["lr"].std((1, 2)) / guide.std()
    matched = (guide - guide.mean()) * contrast + level
    np.testing.assert_allclose(gain * model["lr"].blur(matched), matched, atol=1e-4)
    flat = {**observation, "guide": jnp.full_like(guide, 0.3)}
    np.testing.assert_allclose(modulation(flat, model), 1, atol=1e-5)


def test_network_is_trusted_by_its_errors(target) -> None:
    """Each term counts by the inverse of its mean squared error in training, and only in training."""
    model = sensors()
    observation = model(target)
    network = tiny()
    assert float(network.alpha()) == pytest.approx(LAMBDA)
    step = nnx.jit(lambda network: network_loss(network, observation, model, target))
    step(network)
    terms = network.terms(observation, model)
    spatial = jnp.mean((target - terms.gain * model["lr"].blur(target)) ** 2)
    error = jnp.mean(terms.trust * (target - terms.network) ** 2)
    np.testing.assert_allclose(network.alpha(), LAMBDA * spatial / error, rtol=1e-3)
    before = network.errors[...]
    network.eval()
    step(network)
    np.testing.assert_array_equal(network.errors[...], before)
    report = network(observation, model, stages=True)
    np.testing.assert_allclose(report.estimates[0], terms.network, atol=1e-5)
    np.testing.assert_allclose(report.steps["alpha"], [network.alpha()] * 2)


@pytest.mark.parametrize("physics", ["exact", "learned"])
def test_every_physics_runs_and_learns(physics, target) -> None:
    network, model = tiny(physics=physics), sensors()
    pair = model(target), model, target
    every_parameter_learns(network, network_loss, pair)
    product = jax.jit(network)(*pair[:2])
    assert product.shape == pair[2].shape
    assert bool(jnp.isfinite(product).all())


def test_physics_that_has_no_adjoint_is_refused() -> None:
    with pytest.raises(InputError, match="exact or learned"):
        tiny(physics="free")
