"""DHIF-Net's own equations; what every network promises is in tests/test_catalogue.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from learning import every_parameter_learns

from jfusion.catalogue import Bands
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf, upsample
from unrolled.dhif_net import DHIFNet, filtered, learning_rate, mean_absolute_error, paper_sensors
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


def network(stages: int, **options) -> DHIFNet:
    """With random parameters; its own would be compiled shape by shape."""
    graph, state = nnx.split(
        nnx.eval_shape(
            lambda: DHIFNet(BANDS, stages=stages, widths=(4, 8), taps=3, hidden=8, **options, rngs=nnx.Rngs(0))
        )
    )
    rng = np.random.default_rng(0)
    return nnx.merge(graph, jax.tree.map(lambda x: jnp.asarray(0.1 * rng.standard_normal(x.shape), x.dtype), state))


@pytest.mark.parametrize("physics", ["exact", "learned", "free"])
def test_every_physics_learns(physics, pair) -> None:
    """Gradients reach the sensors of each kind, on a size and a grid that halving does not fit."""
    every_parameter_learns(network(2, physics=physics), mean_absolute_error, pair)


def test_filters_reach_along_rows_columns_and_bands() -> None:
    """Tap by tap against a loop: of norm 1, or none; the edge repeated in space, zeros beyond the bands."""
    rng = np.random.default_rng(1)
    x, *filters = rng.standard_normal((4, 5, 3)), *rng.standard_normal((3, 4, 5, 3, 3))
    filters[1][2, 2] = 0
    found = filtered(jnp.asarray(x)[None], [jnp.asarray(f)[None] for f in filters])[0]
    expected = x
    for axis, weights in zip((1, 0, 2), filters, strict=True):
        wide = np.pad(expected, [(int(a == axis),) * 2 for a in range(3)], "constant" if axis == 2 else "edge")
        result = np.zeros_like(expected)
        for row, column, band in np.ndindex(*x.shape):
            taps = weights[row, column, :, band]
            there = [n + np.arange(3) if a == axis else n for a, n in enumerate((row, column, band))]
            result[row, column, band] = taps @ wide[tuple(there)] / (np.linalg.norm(taps) or 1)
        expected = result
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_with_filters_of_one_tap_the_stages_are_gradient_steps(pair) -> None:
    """Told the sensors, where U is X, only the images count, and the residuals fall from stage to stage."""
    observation, model, _ = pair
    net = network(3, physics="exact")
    net.eta[...] = jnp.asarray([0.12, 0.1, 0.08])
    for head in net.generator.heads:
        head.outer.kernel[...] *= 0
        head.outer.bias[...] = jnp.repeat(jnp.asarray([0.0, 2.0, 0.0]), 6)
    stages = nnx.jit(lambda net: net(observation, model, stages=True))(net)
    largest, step = jnp.linalg.norm(model["guide"].srf, 2) ** 2, 2 * net.eta[0]
    expected = gradient_step(
        upsample(observation["lr"], GRID), observation, model, {"lr": step * 9, "guide": step / largest}
    )
    np.testing.assert_allclose(stages.estimates[0], expected, atol=1e-5)
    np.testing.assert_array_equal(stages.product, stages.estimates[-1])
    np.testing.assert_array_equal(stages.steps["eta"], net.eta[...])
    for residual in stages.residuals.values():
        assert bool((jnp.diff(residual[:, 0]) < 0).all())


def test_a_stage_is_the_papers_equation(pair) -> None:
    """The second estimate from the first one, with the network's own parts."""
    observation, model, _ = pair
    net = network(2)
    estimates = nnx.jit(lambda net: net(observation, model, stages=True))(net).estimates

    @nnx.jit
    def by_hand(net):
        (r, r_t), (d, d_t) = net.sensors.free["guide"], net.sensors.free["lr"]
        y, z = observation["lr"], observation["guide"]
        features = [net.embed(jnp.concatenate([x, z], -1)) for x in (upsample(y, GRID), estimates[0])]
        x = estimates[0]
        u = filtered(x, net.generator(net.fuse[1](jnp.concatenate(features, -1))))
        return x - 2 * net.eta[1] * (r_t(r(x) - z) + d_t(d(x) - y) + net.trust[1] * (x - u))

    np.testing.assert_allclose(estimates[1], by_hand(net), atol=1e-5)


@pytest.mark.parametrize(("ratio", "windows"), [(8, [12]), (4, [6]), (16, [6, 6]), (3, [5]), (1, [3])])
def test_sensors_have_the_published_windows_and_sizes(ratio, windows) -> None:
    see, back = paper_sensors(Bands(2, 1, ratio), nnx.Rngs(0))["lr"]
    assert [layer.kernel.shape[0] for layer in see.layers] == windows
    low = jax.eval_shape(see, jax.ShapeDtypeStruct((1, 3 * ratio, 2 * ratio, 2), jnp.float32))
    assert low.shape == (1, 3, 2, 2)
    assert jax.eval_shape(back, low).shape == (1, 3 * ratio, 2 * ratio, 2)


def test_recipe_falls_thirty_times() -> None:
    """By a twentieth at the epochs 1, 6, ..., 146 of 500, of ten steps each here."""
    rate = learning_rate(5000)
    found = [float(rate(jnp.asarray(step))) for step in (0, 9, 10, 59, 60, 1459, 1460, 4999)]
    expected = [3e-4 * 0.95**n for n in (0, 0, 1, 1, 2, 29, 30, 30)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_features_of_earlier_stages_and_all_scales_come_along() -> None:
    """Channels that go into the convolutions, as published."""
    paper = nnx.eval_shape(lambda: DHIFNet(Bands(31, 3, 8), rngs=nnx.Rngs(0)))
    assert [conv.kernel.shape[2] for conv in paper.fuse] == [64, 128, 192, 256]
    decoders = [[layer.kernel.shape[2:] for layer in decoder.layers] for decoder in paper.generator.decoders]
    assert [first for first, _ in decoders] == [(1024, 512), (768, 256), (384, 128), (192, 128)]
    assert [head.outer.kernel.shape for head in paper.generator.heads] == [(1, 1, 217, 217)] * 3


def test_taps_that_are_all_zero_have_a_derivative_within_bounds():
    x, taps = jnp.ones((1, 4, 4, 2)), [jnp.zeros((1, 4, 4, 3, 2))] * 3
    slopes = jax.grad(lambda first: jnp.sum(filtered(x, [first, *taps[1:]])))(taps[0])
    assert jnp.abs(slopes).max() < 100
    assert not filtered(x, taps).any()
