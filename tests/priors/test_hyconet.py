"""HyCoNet: its loss, its constraints, and what it returns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf, upsample
from priors.coupled import project
from priors.degradation import Degradation
from priors.hyconet import STAGE, HyCoNet, fit_hyconet, joint_loss
from priors.pair import Pair

GRID = Grid.nested(2)
BANDS = Bands(12, 3, 2)
SRF = jnp.asarray(np.kron(np.eye(3), np.ones((1, 4))) / 4, jnp.float32)
TINY = {"endmembers": 6, "widths": (16, 16)}
RESPONSE = SpatialResponse(gaussian_psf(0.85, GRID), GRID.ratio, GRID.phase, "circular")
MODEL = ObservationModel({"lr": RESPONSE, "guide": SpectralResponse(SRF)}, GRID)
BLIND = MODEL.replace(operators={"lr": None, "guide": None})


def test_loss_is_the_sum_of_its_terms(scene):
    observed = MODEL(jnp.asarray(scene[None, :8, :8]))
    y, z = observed["lr"], observed["guide"]
    module = HyCoNet(BANDS, Degradation(BLIND, BANDS), rngs=nnx.Rngs(0), **TINY)
    project(module)

    @nnx.jit
    def compared(module):
        loss, (product, model) = joint_loss(module, Pair.of(observed, BLIND), jax.random.key(0))
        coarse, fine = module.abundances(observed)
        terms = [
            (10, module.decode(coarse), y),
            (10, model["guide"](module.decode(fine)), z),
            (10, module.decode(model["lr"](fine)), y),  # as published: B sees the abundances
            (100, model["guide"](y), model["lr"](z)),
        ]
        expected = sum(weight * jnp.abs(a - b).sum() for weight, a, b in terms)
        return loss, expected, product - module.decode(fine), (coarse, fine)

    loss, expected, difference, abundances = compared(module)
    assert 0 < float(loss - expected) < 1e-3 * float(expected)  # what is left is the sparsity
    np.testing.assert_allclose(difference, 0, atol=1e-6)
    for image in abundances:
        assert float(image.min()) > 0
        np.testing.assert_allclose(image.sum(-1), 1, rtol=1e-5)


def test_released_constraints():
    module = HyCoNet(BANDS, Degradation(BLIND, BANDS, ("free", "clipped")), rngs=nnx.Rngs(0), **TINY)
    psf, srf = module.degradation.psf.weights, module.degradation.srf.weights
    psf.weight[...] = jnp.asarray([[-0.2, 0.4, 1.5, 0.5]])
    srf.weight[...] = srf.weight[...] - 0.1
    project(module)
    np.testing.assert_allclose(psf.weight[...], [[0, 0.4, 1, 0.5]])
    np.testing.assert_allclose(srf.weight[...].sum(-1), 1, rtol=1e-5)
    assert float(module.decoder.kernel[...].min()) == 0


def test_recipe_is_the_papers():
    assert STAGE.steps == 10_000
    assert dict(STAGE.rates) == {"guide": 0.5, "degradation": 0.2}
    rates = [float(STAGE.rate(jnp.asarray(done))) for done in (0.0, 0.2, 0.6, 1.0)]
    np.testing.assert_allclose(rates, [3e-3, 3e-3, 1.5e-3, 0], atol=1e-9)


def test_known_model_beats_interpolation(scene):
    target = jnp.asarray(scene[None, :24, :24])
    observed = MODEL(target)
    product = fit_hyconet(observed, MODEL, key=jax.random.key(0), effort=0.1, **TINY).product
    cubic = upsample(observed["lr"], GRID, "cubic")
    error, trivial = (float(jnp.mean((image - target) ** 2)) for image in (product, cubic))
    assert error < 0.8 * trivial


@pytest.mark.parametrize("constrained", [True, False])
def test_unknown_sensors_are_estimated_and_returned(scene, constrained):
    """On a grid that is not nested, with a panchromatic guide."""
    grid = Grid(2, (0.0, 0.0))
    observed = MODEL(jnp.asarray(scene[None, :24, :24]))
    observed["guide"] = observed["guide"].mean(-1, keepdims=True)
    blind = BLIND.replace(grid=grid)
    fitted = fit_hyconet(observed, blind, key=jax.random.key(0), effort=0.01, constrained=constrained, **TINY)
    assert fitted.product.shape == (1, 24, 24, 12)
    assert fitted.losses[-1] < fitted.losses[0]
    kernel, srf = fitted.model["lr"].psf, fitted.model["guide"].srf
    assert kernel.shape == (5, 5)
    assert float(kernel.min()) >= 0
    assert float(srf.min()) >= 0
    np.testing.assert_allclose(srf.sum(-1), 1, rtol=1e-5)
    assert np.allclose(kernel.sum(), 1, rtol=1e-5) == constrained
