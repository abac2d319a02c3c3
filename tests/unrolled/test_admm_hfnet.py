"""ADMM-HFNet's own equations; what every network promises is in tests/test_catalogue.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.classical.pixels import subspace
from jfusion.errors import InputError
from jfusion.inference.run import count_parameters
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf, upsample
from unrolled.admm_hfnet import NUMBERS, ADMMHFNet, factors, training_loss
from unrolled.stages import Basis

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


def test_release_has_half_a_response_more() -> None:
    """3,199,652 parameters for CAVE, of which a 6 x 6 convolution of 31 bands and its biases reach nothing."""
    network = nnx.eval_shape(lambda: ADMMHFNet(Bands(31, 3, 8), rngs=nnx.Rngs(0)))
    assert count_parameters(network) + 6 * 6 * 31 * 31 + 31 == 3_199_652


@pytest.mark.parametrize(("ratio", "steps"), [(1, (1, 1)), (5, (1, 5)), (6, (2, 3)), (8, (2, 4)), (20, (4, 5))])
def test_every_ratio_is_bridged(ratio: int, steps: tuple[int, int]) -> None:
    assert factors(ratio) == steps
    bands, grid = Bands(3, 1, ratio), Grid.nested(ratio)
    model = ObservationModel({"lr": None, "guide": None}, grid)
    observation = {"lr": jnp.ones((1, 3, 2, 3)), "guide": jnp.ones((1, 3 * ratio, 2 * ratio, 1))}
    shape = jax.eval_shape(lambda: ADMMHFNet(bands, stages=1, rngs=nnx.Rngs(0))(observation, model)).shape
    assert shape == (1, 3 * ratio, 2 * ratio, 3)


def test_stages_are_the_papers(pair) -> None:
    """Two stages by hand, with the network's own convolutions and numbers and matrices of pixels as columns."""
    observation, model, _ = pair
    network = ADMMHFNet(BANDS, stages=2, rank=3, rngs=nnx.Rngs(0))

    @nnx.jit
    def both(network):
        y, z = observation["lr"], observation["guide"]
        p = subspace(y, 3)[0]
        guides = nnx.leaky_relu(network.start.shrink.layers[0](z), 0.2), z

        def columns(image):
            return image.reshape(-1, image.shape[-1]).T

        def image(matrix):
            return matrix.T.reshape(1, 12, 10, -1)

        t, pv = network.start.guide(z), network.start.lr(y, guides)
        v, h, estimates = jnp.zeros((3, 120)), jnp.zeros_like(t), []
        a = g = v
        for stage in network.stages:
            s = {k: stage.numbers[i] for i, k in enumerate(NUMBERS)}
            (d, d_back), (r, r_back) = stage.sensors.free["lr"], stage.sensors.free["guide"]
            first = s["a0"] * v - s["a1"] * p.T @ columns(r_back(r(pv) - z)) + s["a2"] * a + s["a3"] * g
            v = first + s["a4"] * p.T @ columns(t - s["a5"] * h)
            pv = image(p @ v)
            t = s["b0"] * t - s["b1"] * d_back(d(t) - y, guides) + s["b2"] * pv + s["b3"] * h
            moved = v - s["c0"] * g
            a = jnp.where(jnp.abs(moved) > s["c1"], moved - s["c1"] * jnp.sign(moved), 0)
            g = s["eta1"] * g + s["eta2"] * a - s["eta3"] * v
            h = s["mu1"] * h + s["mu2"] * pv - s["mu3"] * t
            physics = s["e1"] * r_back(r(t) - z) + s["e2"] * d_back(d(t) - y, guides)
            estimates.append(t - physics - s["e3"] * (t - image(p @ a)) - s["e4"] * (t - pv))
        return [*estimates, network.mix(jnp.concatenate(estimates, -1))], network(observation, model, stages=True)

    expected, report = both(network)
    np.testing.assert_allclose(report.estimates, jnp.stack(expected), atol=1e-5)
    assert report.steps["a0"].shape == report.steps["e4"].shape == (2,)


