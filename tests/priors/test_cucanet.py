"""CUCaNet: its attentions, its loss, and what it returns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.operators import BlockAverage, Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from priors.coupled import clamp
from priors.cucanet import STAGE, CrossAttention, CucaNet, fit_cucanet, joint_loss, project
from priors.degradation import Degradation
from priors.pair import Pair

GRID = Grid.nested(2)
BANDS = Bands(12, 3, 2)
SRF = jnp.asarray(np.kron(np.eye(3), np.ones((1, 4))) / 4, jnp.float32)
TINY = {"endmembers": 6, "widths": (6, 8, 10)}
RESPONSE = SpatialResponse(gaussian_psf(0.85, GRID), GRID.ratio, GRID.phase, "circular")
MODEL = ObservationModel({"lr": RESPONSE, "guide": SpectralResponse(SRF)}, GRID)
BLIND = MODEL.replace(operators={"lr": None, "guide": None})
RNG = np.random.default_rng(0)


def test_attention():
    attention = CrossAttention(5, (3, 4), GRID, rngs=nnx.Rngs(0))
    coarse, fine = (jnp.asarray(RNG.standard_normal((1, *size, 5)), jnp.float32) for size in ((3, 4), (6, 8)))
    gate = attention.spectral(coarse)
    np.testing.assert_allclose(gate[0, 0, 0], jax.nn.softmax(coarse.mean((1, 2))[0]), rtol=1e-5)
    places = attention.spatial(fine)
    assert float(places.sum()) == pytest.approx(1 / 4, rel=1e-5)
    logits = attention.places(fine)
    expected = BlockAverage(2)(jnp.exp(logits) / jnp.exp(logits).sum())
    np.testing.assert_allclose(places, expected, rtol=1e-4)
    np.testing.assert_allclose(logits[0, 2, 3, 0], fine[0, 1:4, 2:5].mean(), rtol=1e-4)
    seen = attention(coarse, fine)
    np.testing.assert_allclose(seen[0], jnp.concatenate([coarse, coarse * places], -1), rtol=1e-5)
    np.testing.assert_allclose(seen[1], jnp.concatenate([fine, fine * gate], -1), rtol=1e-5)


def test_loss_is_the_sum_of_its_terms(scene):
    observed = MODEL(jnp.asarray(scene[None, :8, :8]))
    y, z = observed["lr"], observed["guide"]
    module = CucaNet(BANDS, Degradation(BLIND, BANDS), lr_size=(4, 4), rngs=nnx.Rngs(0), **TINY)
    project(module)

    @nnx.jit
    def compared(module):
        loss, (product, model) = joint_loss(module, Pair.of(observed, BLIND), jax.random.key(0))
        coarse, fine = module.abundances(observed)
        terms = [
            (10, clamp(module.decoder(coarse)), y),
            (10, clamp(module.guide_decoder(fine)), z),
            (10, model["lr"](product), y),
            (10, model["guide"](product), z),
            (1e4, model["guide"](y), model["lr"](z)),
            (0.01, coarse.sum(-1), 1),
            (0.01, fine.sum(-1), 1),
        ]
        expected = sum(weight * jnp.abs(a - b).sum() for weight, a, b in terms)
        return loss, expected, product - clamp(module.decoder(fine)), (coarse, fine)

    loss, expected, difference, abundances = compared(module)
    assert float(loss) == pytest.approx(float(expected), rel=1e-3)
    np.testing.assert_allclose(difference, 0, atol=1e-6)
    for image in abundances:
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
    for decoder in (module.decoder, module.guide_decoder):
        assert 0 == float(decoder.kernel[...].min()) < float(decoder.kernel[...].max()) <= 1


def test_recipe_is_the_papers():
    assert STAGE.steps == 10_000
    assert dict(STAGE.rates) == {"guide": 0.5, "guide_head": 0.5, "attention": 0.2, "degradation": 0.2}
    rates = [float(STAGE.rate(jnp.asarray(done))) for done in (0.0, 0.2, 0.6, 1.0)]
    np.testing.assert_allclose(rates, [5e-3, 5e-3, 2.5e-3, 0], atol=1e-9)


def test_unknown_sensors_are_estimated_and_returned(scene):
    """In the released form, on a grid that is not nested, with a panchromatic guide."""
    observed = MODEL(jnp.asarray(scene[None, :16, :24]))
    observed["guide"] = observed["guide"].mean(-1, keepdims=True)
    blind = BLIND.replace(grid=Grid(2, (0.0, 0.0)))
    fitted = fit_cucanet(observed, blind, key=jax.random.key(0), effort=0.005, constrained=False, **TINY)
    assert fitted.product.shape == (1, 16, 24, 12)
    assert float(fitted.product.min()) >= 0
    assert fitted.losses[-1] < fitted.losses[0]
    kernel, srf = fitted.model["lr"].psf, fitted.model["guide"].srf
    assert kernel.shape == (5, 5)
    assert abs(float(kernel.sum()) - 1) > 1e-5
    assert float(srf.min()) >= 0
    np.testing.assert_allclose(srf.sum(-1), 1, rtol=1e-5)
