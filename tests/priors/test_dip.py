"""The deep image prior: its size, its range, and its settings by the ratio."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.operators import BlockAverage, Grid, ObservationModel, SpectralResponse
from priors import dip
from priors.dip import DIP, deep_image_prior, fit_dip

TINY = {"width": 4, "scales": 1, "skip": 2}


def test_row():
    assert DIP.parameters == (2_217_831, Bands(3, 3, 4))
    assert (dip.FINE.steps, dip.COARSE.steps) == (2000, 4000)


def test_image_lies_between_zero_and_one():
    generator = deep_image_prior(Bands(5, 2, 2), **TINY, rngs=nnx.Rngs(0))
    image = generator(100 * jax.random.normal(jax.random.key(0), (1, 6, 5, dip.DEPTH)))
    assert image.shape == (1, 6, 5, 5)
    assert 0 < float(image.min()) < float(image.max()) < 1


@pytest.mark.parametrize(("ratio", "steps"), [(4, 2), (5, 4)])
def test_larger_ratios_take_twice_the_steps(ratio, steps):
    model = ObservationModel(
        {"lr": BlockAverage(ratio), "guide": SpectralResponse(jnp.full((1, 3), 1 / 3))}, Grid.nested(ratio)
    )
    observation = model(jax.random.uniform(jax.random.key(0), (1, 2 * ratio, 2 * ratio, 3)))
    told = []
    fit_dip(
        observation,
        model,
        key=jax.random.key(0),
        effort=2 / DIP.method.steps,
        progress=lambda done, total, values: told.append((done, total)),
        **TINY,
    )
    assert told[-1] == (steps, steps)
