"""CNN-Fus's own equations and FFDNet's layout; what every network promises is in tests/test_catalogue.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from learning import every_parameter_learns

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.layers.ffdnet import FFDNet
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from unrolled.cnn_fus import CNNFus, denoising_error, held_out_error, principal_spectra

GRID = Grid(2, (0.0, 1.0))
SRF = np.array([[0.5, 0.5, 0, 0, 0], [0, 0, 0.2, 0.3, 0.5]])


@pytest.fixture(scope="module")
def network() -> CNNFus:
    return CNNFus(Bands(5, 2, 2), turns=3, rank=3, width=4, depth=2, rngs=nnx.Rngs(0))


def one_layer(channel: int | None) -> FFDNet:
    """A denoiser that returns its input, or one of the four pixels of each 2 x 2 in the place of all."""
    net = FFDNet(depth=1, rngs=nnx.Rngs(0))
    kernel = np.zeros((3, 3, 5, 4), np.float32)
    kernel[1, 1, :4] = np.eye(4)
    if channel is not None:
        kernel[1, 1] = 0
        kernel[1, 1, channel] = 1
    net.convs[0].kernel[...] = jnp.asarray(kernel)
    return net


def test_pixels_become_channels_and_come_back() -> None:
    image = jax.random.uniform(jax.random.key(0), (2, 3, 5, 7))
    np.testing.assert_array_equal(one_layer(None)(image, jnp.zeros((2, 3))), image)
    found = one_layer(1)(image[..., :4, :6], jnp.zeros((2, 3)))
    np.testing.assert_array_equal(found, np.kron(image[..., 1:4:2, 0:6:2], np.ones((2, 2))))


def test_denoiser_is_told_the_noise() -> None:
    net = one_layer(4)
    found = net(jnp.zeros((2, 3, 4)), jnp.asarray([0.1, 0.2]))
    np.testing.assert_allclose(found, np.broadcast_to(np.reshape([0.1, 0.2], (2, 1, 1)), (2, 3, 4)), rtol=1e-6)


def test_denoising_follows_the_units(network) -> None:
    x = jax.random.normal(jax.random.key(1), (2, 6, 7, 3))
    plain = network.denoised(x, jnp.asarray(0.1))
    np.testing.assert_allclose(network.denoised(3 * x + 2, jnp.asarray(0.3)), 3 * plain + 2, atol=1e-4)
    constant = jnp.full((1, 6, 6, 3), 0.7)
    assert bool(jnp.isfinite(network.denoised(constant, jnp.asarray(0.1))).all())


def test_pairs_of_fewer_bands_than_the_rank_are_served(network) -> None:
    spatial = SpatialResponse(gaussian_psf(0.8, GRID), 2, GRID.phase, "circular")
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(jnp.asarray([[0.5, 0.5]]))}, GRID)
    product = nnx.jit(lambda network: network(model(jnp.ones((1, 4, 4, 2))), model))(network)
    assert product.shape == (1, 4, 4, 2)
    assert bool(jnp.isfinite(product).all())


def test_turns_are_the_papers(network) -> None:
    """Against dense normal equations in float64, of a periodic scene."""
    target = jax.random.uniform(jax.random.key(0), (1, 8, 6, 5))
    spatial = SpatialResponse(gaussian_psf(0.8, GRID), 2, GRID.phase, "circular")
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(jnp.asarray(SRF, jnp.float32))}, GRID)
    observation = model(target)
    found = nnx.jit(lambda network: network(observation, model, stages=True))(network)

    H = np.asarray(jax.vmap(spatial)(jnp.eye(48).reshape(48, 8, 6, 1)), np.float64).reshape(48, 12).T
    Y, Z = (np.asarray(observation[k][0], np.float64).reshape(-1, n) for k, n in (("lr", 5), ("guide", 2)))
    D = np.asarray(principal_spectra(observation["lr"], 3).vectors[0], np.float64)
    RD = SRF @ D
    V, G, mu, estimates = np.zeros((48, 3)), np.zeros((48, 3)), 1e-3, []
    for _ in range(3):
        normal = np.kron(H.T @ H, np.eye(3)) + np.kron(np.eye(48), RD.T @ RD + mu * np.eye(3))
        right = H.T @ Y @ D + Z @ RD + mu * (V + G / (2 * mu))
        A = np.linalg.solve(normal, right.ravel()).reshape(48, 3)
        noisy = jnp.asarray((A - G / (2 * mu)).reshape(1, 8, 6, 3), jnp.float32)
        V = np.asarray(network.denoised(noisy, jnp.asarray(1e-3 / (2 * mu))), np.float64).reshape(48, 3)
        G = G + 2 * mu * (V - A)
        estimates.append((A @ D.T).reshape(8, 6, 5))
        mu *= 1.1
    np.testing.assert_allclose(found.estimates[:, 0], estimates, atol=2e-3)
    np.testing.assert_allclose(found.steps["mu"], [1e-3, 1.1e-3, 1.21e-3], rtol=1e-5)


def test_noise_of_training_is_drawn_anew(network) -> None:
    target = jax.random.uniform(jax.random.key(2), (2, 6, 6, 5))
    error = jax.jit(lambda key: denoising_error(network, {}, ObservationModel({}, GRID), target, key))
    first, again, other = (float(error(jax.random.key(k))) for k in (0, 0, 1))
    assert first == again != other


def test_physics_can_be_learned() -> None:
    network = CNNFus(Bands(5, 2, 2), turns=2, rank=3, width=4, depth=2, physics="learned", rngs=nnx.Rngs(0))
    target = jax.random.uniform(jax.random.key(3), (1, 8, 6, 5))
    spatial = SpatialResponse(gaussian_psf(0.8, GRID), 2, GRID.phase, "circular")
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(jnp.asarray(SRF, jnp.float32))}, GRID)
    every_parameter_learns(network, held_out_error, (model(target), model, target))
    assert network(model(target), model).shape == target.shape
    fewer = {**model(target), "guide": model(target)["guide"][..., :1]}
    with pytest.raises(InputError, match="learned for"):
        network(fewer, model)
