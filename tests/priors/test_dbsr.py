"""DBSR: its sizes, its losses, what its stages hand on, and a fit of a few steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.inference.run import count_parameters
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf, upsample
from priors.dbsr import (
    DBSR,
    IMAGE,
    SPATIAL,
    SPATIAL_PATCH,
    SPECTRAL,
    SPECTRAL_PATCH,
    Dbsr,
    epochs,
    fit_dbsr,
    image_loss,
    spatial_loss,
    spectral_loss,
)
from priors.degradation import Degradation
from priors.pair import Pair

GRID = Grid.nested(2)
BANDS = Bands(12, 3, 2)
TINY = {"width": 4, "scales": 1, "window": 3}


def simulated(scene: np.ndarray, side: int = 24) -> tuple[dict[str, jax.Array], ObservationModel]:
    target = jnp.asarray(scene[None, :side, :side])
    srf = jnp.asarray(np.kron(np.eye(3), np.ones((1, 4))) / 4, jnp.float32)
    response = SpatialResponse(gaussian_psf(0.85, GRID), GRID.ratio, GRID.phase, "circular")
    model = ObservationModel({"lr": response, "guide": SpectralResponse(srf)}, GRID)
    return model(target), model


def test_sizes_are_the_releases():
    model = ObservationModel({"lr": None, "guide": None}, Grid.nested(8))
    images = {"lr": jnp.zeros((1, 4, 4, 31)), "guide": jnp.zeros((1, 32, 32, 3))}
    degradation = Degradation(model, Bands(31, 3, 8), psf="wide")
    module = nnx.eval_shape(lambda: Dbsr(Pair.of(images, model), degradation, rngs=nnx.Rngs(0)))
    counts = [count_parameters(part) for part in (module.generator, module.spectral, module.spatial, degradation)]
    assert counts == [8_549_704, 362_750, 477_344, 32**2 + 3 * 31]


def test_steps_are_those_of_the_releases_epochs():
    assert epochs(SPECTRAL, (64, 64), SPECTRAL_PATCH) == SPECTRAL
    assert epochs(SPATIAL, (64, 64), SPATIAL_PATCH) == SPATIAL
    assert epochs(SPATIAL, (25, 12), SPATIAL_PATCH).steps == 500 * 6
    assert epochs(SPECTRAL, (5, 7), SPECTRAL_PATCH).steps == 500
    assert DBSR.method.steps == 2000 + 1 + 32_000 + 1 + 5001
    rates = [float(IMAGE.rate(jnp.asarray(step / 5001))) for step in (0, 999, 1001, 5000.5)]
    np.testing.assert_allclose(rates, [1.2e-3, 1.2e-3, 0.84e-3, 1.2e-3 * 0.7**5], rtol=1e-5)


def test_networks_of_the_code_keep_the_size_of_their_patches_throughout():
    images = {"lr": jnp.zeros((1, 3, 3, 12)), "guide": jnp.zeros((1, 6, 6, 3))}
    model = ObservationModel({"lr": None, "guide": None}, GRID)
    module = Dbsr(Pair.of(images, model), Degradation(model, BANDS), rngs=nnx.Rngs(0), **TINY)
    for network in (module.spectral, *module.spatial):
        assert {scale.stride for scale in network.scales} == {1}
    assert {scale.stride for scale in module.generator.scales} == {2}


def test_losses_are_the_papers(scene):
    observation, model = simulated(scene, 8)
    pair = Pair.of(observation, model)
    module = Dbsr(pair, Degradation(model, BANDS), rngs=nnx.Rngs(0), **TINY)
    y, key = observation["lr"], jax.random.key(0)
    # the whole image is the one patch, four times
    expected = jnp.abs(module.spectral(model["guide"](y)) - y).mean()
    assert float(spectral_loss(module, pair, key)[0]) == pytest.approx(float(expected), rel=1e-3)
    fine = module.mapped.image[...] = module.spectral(observation["guide"])
    coarse = module.blurred.image[...] = model["lr"](fine)
    before, after = module.spatial
    expected = jnp.abs(after(upsample(before(coarse), GRID, "bilinear")) - fine).mean()
    assert float(spatial_loss(module, pair, key)[0]) == pytest.approx(float(expected), rel=1e-3)
    module.code.image[...] = fine
    loss, (product, _) = image_loss(module, pair, key)
    np.testing.assert_allclose(product, module.generator(fine), atol=1e-5)
    expected = jnp.abs(model["lr"](product) - y).mean() + jnp.abs(model["guide"](product) - observation["guide"]).mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)


def test_unknown_sensors_are_returned_on_the_simplex(scene):
    observation, model = simulated(scene)
    blind = model.replace(operators={"lr": None, "guide": None})
    fitted = fit_dbsr(observation, blind, key=jax.random.key(0), effort=10 / IMAGE.steps, **TINY)
    assert fitted.product.shape == (1, 24, 24, 12)
    assert fitted.losses[-1] < fitted.losses[0]
    assert fitted.model["lr"].psf.shape == (8, 8)
    for rows in (fitted.model["lr"].psf.reshape(1, -1), fitted.model["guide"].srf):
        assert float(rows.min()) >= 0
        np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-5)
