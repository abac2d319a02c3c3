"""MoG-DCN's own equations; what every network promises is in tests/test_catalogue.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from learning import every_parameter_learns

from jfusion.catalogue import Bands
from jfusion.inference.run import count_parameters
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf, upsample
from jfusion.training.losses import mean_absolute_error
from unrolled.mog_dcn import Denoiser, MoGDCN
from unrolled.stages import gradient_step

BANDS = Bands(6, 2, 3)
GRID = Grid(3, (0.0, 1.0))


@pytest.fixture(scope="module")
def pair():
    """Observation, model and target of a scene (15, 21, 6) at ratio 3, off the nested grid."""
    rng = np.random.default_rng(0)
    target = jnp.asarray(rng.random((1, 15, 21, 2)) @ rng.random((2, 6)), jnp.float32)
    srf = jnp.asarray([[0.5, 0.5, 0, 0, 0, 0], [0, 0, 0, 0.3, 0.3, 0.4]])
    operators = {"lr": SpatialResponse(gaussian_psf(1.3, GRID), 3, GRID.phase), "guide": SpectralResponse(srf)}
    model = ObservationModel(dict(operators), GRID)
    return model(target), model, target


def network(stages: int, **options) -> MoGDCN:
    """With random parameters; its own would be compiled shape by shape."""
    graph, state = nnx.split(
        nnx.eval_shape(lambda: MoGDCN(BANDS, stages=stages, width=2, scales=2, **options, rngs=nnx.Rngs(0)))
    )
    rng = np.random.default_rng(0)
    return nnx.merge(graph, jax.tree.map(lambda x: jnp.asarray(0.1 * rng.standard_normal(x.shape), x.dtype), state))


@pytest.mark.parametrize("physics", ["exact", "learned", "free"])
def test_every_physics_learns(physics, pair) -> None:
    """Gradients reach the sensors of each kind, on a size and a grid that halving does not fit."""
    every_parameter_learns(network(2, physics=physics), mean_absolute_error, pair)


def test_a_stage_is_the_papers_equations(pair) -> None:
    """Both halves of the first stage and the second one's denoised image, from the network's own parts."""
    observation, model, _ = pair
    net = network(2)
    net.steps[...] = jnp.asarray([0.1, 0.9, 0.2, 0.8])
    stages = nnx.jit(lambda net: net(observation, model, stages=True))(net)

    @nnx.jit
    def by_hand(net):
        (see, back), (d, d_t) = net.sensors.free["guide"], net.sensors.free["lr"]
        y, z = observation["lr"], observation["guide"]

        def half(x, features):
            residual, skip = net.denoiser(features)
            return x - 0.1 * (back(see(x) - z) + 0.9 * (x - (x + residual))), skip

        x = upsample(y, GRID)
        w, skip = half(x, net.embed(x))
        c = w + net.denoiser(net.second[0](jnp.concatenate([net.embed(w), skip], -1)))[0]
        x = x - 0.2 * (back(see(x) - z) + d_t(d(x) - y) + 0.8 * (x - c))
        v, last = half(x, net.first[0](jnp.concatenate([net.embed(x), skip], -1)))
        return x, v + net.denoiser(net.second[1](jnp.concatenate([net.embed(v), last], -1)))[0]

    for found, expected in zip(stages.estimates, by_hand(net), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(stages.product, stages.estimates[-1])
    np.testing.assert_allclose(stages.steps["b"], [0.9, 0.9])


def test_without_a_denoiser_the_stages_are_gradient_steps(pair) -> None:
    """Told the sensors, with nothing to denoise, C is W, and the residuals fall from stage to stage."""
    observation, model, _ = pair
    net = network(3, physics="exact")
    net.denoiser.decoders[-1].outer.kernel[...] *= 0
    net.denoiser.decoders[-1].outer.bias[...] *= 0
    net.steps[...] = jnp.asarray([0.0, 0.0, 0.5, 0.0])
    stages = nnx.jit(lambda net: net(observation, model, stages=True))(net)
    largest = jnp.linalg.norm(model["guide"].srf, 2) ** 2
    expected = gradient_step(
        upsample(observation["lr"], GRID), observation, model, {"lr": 0.5 * 9, "guide": 0.5 / largest}
    )
    np.testing.assert_allclose(stages.estimates[0], expected, atol=1e-5)
    for residual in stages.residuals.values():
        assert float(residual[1, 0]) < float(residual[0, 0])


def test_denoiser_has_the_published_size_and_takes_any_image() -> None:
    paper = nnx.eval_shape(lambda: Denoiser(64, 31, 5, rngs=nnx.Rngs(0)))
    assert count_parameters(paper) == 5_730_536
    small = Denoiser(2, 3, 3, rngs=nnx.Rngs(0))
    residual, skip = nnx.jit(lambda net: net(jnp.ones((1, 7, 10, 2))))(small)
    assert residual.shape == (1, 7, 10, 3)
    assert skip.shape == (1, 7, 10, 4)


def test_features_of_earlier_stages_come_along() -> None:
    paper = nnx.eval_shape(lambda: MoGDCN(Bands(31, 3, 8), rngs=nnx.Rngs(0)))
    assert [conv.kernel.shape[2] for conv in paper.first] == [192, 320, 448]
    assert [conv.kernel.shape[2] for conv in paper.second] == [192] * 4
    assert paper.sensors.free["lr"][0].kernel.shape == (13, 13, 31, 31)
