"""Registration inside fusion, as the script measures it, by a system that takes a displaced image."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from experiments.registration import HYPERSPECTRAL, KINDS, REAL, SIMULATED, SYSTEMS, displace, draw, measure, pair_of
from jfusion import catalogue
from jfusion.data import scenes
from jfusion.inference.run import run
from jfusion.operators import Displaced
from jfusion.operators.registration import displaced

PROTOCOL = dataclasses.replace(HYPERSPECTRAL, ratio=2, guide_bands=("B2", "B3", "B5"))


def test_fusion_survives_a_displacement() -> None:
    pair, full = pair_of("aviris_california", PROTOCOL)
    lines = measure("aviris_california", pair, full, (7,), "fuse")
    assert [line.kind for line in lines] == list(KINDS)
    for line in lines:
        assert line.size > 0.5
        assert line.error < 0.1
        assert line.recovered > line.ignored + 5
        assert line.recovered > line.registered - 1.5


def test_the_conjugate_gradients_of_fuse_equal_its_closed_form() -> None:
    """Away from the border, which the closed form takes as periodic."""
    pair, _ = pair_of("aviris_california", PROTOCOL)
    fuse = catalogue.get("fuse")
    closed = run(fuse, pair.observation, pair.model).product
    iterated = run(fuse, pair.observation, displaced(pair.model, jnp.zeros((25, 25, 2)))).product
    np.testing.assert_allclose(iterated[:, 8:-8, 8:-8], closed[:, 8:-8, 8:-8], atol=2e-3)


def test_a_displaced_image_is_what_the_model_says() -> None:
    pair, _ = pair_of("aviris_california", dataclasses.replace(PROTOCOL, lr_snr_db=None))
    true = draw("affine", (25, 25), 3)
    np.testing.assert_array_equal(true, draw("affine", (25, 25), 3))
    lr = displace(pair, true, 3).observation["lr"]
    operator = displaced(pair.model, jnp.asarray(true, jnp.float32))["lr"]
    assert isinstance(operator, Displaced)
    difference = jnp.where(operator.on_scene((25, 25))[..., None], lr - operator(pair.target), 0)[:, 3:-3, 3:-3]
    assert float(jnp.sqrt(jnp.mean(difference**2))) < 1e-2 * float(jnp.sqrt(jnp.mean(lr**2)))


def test_scenes_and_systems_are_there() -> None:
    assert set(SIMULATED) == set(SYSTEMS)
    assert {*SIMULATED, *REAL} <= set(scenes.names())
    assert {system for systems in SYSTEMS.values() for system in systems} <= set(catalogue.systems())