def test_linear_physics_starts_as_the_method(pair) -> None:
    """Numbers and signs are those of gradient steps, one over the curvature, of the augmented Lagrangian."""
    observation, model, _ = pair
    network = ADMMHFNet(BANDS, stages=2, physics="exact", rngs=nnx.Rngs(0))
    basis = Basis(subspace(observation["lr"], 3))
    norm = np.linalg.norm(SRF, 2)

    def lagrangian(v, t, a, g, h):
        errors = model["lr"](t) - observation["lr"], model["guide"](basis(v)) - observation["guide"]
        data = 4 * jnp.sum(errors[0] ** 2) + jnp.sum(errors[1] ** 2) / norm**2
        return (data + jnp.sum((a - v + g) ** 2) + jnp.sum((basis(v) - t + h) ** 2)) / 2

    @jax.jit
    def by_hand():
        t = upsample(observation["lr"], GRID)
        v = a = basis.T(t)
        g, h = jnp.zeros_like(v), jnp.zeros_like(t)
        for _ in range(2):
            v = v - jax.grad(lagrangian, 0)(v, t, a, g, h) / 3
            t = t - jax.grad(lagrangian, 1)(v, t, a, g, h) / 2
            a = jnp.sign(v - g) * jnp.maximum(jnp.abs(v - g) - 1e-3, 0)
            g, h = g + a - v, h + basis(v) - t

        def errors(x):
            data = 4 * jnp.sum((model["lr"](x) - observation["lr"]) ** 2)
            data += jnp.sum((model["guide"](x) - observation["guide"]) ** 2) / norm**2
            return (data + jnp.sum((x - basis(a)) ** 2) + jnp.sum((x - basis(v)) ** 2)) / 2

        return t - jax.grad(errors)(t) / 4

    x, product = nnx.jit(lambda network: network.solve(observation, model, basis)[-2:])(network)
    np.testing.assert_allclose(x, by_hand(), atol=1e-4)
    np.testing.assert_allclose(product, x, atol=1e-6)


def test_signs_of_singular_vectors_do_not_matter(pair) -> None:
    observation, model, _ = pair
    network = ADMMHFNet(BANDS, stages=2, rngs=nnx.Rngs(0))
    vectors = subspace(observation["lr"], 3)
    solve = nnx.jit(lambda network, basis: network.solve(observation, model, basis)[-1])
    product = solve(network, Basis(vectors))
    np.testing.assert_allclose(solve(network, Basis(vectors * jnp.asarray([1.0, -1.0, -1.0]))), product, atol=1e-6)
    assert float(jnp.abs(solve(network, Basis(vectors.at[..., 1].set(0))) - product).max()) > 1e-4


@pytest.mark.parametrize("physics", ["exact", "learned", "free"])
def test_all_physics_run_and_learn(physics, pair) -> None:
    observation, model, target = pair
    network = ADMMHFNet(BANDS, stages=2, rank=5, training_rank=5, width=3, physics=physics, rngs=nnx.Rngs(0))
    graph, parameters, rest = nnx.split(network, nnx.Param, ...)
    network.unroll = "remat"
    other_graph = nnx.graphdef(network)

    @jax.jit
    def run(parameters):
        def loss(parameters, graph):
            network = nnx.merge(graph, parameters, rest, copy=True)
            return training_loss(network, observation, model, target)

        return jax.value_and_grad(loss)(parameters, graph), loss(parameters, other_graph)

    (value, gradient), other = run(parameters)
    np.testing.assert_allclose(other, value, rtol=1e-4)
    for path, entry in nnx.to_flat_state(gradient):
        assert bool(jnp.isfinite(entry[...]).all()), path
        assert float(jnp.abs(entry[...]).max()) > 0, path


def test_no_other_physics() -> None:
    with pytest.raises(InputError, match="exact, learned, free"):
        ADMMHFNet(BANDS, stages=1, physics="true", rngs=nnx.Rngs(0))  # type: ignore[arg-type]
