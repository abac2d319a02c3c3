"""Physics that is told, learned or free: adjoints where there are any, and products that agree with what was seen."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion import catalogue
from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.layers.conv import Conv
from jfusion.operators import (
    Grid,
    ObservationModel,
    SpatialResponse,
    SpectralResponse,
    box_psf,
    gaussian_psf,
    relative_residual,
)
from jfusion.training.loop import Network
from unrolled.physics import Sensors
from unrolled.stages import consistent, finish, gradient_step

BANDS = Bands(5, 2, 3)
SRF = jnp.asarray([[0.5, 0.5, 0, 0, 0], [0, 0, 0.2, 0.3, 0.5]])


def scene(grid: Grid, width: float = 0.85):
    """Truth (2, 8 ratio, 6 ratio, 5) and the model that sees it."""
    spatial = SpatialResponse(gaussian_psf(width, grid), grid.ratio, grid.phase, "reflect")
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(SRF)}, grid)
    shape = (2, 8 * grid.ratio, 6 * grid.ratio, 5)
    return jax.random.uniform(jax.random.key(0), (np.prod(shape),)).reshape(shape), model


def free() -> dict:
    rngs = nnx.Rngs(0)
    see, back = Conv(5, 5, 3, strides=3, rngs=rngs), Conv(5, 5, 1, rngs=rngs)
    return {"lr": (see, back), "guide": (Conv(5, 2, 3, rngs=rngs), Conv(2, 5, 3, rngs=rngs))}


@pytest.mark.parametrize("physics", ["exact", "learned"])
def test_what_leads_back_is_the_adjoint(physics) -> None:
    x, model = scene(Grid(3, (0, 1)))
    sensors = Sensors(physics, BANDS, free)
    for leaf in jax.tree.leaves(nnx.state(sensors, nnx.Param)):
        assert leaf.size in (49, 10)
    for key, sensor in sensors(model).items():
        y = jax.random.normal(jax.random.key(1), model[key](x).shape)
        np.testing.assert_allclose(jnp.vdot(sensor.see(x), y), jnp.vdot(x, sensor.back(y)), rtol=1e-4)
        if physics == "exact":
            np.testing.assert_array_equal(sensor.see(x), model[key](x))


def test_learned_responses_start_as_means_and_keep_the_phase() -> None:
    x, model = scene(Grid.nested(3))
    seen = {key: sensor.see(x) for key, sensor in Sensors("learned", BANDS, free)(model).items()}
    np.testing.assert_allclose(seen["guide"], jnp.repeat(x.mean(-1, keepdims=True), 2, -1), atol=1e-6)
    np.testing.assert_allclose(seen["lr"], x.reshape(2, 8, 3, 6, 3, 5).mean((2, 4)), atol=1e-6)
    moved = Sensors("learned", BANDS, free)(scene(Grid(3, (0, 2)))[1])["lr"].see(x)
    shifted = jnp.roll(x, (1, -1), (1, 2)).reshape(2, 8, 3, 6, 3, 5).mean((2, 4))
    np.testing.assert_allclose(moved[:, 1:, :-1], shifted[:, 1:, :-1], atol=1e-6)


@pytest.mark.parametrize("grid", [Grid(2, (1, 0)), Grid(4, (1.2, 3.4)), Grid(3, (-0.3, 1)), Grid.nested(2)], ids=str)
def test_learned_responses_start_in_the_middle_of_the_pixel(grid) -> None:
    """Also where it falls on a pixel at even ratios, as Landsat's, or anywhere between pixels."""
    x, model = scene(grid)
    mean = SpatialResponse(box_psf(grid), grid.ratio, grid.phase, "reflect")
    seen = Sensors("learned", Bands(5, 2, grid.ratio), free)(model)["lr"].see(x)
    np.testing.assert_allclose(seen, mean(x), atol=1e-6)


def test_free_convolutions_are_those_of_the_paper() -> None:
    x, model = scene(Grid.nested(3))
    sensors = Sensors("free", BANDS, free)
    assert sensors.model(model) is None
    np.testing.assert_array_equal(sensors(model)["lr"].see(x), free()["lr"][0](x))
    np.testing.assert_array_equal(sensors(model)["guide"].back(x[..., :2]), free()["guide"][1](x[..., :2]))
    with pytest.raises(InputError, match="exact, learned, free"):
        Sensors("true", BANDS, free)  # type: ignore[arg-type]


