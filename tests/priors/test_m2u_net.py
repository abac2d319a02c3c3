"""M2U-Net: its size, its gates, its stages, and a fit of a few steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.inference.run import count_parameters
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from priors.degradation import Degradation
from priors.m2u_net import (
    IMAGE,
    MAPPING,
    SENSORS,
    DualUNet,
    M2UNet,
    SpectralMapping,
    _Guided,
    fit_m2u_net,
    halve,
    image_loss,
    mapping_loss,
)
from priors.pair import Pair

GRID = Grid.nested(2)
BANDS = Bands(12, 3, 2)
TINY = {"width": 6, "scales": 2}


def simulated(scene: np.ndarray) -> tuple[dict[str, jax.Array], ObservationModel]:
    target = jnp.asarray(scene[None, :24, :24])
    srf = jnp.asarray(np.kron(np.eye(3), np.ones((1, 4))) / 4, jnp.float32)
    response = SpatialResponse(gaussian_psf(0.85, GRID), GRID.ratio, GRID.phase, "circular")
    model = ObservationModel({"lr": response, "guide": SpectralResponse(srf)}, GRID)
    return model(target), model


def test_sizes_are_the_releases():
    bands = Bands(54, 8, 12)
    network = nnx.eval_shape(lambda: DualUNet(bands, rngs=nnx.Rngs(0)))
    assert count_parameters(network) == 14_135_758
    stream = nnx.eval_shape(lambda: SpectralMapping(bands, rngs=nnx.Rngs(0)))
    assert count_parameters(stream) == 2776 + 4232 + 1782
    blind = ObservationModel({"lr": None, "guide": None}, Grid.nested(12))
    assert count_parameters(Degradation(blind, bands, ("clipped", "clipped"))) == 12**2 + 8 * 54


@pytest.mark.parametrize("size", [(32, 24), (33, 47), (10, 9)])
def test_network_takes_any_size(size):
    def run() -> jax.Array:
        network = DualUNet(Bands(5, 3, 2), width=4, rngs=nnx.Rngs(0))
        return network(jnp.ones((1, *size, 5)), jnp.ones((1, *size, 3)))

    assert jax.eval_shape(run).shape == (1, *size, 5)


def test_an_odd_size_is_halved_upwards():
    x = jnp.arange(3.0)[None, :, None, None] * jnp.ones((1, 1, 4, 1))
    np.testing.assert_allclose(halve(x)[0, :, :, 0], [[0.5, 0.5], [2, 2]])


def test_the_guide_weights_channels_of_the_image():
    gate = _Guided((4, 3), 10, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    x, z = (jnp.asarray(rng.random((1, 8, 8, n)), jnp.float32) for n in (4, 3))
    gated, _ = gate(x, z)
    weights = gated / gate.image(x)
    np.testing.assert_allclose(weights - weights[:, :1, :1], 0, atol=1e-5)
    assert 0 < float(weights.min()) < float(weights.max()) < 1


def test_losses_are_the_papers(scene):
    observation, model = simulated(scene)
    pair = Pair.of(observation, model)
    module = M2UNet(BANDS, Degradation(model, BANDS), rngs=nnx.Rngs(0), **TINY)
    y, z = observation["lr"], observation["guide"]
    one, other = module.mapping
    expected = jnp.abs(one(model["guide"](y)) - y).mean() + jnp.abs(other(model["lr"](z)) - y).mean()
    assert float(mapping_loss(module, pair, jax.random.key(0))[0]) == pytest.approx(float(expected), rel=1e-4)
    loss, (product, _) = image_loss(module, pair, jax.random.key(0))
    np.testing.assert_allclose(product, module.generator((one(z) + other(z)) / 2, z), atol=1e-5)
    expected = jnp.abs(model["guide"](product) - z).mean() + jnp.abs(model["lr"](product) - y).mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)


def test_each_stage_fits_its_own_part():
    assert [stage.steps for stage in (SENSORS["clipped"], MAPPING, IMAGE)] == [6000, 4000, 14_000]
    assert [stage.trainable for stage in (SENSORS["clipped"], MAPPING, IMAGE)] == [
        ("degradation",),
        ("mapping",),
        ("generator",),
    ]


def test_unknown_sensors_are_returned_on_the_simplex(scene):
    observation, model = simulated(scene)
    blind = model.replace(operators={"lr": None, "guide": None})
    fitted = fit_m2u_net(observation, blind, key=jax.random.key(0), effort=0.003, **TINY)
    assert fitted.product.shape == (1, 24, 24, 12)
    assert fitted.losses[-1] < fitted.losses[0]
    for rows in (fitted.model["lr"].psf.reshape(1, -1), fitted.model["guide"].srf):
        assert float(rows.min()) >= 0
        np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-5)
