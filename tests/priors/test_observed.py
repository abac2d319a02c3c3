"""A generator fitted through the observation model: its loss, its code, and what it learns of the sensors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from priors.degradation import Degradation
from priors.fit import Schedule, Stage, fitter
from priors.observed import Code, Observed, observation_loss, plan_observed
from priors.pair import Pair

GRID = Grid.nested(2)
BANDS = Bands(4, 2, 2)
SRF = jnp.asarray([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]], jnp.float32)
STAGE = Stage(observation_loss, 30, Schedule(1e-1), average=0.5)


class Painter(nnx.Module):
    """The simplest generator: the image itself, beside its code."""

    def __init__(self, bands: Bands, size: tuple[int, int]) -> None:
        self.image = nnx.Param(jnp.full((1, *size, bands.lr), 0.5))

    def __call__(self, code: jax.Array) -> jax.Array:
        return self.image[...] + code


def simulated(scene: np.ndarray) -> tuple[dict[str, jax.Array], ObservationModel]:
    target = jnp.asarray(scene[None, :16, :12, ::3])
    response = SpatialResponse(gaussian_psf(0.85, GRID), GRID.ratio, GRID.phase, "circular")
    model = ObservationModel({"lr": response, "guide": SpectralResponse(SRF)}, GRID)
    return model(target), model


def build(bands: Bands, size: tuple[int, int], rngs: nnx.Rngs) -> tuple[nnx.Module, Code]:
    return Painter(bands, size), Code((*size, 1), rngs=rngs)


def test_loss_is_the_sum_of_both_mean_squares(scene):
    observation, model = simulated(scene)
    module = Observed(Painter(BANDS, (16, 12)), Code((16, 12, 1), rngs=nnx.Rngs(0)), Degradation(model, BANDS))
    pair = Pair.of(observation, model)
    loss, (product, learned) = observation_loss(module, pair, jax.random.key(0))
    np.testing.assert_allclose(product, module.generator.image[...] + module.code.numbers[...])
    expected = sum(float(jnp.mean((model[name](product) - observation[name]) ** 2)) for name in ("lr", "guide"))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert learned == {}


def test_code_is_small_and_its_noise_as_large_as_asked():
    code = Code((40, 30, 8), rngs=nnx.Rngs(0))
    still = code(jax.random.key(0), 0.0)
    assert still.shape == (1, 40, 30, 8)
    assert 0 <= float(still.min()) < 0.001
    assert 0.099 < float(still.max()) <= 0.1
    noisy = [code(jax.random.key(k), 0.03) - still for k in range(2)]
    assert float(noisy[0].std()) == pytest.approx(0.03, rel=0.05)
    assert float(jnp.abs(noisy[0] - noisy[1]).max()) > 0.01


def test_known_sensors_are_used_and_unknown_ones_learned_in_any_unit(scene):
    observation, model = simulated(scene)
    digital = {name: 10_000 * image for name, image in observation.items()}
    fit = fitter(partial(plan_observed, build, STAGE))
    fitted = fit(digital, model, key=jax.random.key(0))
    assert fitted.model is model
    assert fitted.losses[-1] < 0.1 * fitted.losses[0]
    assert float(jnp.abs(model["guide"](fitted.product) - digital["guide"]).mean()) < 500

    blind = model.replace(operators=dict.fromkeys(model.operators))
    fitted = fit(observation, blind, key=jax.random.key(0))
    kernel, srf = fitted.model["lr"].psf, fitted.model["guide"].srf
    assert kernel.shape == (4, 4)
    for rows in (kernel.reshape(1, -1), srf):
        assert float(rows.min()) >= 0
        np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-4)
    assert float(jnp.abs(srf - 0.25).max()) > 0.01
