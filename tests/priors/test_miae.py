"""MIAE: its size, its stages, and that it sees single pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.inference.run import count_parameters
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf, upsample
from priors.degradation import Degradation
from priors.miae import DECAYED_ADAM, FUSION, SENSORS, Miae, ModelInspiredAutoencoder, fit_miae, fusion_loss
from priors.pair import Pair
from priors.sensing import sensing_loss

GRID = Grid.nested(2)
BANDS = Bands(12, 3, 2)
TINY = {"endmembers": 8, "stages": 2}


def simulated(scene: np.ndarray) -> tuple[dict[str, jax.Array], ObservationModel, jax.Array]:
    target = jnp.asarray(scene[None, :24, :24])
    srf = jnp.asarray(np.kron(np.eye(3), np.ones((1, 4))) / 4, jnp.float32)
    response = SpatialResponse(gaussian_psf(0.85, GRID), GRID.ratio, GRID.phase, "circular")
    model = ObservationModel({"lr": response, "guide": SpectralResponse(srf)}, GRID)
    return model(target), model, target


@pytest.mark.parametrize(
    ("bands", "endmembers", "count"), [(Bands(103, 4, 8), 80, 87_840), (Bands(191, 4, 8), 30, 21_720)]
)
def test_size_is_the_releases(bands, endmembers, count):
    network = nnx.eval_shape(lambda: ModelInspiredAutoencoder(bands, endmembers=endmembers, rngs=nnx.Rngs(0)))
    assert count_parameters(network) == count


def test_blind_network_has_the_releases_size():
    model = ObservationModel({"lr": None, "guide": None}, Grid.nested(8))
    degradation = Degradation(model, Bands(103, 4, 8), ("clipped", "clipped"), psf="overlapping")
    assert count_parameters(degradation) == 15**2 + 4 * 103 == 637


def test_no_pixel_sees_another():
    network = ModelInspiredAutoencoder(BANDS, rngs=nnx.Rngs(0), **TINY)
    rng = np.random.default_rng(0)
    y, z = (jnp.asarray(rng.random((1, 4, 4, n)), jnp.float32) for n in (12, 3))
    whole = network(y, z)
    np.testing.assert_allclose(network(y[:, :1, 2:3], z[:, :1, 2:3]), whole[:, :1, 2:3], atol=1e-6)
    assert float(jnp.ptp(whole)) > 1e-3


def test_loss_is_the_sum_over_both_images(scene):
    observation, model, _ = simulated(scene)
    pair = Pair.of(observation, model)
    module = Miae(pair, BANDS, Degradation(model, BANDS), rngs=nnx.Rngs(0), **TINY)
    loss, (product, _) = fusion_loss(module, pair, jax.random.key(0))
    expected = module.generator(upsample(observation["lr"], GRID, "bilinear"), observation["guide"])
    np.testing.assert_allclose(product, expected, atol=1e-6)
    terms = [np.abs(np.asarray(model[key](product) - observation[key])).sum() for key in ("lr", "guide")]
    assert float(loss) == pytest.approx(sum(terms), rel=1e-4)


def test_weight_decay_is_part_of_the_gradient():
    """Adam then turns even a small decay into a step of full length; beside Adam, it would be 1/1000."""
    weights = {"a": jnp.asarray([2.0, -3.0])}
    direction, _ = DECAYED_ADAM.update(jax.tree.map(jnp.zeros_like, weights), DECAYED_ADAM.init(weights), weights)
    np.testing.assert_allclose(direction["a"], [1, -1], atol=1e-3)


def test_schedules_are_the_releases():
    assert (SENSORS["clipped"].steps, FUSION.steps) == (5000, 10_000)
    rates = [float(FUSION.rate(jnp.asarray(step / 10_000))) for step in (0, 1000, 5500, 10_000)]
    np.testing.assert_allclose(rates, [5e-3, 5e-3, 2.5e-3, 0], atol=1e-9)


@pytest.mark.parametrize("constraint", ["clipped", "softmax"])
def test_unknown_sensors_are_found_first(scene, constraint):
    observation, model, target = simulated(scene)
    blind = model.replace(operators={"lr": None, "guide": None})
    fitted = fit_miae(observation, blind, key=jax.random.key(0), effort=0.04, constraint=constraint, **TINY)
    for rows in (fitted.model["lr"].psf.reshape(1, -1), fitted.model["guide"].srf):
        assert float(rows.min()) >= 0
        np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-5)

    class Known:
        degradation = staticmethod(lambda _: fitted.model)

    class Flat:
        degradation = Degradation(blind, BANDS, ("clipped", "clipped"), psf="overlapping")

    found, before = (float(sensing_loss(m, Pair.of(observation, blind), None)[0]) for m in (Known, Flat))
    assert found < 0.9 * before
    cubic = upsample(observation["lr"], GRID, "cubic")
    assert float(jnp.mean((fitted.product - target) ** 2)) < float(jnp.mean((cubic - target) ** 2))


def test_an_encoder_without_stages_is_refused():
    with pytest.raises(InputError, match="at least 1 stage"):
        ModelInspiredAutoencoder(BANDS, stages=0, rngs=nnx.Rngs(0))