@pytest.mark.parametrize("grid", [Grid(2, (1, 0)), Grid.nested(3), Grid.nested(4)], ids=str)
def test_consistent_products_show_what_was_seen(grid) -> None:
    truth, model = scene(grid, grid.ratio / 2.4)
    observation = model(truth)
    start = jnp.full_like(truth, 0.3)
    product = jax.jit(consistent)(start, observation, model)
    for key, image in observation.items():
        assert float(relative_residual(model[key](product), image).max()) < 1e-3
    np.testing.assert_allclose(consistent(truth, observation, model), truth, atol=1e-6)
    assert float(jnp.sum((product - start) ** 2)) <= float(jnp.sum((truth - start) ** 2))
    small = ObservationModel({"lr": model["lr"], "guide": SpectralResponse(1e-4 * model["guide"].srf)}, grid)
    again = consistent(start, small(truth), small)
    np.testing.assert_allclose(again, product, atol=1e-3)  # whatever the units of the images
    unknown = dataclasses.replace(model, operators={"lr": model["lr"], "guide": None})
    assert (
        float(relative_residual(model["lr"](consistent(start, observation, unknown)), observation["lr"]).max()) < 1e-3
    )


def test_consistent_products_are_a_projection_with_its_derivative() -> None:
    """Twice is once, with noise too; the gradient is that of finite differences, and keeps what no sensor sees."""
    truth, model = scene(Grid.nested(3))
    keys = jax.random.split(jax.random.key(0), 4)
    observation = {k: y + 0.03 * jax.random.normal(keys[0], y.shape) for k, y in model(truth).items()}
    project = jax.jit(lambda p, y: consistent(p, y, model))
    product = project(jnp.full_like(truth, 0.3), observation)
    np.testing.assert_allclose(project(project(product, observation), observation), product, atol=1e-4)
    probe, way = (jax.random.normal(key, truth.shape) for key in keys[1:3])
    side = {k: jax.random.normal(keys[3], y.shape) for k, y in observation.items()}

    def value(t: float) -> jax.Array:
        return jnp.vdot(probe, project(product + t * way, {k: y + t * side[k] for k, y in observation.items()}))

    grads = jax.grad(lambda p, y: jnp.vdot(probe, project(p, y)), (0, 1))(product, observation)
    slope = jnp.vdot(grads[0], way) + sum(jnp.vdot(grads[1][k], side[k]) for k in side)
    weighed = jnp.linalg.norm(grads[0])
    assert weighed < jnp.linalg.norm(probe)
    assert float(slope) == pytest.approx(float(value(0.05) - value(-0.05)) / 0.1, abs=0.01 * float(weighed))


def test_a_residual_of_nothing_has_a_derivative() -> None:
    image = jnp.zeros((1, 2, 2, 1))
    assert jnp.isfinite(jax.grad(lambda x: relative_residual(x, image).sum())(image)).all()


def test_a_data_step_takes_what_stands_for_the_sensors() -> None:
    truth, model = scene(Grid.nested(3))
    observation, start = model(truth), jnp.full_like(truth, 0.3)
    sensors = Sensors("exact", BANDS, free)(model)
    steps = {"lr": 2.0, "guide": jnp.full(observation["guide"].shape[-1], 0.5)}
    np.testing.assert_array_equal(
        gradient_step(start, observation, sensors, steps), gradient_step(start, observation, model, steps)
    )
    half = jax.tree.map(lambda y: y.astype(jnp.bfloat16), observation)
    assert gradient_step(start.astype(jnp.bfloat16), half, model, steps).dtype == jnp.float32


def test_finish_reports_what_was_made() -> None:
    truth, model = scene(Grid.nested(3))
    observation = model(truth)
    estimates = [0.5 * truth, 0.9 * truth]
    np.testing.assert_array_equal(finish(estimates, observation, model), estimates[-1])
    report = finish(estimates, observation, model, stages=True, exact=True, steps={"step": jnp.ones(2)})
    assert report.estimates.shape == (3, *truth.shape)
    np.testing.assert_allclose(report.residuals["lr"][:2], [[0.5, 0.5], [0.1, 0.1]], atol=1e-5)
    assert float(report.residuals["guide"][2].max()) < 1e-3
    np.testing.assert_array_equal(report.product, report.estimates[-1])


def test_stages_of_a_trained_network_are_in_the_units_of_the_observation() -> None:
    truth, model = scene(Grid.nested(3))

    def module(observation, model, **options):
        return finish([truth, truth / 2], observation, model, **options)

    network = Network(catalogue.get("gppnn"), BANDS, {}, module, scale=2.0)
    report = network(model(2 * truth), model, stages=True)
    np.testing.assert_array_equal(report.product, truth)
    np.testing.assert_array_equal(report.estimates[0], 2 * truth)
    np.testing.assert_allclose(report.residuals["lr"][1], 0.5, atol=1e-5)


def test_finish_refuses_what_it_cannot_do() -> None:
    truth, model = scene(Grid.nested(3))
    with pytest.raises(InputError, match=r"are exact, stages, but exakt, stagse came"):
        finish([truth], model(truth), model, stagse=True, exakt=True)  # type: ignore[call-arg]
    unknown = model.replace(operators={"lr": None, "guide": None})
    with pytest.raises(InputError, match="no operator of the observation model is known"):
        finish([truth], model(truth), unknown, exact=True)
