"""Operators that a closed form covers: shared by all bands, without gradient, fitted to the truth where learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from unrolled.closed_form import LinearSensors

GRID = Grid(3, (0.0, 2.0))
BANDS = Bands(4, 2, 3)


@pytest.fixture(scope="module")
def pair():
    """Observation, model and target (1, 12, 9, 4); each band has its own PSF."""
    target = jax.random.uniform(jax.random.key(0), (1, 12, 9, 4))
    psf = gaussian_psf(np.array([0.7, 1.0, 1.2, 1.5]), GRID)
    srf = jnp.asarray([[0.5, 0.5, 0, 0], [0, 0, 0.3, 0.7]])
    model = ObservationModel({"lr": SpatialResponse(psf, 3, GRID.phase), "guide": SpectralResponse(srf)}, GRID)
    return model(target), model, target


def test_exact_operators_are_the_models_with_the_mean_psf(pair) -> None:
    observation, model, target = pair
    seen = LinearSensors("exact", BANDS)(model)
    profiles = [profile.mean(-1) for profile in model["lr"].psf]
    np.testing.assert_allclose(seen["lr"](target), SpatialResponse(tuple(profiles), 3, GRID.phase)(target), atol=1e-6)
    np.testing.assert_allclose(seen["guide"](target), observation["guide"], atol=1e-6)
    assert float(LinearSensors("exact", BANDS).misfit(observation, model, target)) == 0


def test_learned_operators_learn_from_the_misfit_alone(pair) -> None:
    observation, model, target = pair
    graph, parameters, rest = nnx.split(LinearSensors("learned", BANDS), nnx.Param, ...)

    @jax.jit
    @jax.grad
    def solve(parameters):
        return jnp.sum(nnx.merge(graph, parameters, rest)(model)["lr"](target) ** 2)

    @jax.jit
    @jax.value_and_grad
    def misfit(parameters):
        return nnx.merge(graph, parameters, rest).misfit(observation, model, target)

    value, gradient = misfit(parameters)
    assert all(not leaf.any() for leaf in jax.tree.leaves(solve(parameters)))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient))
    learned = nnx.merge(graph, parameters, rest)(model)
    expected = sum(jnp.mean((learned[key](target) - observation[key]) ** 2) for key in observation)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_what_has_no_closed_form_is_refused(pair) -> None:
    _, model, _ = pair
    with pytest.raises(InputError, match="linear"):
        LinearSensors("free", BANDS)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not known"):
        LinearSensors("exact", BANDS)(model.replace(operators={"lr": model["lr"], "guide": None}))
