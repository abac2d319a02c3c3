"""The first stage of DIP-HyperKite: its size, its loss, and the response that it predicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.layers.predicted import PredictedSrf
from jfusion.operators import BlockAverage, Grid, ObservationModel, SpectralResponse
from priors.dip_hyperkite import (
    DEVIATION,
    DIP_HYPERKITE,
    SPATIAL,
    STAGE,
    DipHyperkite,
    enlarging_loss,
    fit_dip_hyperkite,
)
from priors.pair import Pair

TINY = {"width": 2, "scales": 1, "skip": 2}
GRID = Grid.nested(2)
BANDS = Bands(4, 1, 2)
KNOWN = ObservationModel({"lr": BlockAverage(2), "guide": SpectralResponse(jnp.full((1, 4), 0.25))}, GRID)
BLIND = ObservationModel({"lr": None, "guide": None}, GRID)


@pytest.fixture(scope="module")
def observation() -> dict[str, jax.Array]:
    return KNOWN(jax.random.uniform(jax.random.key(0), (1, 8, 6, 4)))


def test_row():
    assert DIP_HYPERKITE.parameters == (2_230_602, Bands(102, 1, 4))
    assert DIP_HYPERKITE.method.steps == STAGE.steps == 1500


def test_rate_falls_once():
    np.testing.assert_allclose([float(STAGE.rate(jnp.asarray(n / 1500))) for n in (0, 1299, 1301)], [1e-3, 1e-3, 1e-4])


def test_loss_weights_the_guide_by_six_tenths(observation):
    module = DipHyperkite(Pair.of(observation, KNOWN), BANDS, rngs=nnx.Rngs(0), **TINY)
    loss, (product, learned) = enlarging_loss(module, Pair.of(observation, KNOWN), jax.random.key(1))
    np.testing.assert_allclose(product, module.generator(module.code(jax.random.key(1), DEVIATION)), rtol=1e-6)
    errors = {key: float(jnp.abs(KNOWN[key](product) - image).mean()) for key, image in observation.items()}
    assert float(loss) == pytest.approx(errors["lr"] + SPATIAL * errors["guide"], rel=1e-5)
    assert learned == {}


def test_predicted_response_is_a_softmax_of_two_layers_of_the_mean_spectrum():
    """With one guide band it is the paper's; with more, each has its own."""
    one, image = PredictedSrf(Bands(5, 1, 2), rngs=nnx.Rngs(0)), jax.random.uniform(jax.random.key(0), (1, 3, 4, 5))
    mean = np.asarray(image).mean((0, 1, 2))
    hidden = np.maximum(mean @ np.asarray(one.squeeze.kernel[...])[0, 0] + np.asarray(one.squeeze.bias[...]), 0)
    logits = np.exp(hidden @ np.asarray(one.excite.kernel[...])[0, 0] + np.asarray(one.excite.bias[...]))
    assert hidden.shape == (2,)
    np.testing.assert_allclose(one(image).srf, (logits / logits.sum())[None], rtol=1e-5)
    several = PredictedSrf(Bands(5, 3, 2), rngs=nnx.Rngs(0))
    before = several(image).srf
    several.excite.bias[...] = several.excite.bias[...].at[0].add(1.0)
    changed = np.abs(np.asarray(several(image).srf - before)).max(-1) > 0
    assert changed.tolist() == [True, False, False]


def test_unknown_sensors_are_fitted_with_the_image(observation):
    start = DipHyperkite(Pair.of(observation, BLIND), BANDS, rngs=nnx.Rngs(jax.random.key(0)), **TINY)
    fitted = fit_dip_hyperkite(observation, BLIND, key=jax.random.key(0), effort=3 / STAGE.steps, **TINY)
    kernel, srf = fitted.model["lr"].psf, fitted.model["guide"].srf
    assert kernel.shape == (4, 4)
    assert srf.shape == (1, 4)
    for rows in (kernel.reshape(1, -1), srf):
        np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-5)
    same_image = start.srf(fitted.product)
    assert float(jnp.abs(srf - same_image.srf).max()) > 1e-5
    assert float(jnp.abs(kernel - start.psf().psf).max()) > 1e-2
