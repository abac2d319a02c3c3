"""NonRegSRNet: its registration, its loss, and what it returns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.inference.run import count_parameters
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf, upsample
from jfusion.operators.warp import warp
from priors.coupled import project
from priors.degradation import Degradation
from priors.fit import Schedule, fit
from priors.nonregsrnet import (
    STAGE,
    DisplacementField,
    NonRegSrNet,
    correlation,
    fit_nonregsrnet,
    joint_loss,
    roughness,
)
from priors.pair import Pair

GRID = Grid.nested(2)
BANDS = Bands(12, 3, 2)
SRF = jnp.asarray(np.kron(np.eye(3), np.ones((1, 4))) / 4, jnp.float32)
TINY = {"endmembers": 6, "widths": (16, 16), "levels": (4, 6)}
SMALL = {"endmembers": 16, "widths": (32, 32), "levels": (8, 16)}
RESPONSE = SpatialResponse(gaussian_psf(0.85, GRID), GRID.ratio, GRID.phase, "circular")
MODEL = ObservationModel({"lr": RESPONSE, "guide": SpectralResponse(SRF)}, GRID)
BLIND = MODEL.replace(operators={"lr": None, "guide": None})
RNG = np.random.default_rng(0)


def test_the_released_form_has_the_published_size():
    def build(signed):
        return nnx.eval_shape(lambda: NonRegSrNet(Bands(191, 6, 4), signed=signed, rngs=nnx.Rngs(0)))

    assert count_parameters(build(False)) == 2_078_836
    assert count_parameters(build(False).displacement) == 1_601_286
    assert count_parameters(build(True)) == 2_078_836 - 4


@pytest.mark.parametrize("signed", [True, False])
def test_field(signed):
    features = [jnp.asarray(RNG.uniform(size=(1, 6, 8, 5)), jnp.float32) for _ in range(2)]
    module = DisplacementField(10, (4, 6), signed, rngs=nnx.Rngs(0))
    field = nnx.jit(module)(*features)
    assert field.shape == (6, 8, 2)
    if signed:
        assert not field.any()
    else:
        assert float(field.min()) == 0 < float(field.max())


def test_correlation_and_roughness():
    a = jnp.asarray(RNG.uniform(size=(1, 4, 5, 30)), jnp.float32)
    ones = jnp.ones((1, 4, 5, 1))
    assert float(correlation(a, 0.3 + 2 * a, ones)) == pytest.approx(1, abs=1e-4)
    b = jnp.asarray(RNG.uniform(size=(1, 4, 5, 30)), jnp.float32)
    pixels = [np.corrcoef(*np.stack([a, b])[:, 0, i, j])[0, 1] ** 2 for i in range(4) for j in range(5)]
    assert float(correlation(a, b, ones)) == pytest.approx(np.mean(pixels), abs=1e-4)
    first = ones.at[:, 1:].set(0)
    assert float(correlation(a, b, first)) == pytest.approx(np.mean(pixels[:5]), abs=1e-4)
    ramp = jnp.stack(jnp.meshgrid(2.0 * jnp.arange(4), jnp.arange(5.0), indexing="ij"), -1)
    assert float(roughness(ramp)) == pytest.approx((4 + 1) / 4)


def test_loss_is_the_sum_of_its_terms(scene):
    observed = MODEL(jnp.asarray(scene[None, :8, :8]))
    y, z = observed["lr"], observed["guide"]
    module = NonRegSrNet(BANDS, Degradation(BLIND, BANDS), rngs=nnx.Rngs(0), **TINY)
    project(module)
    shift = jnp.asarray([0.3, -0.6])
    module.displacement.field.bias[...] = shift

    @nnx.jit
    def compared(module):
        loss, (product, model, field) = joint_loss(module, Pair.of(observed, BLIND), jax.random.key(0))
        coarse, fine = jnp.clip(module.lr(y), 0, 1), jnp.clip(module.guide(z), 0, 1)
        registered = warp(coarse, shift, "zero")
        terms = [
            (1, module.decode(coarse), y),
            (1, model["guide"](product), z),
            (1, module.decode(registered), model["lr"](product)),
            (0.01, coarse.sum(-1), 1),
            (0.01, fine.sum(-1), 1),
            (0.01, correlation(registered, model["lr"](fine), jnp.ones((1, 4, 4, 1))), 1),
        ]
        return loss, sum(weight * jnp.abs(a - b).sum() for weight, a, b in terms), field

    loss, expected, field = compared(module)
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)
    np.testing.assert_allclose(field, jnp.broadcast_to(shift, field.shape), rtol=1e-5)


def test_recipe_is_the_papers():
    assert STAGE.steps == 10_000
    assert dict(STAGE.rates) == {"displacement": 0.5}
    rates = [float(STAGE.rate(jnp.asarray(done))) for done in (0.0, 0.2, 0.6, 1.0)]
    np.testing.assert_allclose(rates, [3e-4, 3e-4, 1.5e-4, 0], atol=1e-10)


def test_a_displacement_of_negative_sign_is_found(scene):
    """The low-resolution image comes shifted; the field takes it back, and the product stays on the guide's grid."""
    target = upsample(jnp.asarray(scene[None, :8, :8]), Grid.nested(4), "cubic")
    observed = MODEL(target)
    shift = jnp.asarray([0.7, -1.0])
    pair = Pair.of(observed | {"lr": warp(observed["lr"], -shift)}, MODEL)
    stage = dataclasses.replace(STAGE, steps=600, rate=Schedule(5e-3, hold=0.2))
    fitted = fit(
        lambda key: NonRegSrNet(BANDS, Degradation(MODEL, BANDS), rngs=nnx.Rngs(key), **SMALL),
        pair,
        (stage,),
        key=jax.random.key(0),
    )
    product, _, field = fitted.output
    error, variance = float(jnp.mean((product - target) ** 2)), float(jnp.mean((target - target.mean((1, 2))) ** 2))
    assert error < variance / 4
    np.testing.assert_allclose(np.median(field[3:-3, 3:-3], (0, 1)), shift, atol=0.25)


@pytest.mark.parametrize("constrained", [True, False])
def test_unknown_sensors_are_estimated_and_returned(scene, constrained):
    observed = MODEL(jnp.asarray(scene[None, :16, :24]))
    fitted = fit_nonregsrnet(
        observed, BLIND, key=jax.random.key(0), effort=0.004, constrained=constrained, signed=constrained, **TINY
    )
    assert fitted.product.shape == (1, 16, 24, 12)
    assert fitted.losses[-1] < fitted.losses[0]
    kernel, srf = fitted.model["lr"].psf, fitted.model["guide"].srf
    assert float(kernel.min()) >= 0
    assert float(srf.min()) >= 0
    np.testing.assert_allclose(srf.sum(-1), 1, rtol=1e-5)
    assert np.allclose(kernel.sum(), 1, rtol=1e-6) == constrained
