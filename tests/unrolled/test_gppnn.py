"""GPPNN's own equations; what every network promises is in tests/test_catalogue.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.inference.run import count_parameters
from jfusion.layers.resample import sample
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf, upsample
from unrolled.gppnn import GPPNN
from unrolled.stages import gradient_step

GRID = Grid(2, (1.0, 0.5))
BANDS = Bands(5, 2, 2)
SRF = np.asarray([[0.5, 0.5, 0, 0, 0], [0, 0, 0.2, 0.3, 0.5]], np.float32)


@pytest.fixture(scope="module")
def pair():
    """Observation, model and target of a scene (12, 10, 5) at ratio 2."""
    target = jax.random.uniform(jax.random.key(0), (12 * 10 * 5,)).reshape(1, 12, 10, 5)
    spatial = SpatialResponse(gaussian_psf(0.9, GRID), 2, GRID.phase)
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(jnp.asarray(SRF))}, GRID)
    return model(target), model, target


@pytest.mark.parametrize(("bands", "count"), [(8, 238_592), (10, 297_984)])
def test_other_sensors_have_the_published_sizes(bands: int, count: int) -> None:
    assert count_parameters(nnx.eval_shape(lambda: GPPNN(Bands(bands, 1, 4), rngs=nnx.Rngs(0)))) == count


def test_first_stage_is_the_papers(pair) -> None:
    """Both blocks with the network's own convolutions, resized where the pixels lie."""
    observation, model, _ = pair
    network = GPPNN(BANDS, stages=2, width=4, rngs=nnx.Rngs(0))

    @nnx.jit
    def both(network):
        stage = network.stages[0]
        (d, d_back), (r, r_back) = stage.sensors.free["lr"], stage.sensors.free["guide"]
        x = upsample(observation["lr"], GRID)
        x = stage.prox["lr"](x + upsample(d_back(observation["lr"] - sample(d(x), GRID)), GRID))
        x = stage.prox["guide"](x + r_back(observation["guide"] - r(x)))
        return x, network(observation, model, stages=True)

    expected, report = both(network)
    np.testing.assert_allclose(report.estimates[0], expected, atol=1e-5)
    assert report.estimates.shape == (2, 1, 12, 10, 5)
    assert report.steps == {}


def test_exact_steps_are_the_gradients(pair) -> None:
    """With a prox that does nothing each block is a gradient step over the squared norm of its response."""
    observation, model, _ = pair
    network = GPPNN(BANDS, stages=2, width=4, physics="exact", rngs=nnx.Rngs(0))
    for stage in network.stages:
        stage.prox = nnx.Dict({"lr": lambda x: x, "guide": lambda x: x})
    norm = np.linalg.norm(SRF, 2)

    @nnx.jit
    def both(network):
        report = network(observation, model, stages=True)
        x, expected = upsample(observation["lr"], GRID), []
        for rho_lr, rho_guide in zip(report.steps["rho_lr"], report.steps["rho_guide"], strict=True):
            x = gradient_step(x, observation, model, {"lr": 4 * rho_lr})
            x = gradient_step(x, observation, model, {"guide": rho_guide / norm**2})
            expected.append(x)
        return report, jnp.stack(expected)

    report, expected = both(network)
    np.testing.assert_allclose(report.estimates, expected, atol=1e-4)
    np.testing.assert_allclose([*report.steps.values()], 1, rtol=1e-5)


@pytest.mark.parametrize("physics", ["exact", "learned", "free"])
def test_all_physics_run_and_learn(physics, pair) -> None:
    observation, model, target = pair
    loop, remat = (
        GPPNN(BANDS, stages=2, width=4, physics=physics, unroll=unroll, rngs=nnx.Rngs(0))
        for unroll in ("loop", "remat")
    )
    parameters, rest = nnx.split_state(nnx.state(loop), nnx.Param, ...)

    @jax.jit
    def run(parameters):
        def loss(parameters, graph):
            product = nnx.merge(graph, parameters, rest, copy=True)(observation, model)
            return jnp.mean(jnp.abs(product - target)), product

        return tuple(jax.grad(loss, has_aux=True)(parameters, nnx.graphdef(network)) for network in (loop, remat))

    (gradient, product), (other, recomputed) = run(parameters)
    assert product.shape == target.shape
    np.testing.assert_allclose(recomputed, product, atol=1e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-6)
    for path, value in nnx.to_flat_state(gradient):
        assert bool(jnp.isfinite(value[...]).all()), path
        assert float(jnp.abs(value[...]).max()) > 0, path


def test_no_other_physics() -> None:
    with pytest.raises(InputError, match="exact, learned, free"):
        GPPNN(BANDS, stages=1, physics="true", rngs=nnx.Rngs(0))  # type: ignore[arg-type]
