"""The terms that losses are made of: distances, and what they compare."""

import jax
import jax.numpy as jnp
import numpy as np

from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse
from priors.pair import Pair, degraded, half_l2, mean_l1, mean_l2, misfits, sum_l1

RNG = np.random.default_rng(1)
A, B = (jnp.asarray(RNG.standard_normal((1, 4, 4, 3)), jnp.float32) for _ in range(2))
WEIGHT = jnp.ones((1, 4, 4, 1)).at[0, 1].set(0).at[0, 2, 2].set(0)


def test_distances_are_of_weighted_pixels():
    seen = (A - B)[0][np.asarray(WEIGHT[0, ..., 0]) > 0]
    assert seen.shape == (11, 3)
    np.testing.assert_allclose(mean_l1(A, B, WEIGHT), jnp.abs(seen).mean(), rtol=1e-6)
    np.testing.assert_allclose(mean_l2(A, B, WEIGHT), (seen**2).mean(), rtol=1e-6)
    np.testing.assert_allclose(sum_l1(A, B, WEIGHT), jnp.abs(seen).sum(), rtol=1e-6)
    np.testing.assert_allclose(half_l2(A, B, WEIGHT), (seen**2).sum() / 2, rtol=1e-6)


def test_each_sensor_is_compared_with_its_own_image_where_that_has_weight():
    kernels = jnp.asarray(RNG.dirichlet(np.ones(4), 6).T.reshape(2, 2, 6), jnp.float32)
    response = SpectralResponse(jnp.asarray(RNG.dirichlet(np.ones(6), 2), jnp.float32))
    model = ObservationModel({"lr": SpatialResponse(kernels, 2, (0, 0)), "guide": response}, Grid.nested(2))
    image, product = jax.random.uniform(jax.random.key(0), (2, 1, 8, 8, 6))
    pair = Pair.of(model(image), model).only({"lr": np.arange(16).reshape(4, 4) > 5})
    for distance in (mean_l1, half_l2):
        lr, guide = misfits(distance, model, product, pair)
        np.testing.assert_allclose(
            lr, distance(model["lr"](product), pair.observation["lr"], pair.weight["lr"]), rtol=1e-6
        )
        np.testing.assert_allclose(
            guide, distance(model["guide"](product), pair.observation["guide"], pair.weight["guide"]), rtol=1e-6
        )
    np.testing.assert_allclose(misfits(mean_l1, model, image, pair), 0, atol=1e-6)


def test_both_images_are_brought_to_what_both_sensors_would_see():
    """Exactly the same where one PSF is that of all bands; where there are several, their mean sees the guide."""
    response = SpectralResponse(jnp.asarray(RNG.dirichlet(np.ones(6), 2), jnp.float32))
    image = jax.random.uniform(jax.random.key(0), (1, 8, 8, 6))
    kernels = jnp.asarray(RNG.dirichlet(np.ones(4), 6).T.reshape(2, 2, 6), jnp.float32)
    for psf in (kernels[..., 0], kernels):
        model = ObservationModel({"lr": SpatialResponse(psf, 2, (0, 0)), "guide": response}, Grid.nested(2))
        pair = Pair.of(model(image), model)
        mixed, blurred = degraded(model, pair)
        assert mixed.shape == blurred.shape == (1, 4, 4, 2)
        mean = SpatialResponse(psf if psf.ndim == 2 else psf.mean(-1), 2, (0, 0))
        np.testing.assert_allclose(blurred, mean(pair.observation["guide"]), rtol=1e-5)
        np.testing.assert_allclose(mixed, pair.observation["lr"] @ response.srf.T, rtol=1e-5)
        if psf.ndim == 2:
            np.testing.assert_allclose(mixed, blurred, rtol=1e-5)


def test_many_pixels_of_half_precision_are_counted():
    """A float16 holds no number above 65,504: a mean over more pixels would be nothing."""
    model = ObservationModel({"lr": None, "guide": None}, Grid.nested(1))
    images = {"lr": jnp.zeros((1, 300, 300, 1), jnp.float16), "guide": jnp.zeros((1, 300, 300, 1), jnp.float16)}
    pair = Pair.of(images, model)
    found = mean_l1(pair.observation["lr"] + 0.5, pair.observation["lr"], pair.weight["lr"])
    np.testing.assert_allclose(found, 0.5, rtol=1e-5)
