"""Sensors drawn at random, and one network for any of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion import catalogue, sensors
from jfusion.data.simulate import Protocol, simulate
from jfusion.errors import InputError
from jfusion.operators import relative_residual
from jfusion.operators.psf import gaussian_psf, moving_psf
from jfusion.operators.spatial import psf_kernel
from jfusion.training.loop import Network, build, train
from jfusion.training.many_sensors import UNSEEN, ManySensors

WAVELENGTHS = np.linspace(420, 950, 12)
IMAGE = np.random.default_rng(0).uniform(0.1, 0.6, (24, 24, 12)).astype(np.float32)
TARGET = jnp.asarray(IMAGE)[None]
SUN = catalogue.get("sun")


@pytest.mark.parametrize("seed", range(4))
def test_moving_psf_has_the_moments_that_it_is_told(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sigma, (angle, way), motion = rng.uniform(1.5, 3, 2), rng.uniform(0, np.pi, 2), rng.uniform(0, 6)
    shift = rng.uniform(-2, 2, 2)
    kernel = np.asarray(moving_psf(sigma, angle, motion, way, shift, taps=41))
    places = np.stack(np.meshgrid(*[np.arange(41) - 20] * 2, indexing="ij"), -1)
    mean = np.einsum("ij,ijk->k", kernel, places)
    away = places - mean
    spread = np.einsum("ij,ijk,ijl->kl", kernel, away, away)
    np.testing.assert_allclose(kernel.sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(mean, -shift, atol=1e-3)
    # the axes of the Gaussian, and a line of 17 points, whose variance is that of a line times 18 / 16
    across = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    line = np.array([np.cos(way), np.sin(way)])
    expected = across.T @ np.diag(sigma**2) @ across + motion**2 / 12 * 18 / 16 * np.outer(line, line)
    np.testing.assert_allclose(spread, expected, rtol=2e-3, atol=2e-3)


def test_moving_psf_that_stands_still_and_is_round_is_the_gaussian() -> None:
    grid = Protocol(ratio=4).grid
    expected = psf_kernel(gaussian_psf(1.5, grid))
    made = moving_psf([1.5, 1.5], 0.7, 0.0, 0.3, np.array(grid.shift), taps=expected.shape[0])
    np.testing.assert_allclose(made, expected, atol=1e-7)


def test_responses_are_those_of_the_sensors_and_none_of_a_spectrometer() -> None:
    table = sensors.responses(["rapideye", "landsat8_oli", "prisma"], WAVELENGTHS)
    seen = sensors.get("rapideye").response(WAVELENGTHS)
    assert table.shape == (3, 5, 12)  # RapidEye, Landsat without what these wavelengths miss, and its pan
    np.testing.assert_allclose(table[0], seen)
    np.testing.assert_array_equal(table.any(-1).sum(1), [5, 5, 1])
    with pytest.raises(InputError, match="prisma"):
        sensors.responses(["prisma"], WAVELENGTHS)


@pytest.mark.parametrize(("seed", "ratio"), [(0, 2), (1, 3), (2, 4)])
def test_what_is_drawn_obeys_its_model_and_an_exact_product_obeys_what_is_drawn(seed: int, ratio: int) -> None:
    drawn = ManySensors(sensors.responses(["rapideye", "landsat8_oli"], WAVELENGTHS))
    made = jax.jit(drawn.observe, static_argnums=2)(jax.random.key(seed), TARGET, ratio)
    height = 24 // ratio * ratio
    assert made.target.shape == (1, height, height, 12)
    absent = ~made.model["guide"].srf.any(-1)
    for key, image in made.model(made.target).items():
        error, noise = made.observation[key] - image, made.model.noise[key]
        if key == "guide":
            assert (noise[absent] == UNSEEN).all()
            error, noise = error[..., ~absent], noise[~absent]
        np.testing.assert_allclose(jnp.std(error / noise), 1, atol=0.2)
    quiet = made._replace(observation=made.model(made.target))
    module = build(SUN, catalogue.Bands(12, 5, ratio), sizes=SUN.method.tiny)
    product = jax.jit(lambda *pair: module(*pair, exact=True))(quiet.observation, quiet.model)
    for key, image in quiet.model(product).items():
        assert float(relative_residual(image, quiet.observation[key])[0]) < 1e-3


def test_absent_bands_tell_nothing() -> None:
    pair = simulate(IMAGE, WAVELENGTHS, Protocol(ratio=2, guide_sensor="rapideye", lr_snr_db=35, guide_snr_db=40))
    module = build(SUN, catalogue.Bands(12, 5, 2), sizes=SUN.method.tiny)
    padded = jnp.pad(pair.observation["guide"], ((0, 0),) * 3 + ((0, 2),))
    srf = jnp.pad(pair.model["guide"].srf, ((0, 2), (0, 0)))
    noise = jnp.pad(pair.model.noise["guide"], (0, 2), constant_values=UNSEEN)
    model = pair.model.replace(
        operators={**pair.model.operators, "guide": type(pair.model["guide"])(srf)},
        noise={**pair.model.noise, "guide": noise},
    )
    expected = jax.jit(module)(pair.observation, pair.model)
    np.testing.assert_allclose(jax.jit(module)({**pair.observation, "guide": padded}, model), expected, atol=1e-4)


def test_network_for_many_sensors_learns_and_serves_a_pair_of_other_bands_and_ratio() -> None:
    drawn = ManySensors(sensors.responses(["rapideye", "landsat8_oli"], WAVELENGTHS), ratios=(2, 3))
    method = dataclasses.replace(SUN.method, stochastic=drawn.loss(SUN.method.loss))
    learn = simulate(IMAGE, WAVELENGTHS, Protocol(ratio=2, guide_sensor="rapideye"))
    result = train(
        dataclasses.replace(SUN, method=method), learn, steps=2, patch=16, batch=1, sizes=SUN.method.tiny, turn=False
    )
    assert np.isfinite(result.losses).all()
    other = simulate(IMAGE[..., :7], WAVELENGTHS[:7], Protocol(ratio=4, guide_sensor="quickbird",
                                                               guide_bands=("Blue", "Green")))  # fmt: skip
    product = result.network(other.observation, other.model)
    assert product.shape == other.target.shape
    assert jnp.isfinite(product).all()
    vp_net = catalogue.get("vp_net")
    plain = build(vp_net, result.network.bands, sizes=vp_net.method.tiny)
    with pytest.raises(InputError, match="was built for"):
        Network(vp_net, result.network.bands, {}, plain, 1.0)(other.observation, other.model)
