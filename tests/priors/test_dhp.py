"""The deep hyperspectral prior: its size, and what differs from the deep image prior."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.operators import BlockAverage, Grid, ObservationModel, SpectralResponse
from priors.dhp import DHP, STAGE, fit_dhp, hyperspectral_prior

TINY = {"width": 4, "scales": 1, "skip": 2}


def test_row():
    assert DHP.parameters == (2_342_047, Bands(191, 4, 4))
    assert DHP.method.steps == STAGE.steps == 1801


def test_code_is_as_deep_as_the_image_and_the_output_is_linear():
    generator = hyperspectral_prior(Bands(6, 2, 2), **TINY, rngs=nnx.Rngs(0))
    generator.output.conv.bias[...] = jnp.full(6, -3.0)
    image = generator(jax.random.uniform(jax.random.key(0), (1, 5, 4, 6)))
    assert image.shape == (1, 5, 4, 6)
    assert float(image.mean()) < -1


def test_average_of_the_outputs_is_returned():
    model = ObservationModel(
        {"lr": BlockAverage(2), "guide": SpectralResponse(jnp.full((1, 3), 1 / 3))}, Grid.nested(2)
    )
    observation = model(jax.random.uniform(jax.random.key(0), (1, 8, 6, 3)))
    first, second = (
        fit_dhp(observation, model, key=jax.random.key(0), effort=steps / STAGE.steps, **TINY).product
        for steps in (1, 2)
    )
    change = float(jnp.abs(second - first).max() / jnp.abs(first).max())
    assert 0 < change < 0.1
    assert np.isfinite(second).all()
