"""One step on two devices is the step of one device with the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jfusion import catalogue
from jfusion.catalogue import Bands
from jfusion.data.simulate import Simulation, reduce
from jfusion.errors import InputError, RunError
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from jfusion.training import weights
from jfusion.training.loop import Network, build, patches, train
from jfusion.training.step import Batch, make_step, split


@pytest.fixture
def data(scene: np.ndarray) -> Simulation:
    target = jnp.asarray(scene)[None]
    grid = Grid.nested(2)
    operators = {
        "lr": SpatialResponse(gaussian_psf(0.85, grid), 2, grid.phase, "circular"),
        "guide": SpectralResponse(jnp.full((1, 12), 1 / 12)),
    }
    model = ObservationModel(dict(operators), grid)
    return Simulation(model(target), model, target)


class Scale(nnx.Module):
    """The smallest network: one gain a band."""

    def __init__(self) -> None:
        self.gain = nnx.Param(jnp.full(12, 0.5))

    def __call__(self, observation, model):
        return jnp.repeat(jnp.repeat(observation["lr"], 2, 1), 2, 2) * self.gain


def mean_square(module, observation, model, target):
    return jnp.mean((module(observation, model) - target) ** 2)


def test_parallel_step_equals_one_device(data: Simulation) -> None:
    assert jax.local_device_count() > 1
    optimiser = optax.sgd(1.0)
    graph, state = split(Scale(), optimiser)
    batch = next(patches(data, 16, 4, seed=0))
    gradient = jax.grad(
        lambda p: mean_square(nnx.merge(graph, p, state.rest, copy=True), batch.observation, data.model, batch.target)
    )(state.parameters)
    expected = jax.tree.map(lambda p, g: np.asarray(p - g), state.parameters, gradient)
    step = make_step(graph, mean_square, optimiser)
    after, _ = step(state, batch, data.model)
    for want, got in zip(jax.tree.leaves(expected), jax.tree.leaves(after.parameters), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_patches_are_aligned_and_repeatable(data: Simulation) -> None:
    first, again = (next(patches(data, 8, 4, seed=3)) for _ in range(2))
    assert isinstance(first, Batch)
    for one, two in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(first.observation["guide"][..., 0], first.target.mean(-1), atol=1e-5)
    blocks = first.target.reshape(4, 4, 2, 4, 2, 12).mean((2, 4))
    assert float(jnp.abs(blocks - first.observation["lr"]).mean()) < 0.05


def test_a_budget_ends_training_early(data: Simulation) -> None:
    system = catalogue.get("fusionnet")
    result = train(system, data, sizes=system.method.tiny, steps=10_000, batch=2, patch=8, budget=0.0)  # type: ignore[union-attr]
    assert result.steps == 1


def test_divergence_is_named(data: Simulation) -> None:
    system = catalogue.get("fusionnet")
    broken = data._replace(target=data.target.at[0, 0, 0, 0].set(jnp.nan))
    with pytest.raises(RunError, match="step"):
        train(system, broken, sizes=system.method.tiny, steps=20, batch=8, patch=48)  # type: ignore[union-attr]


def test_classical_systems_are_not_trained() -> None:
    with pytest.raises(InputError, match="not a network"):
        build(catalogue.get("gsa"), Bands(4, 1, 2))


def test_weights_round_trip(data: Simulation, tmp_path) -> None:
    system = catalogue.get("fusionnet")
    sizes = system.method.tiny  # type: ignore[union-attr]
    bands = Bands.of(data.observation, data.model)
    network = Network(system, bands, sizes, build(system, bands, seed=5, sizes=sizes), scale=2.5)
    path = tmp_path / "net.safetensors"
    weights.save(path, network)
    loaded = weights.load(path)
    np.testing.assert_array_equal(loaded(data.observation, data.model), network(data.observation, data.model))
    with pytest.raises(InputError, match="built for"):
        loaded({**data.observation, "lr": data.observation["lr"][..., :3]}, data.model)


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x08\0\0\0\0\0\0\0{}      "])
def test_other_files_are_no_weights(tmp_path, content: bytes) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a weights file"):
        weights.load(path)
    with pytest.raises(InputError, match="no weights file"):
        weights.load(tmp_path / "missing")


def test_wald_reduction_keeps_the_grid(scene: np.ndarray) -> None:
    """A ramp seen once more by the same sensor stays where it was."""
    ramp = jnp.broadcast_to(jnp.arange(48.0)[None, :, None, None], (1, 48, 48, 1))
    grid = Grid(2, (1, 0))
    model = ObservationModel({"lr": SpatialResponse(gaussian_psf(0.85, grid), 2, grid.phase), "guide": None}, grid)
    low = reduce({"lr": SpatialResponse(gaussian_psf(0.85, grid), 2, grid.phase)(ramp), "guide": ramp}, model)
    inner = np.s_[0, 6:-6, 6:-6, 0]
    np.testing.assert_allclose(low.observation["guide"][inner], low.target[inner], atol=1e-3)
    with pytest.raises(InputError, match="larger pair"):
        reduce({"lr": ramp[:, :3, :3], "guide": ramp[:, :6, :6]}, model)
