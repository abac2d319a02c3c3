"""What every system promises; a new row of the catalogue is tested here for free."""

import dataclasses
import inspect
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jfusion import catalogue
from jfusion.catalogue import Bands, Classical, Fitted, Recipe, System, Trained
from jfusion.data.simulate import Simulation
from jfusion.errors import InputError
from jfusion.inference.run import completed, count_parameters, run
from jfusion.operators import Grid, Observation, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from jfusion.tasks import SPATIOSPECTRAL, TASKS
from jfusion.training.loop import build, train
from jfusion.training.players import make_players
from jfusion.training.step import Batch, Devices, begin, make_step
from priors.pair import Pair

SYSTEMS = list(catalogue.systems().values())
CLASSICAL = [s for s in SYSTEMS if isinstance(s.method, Classical)]
TRAINED = [s for s in SYSTEMS if isinstance(s.method, Trained)]
FITTED = [s for s in SYSTEMS if isinstance(s.method, Fitted)]
NETWORKS = TRAINED + FITTED
RATIO = 2

every = pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: s.name)
each_classical = pytest.mark.parametrize("system", CLASSICAL, ids=lambda s: s.name)
each_trained = pytest.mark.parametrize("system", TRAINED, ids=lambda s: s.name)
each_fitted = pytest.mark.parametrize("system", FITTED, ids=lambda s: s.name)
each_network = pytest.mark.parametrize("system", NETWORKS, ids=lambda s: s.name)
each_task = pytest.mark.parametrize("task", SPATIOSPECTRAL)


@pytest.fixture(autouse=True)
def forgotten_at_once() -> Iterator[None]:
    """Hardly two tests here run the same program, and there are hundreds of them."""
    yield
    jax.clear_caches()


NESTED, SHIFTED = Grid.nested(RATIO), Grid(3, (0.6, 2.0))


def pair(scene: np.ndarray, guide_bands: int = 3, size: tuple[int, int] = (32, 32), grid: Grid = NESTED) -> Simulation:
    """Two images of one scene."""
    target = jnp.asarray(np.stack([scene[: size[0], : size[1]], scene[-size[0] :, -size[1] :]]))
    bands = target.shape[-1]
    srf = np.zeros((guide_bands, bands), np.float32)
    for k, part in enumerate(np.array_split(np.arange(bands), guide_bands)):
        srf[k, part] = 1 / len(part)
    operators = {
        "lr": SpatialResponse(gaussian_psf(0.425 * grid.ratio, grid), grid.ratio, grid.phase, "circular"),
        "guide": SpectralResponse(jnp.asarray(srf)),
    }
    model = ObservationModel(dict(operators), grid)
    return Simulation(model(target), model, target)


def of_task(scene: np.ndarray, task: str) -> Simulation:
    return pair(scene if task != "pansharpening" else scene[..., ::3], 3 if task == "hs_ms" else 1)


def tiny(system: System, bands: Bands) -> nnx.Module:
    assert isinstance(system.method, Trained)
    return build(system, bands, sizes=system.method.tiny)


def fusion(system: System, data: Simulation):
    """The system as a function, with random parameters where it has any."""
    if isinstance(system.method, Classical):
        return system.method.function
    return tiny(system, Bands.of(data.observation, data.model))


def compiled(function):
    return nnx.jit(function) if isinstance(function, nnx.Module) else jax.jit(function)


@every
def test_row_is_complete(system: System) -> None:
    assert system.family in ("classical", "cnn", "gan", "transformer", "unrolled", "prior")
    assert system.tasks
    assert set(system.tasks) <= set(TASKS)
    assert system.summary
    assert system.paper.authors
    assert system.paper.title
    assert 1970 <= system.paper.year <= 2030
    if isinstance(system.method, Trained | Fitted):
        assert system.parameters is not None


@every
def test_source_is_in_the_docstring(system: System) -> None:
    """The module or function that holds a system names the paper's first author and year."""
    method = system.method
    function = {Classical: "function", Trained: "network", Fitted: "generator"}[type(method)]
    holder = getattr(method, function)
    holder = getattr(holder, "func", holder)
    text = f"{inspect.getdoc(holder)} {inspect.getdoc(sys.modules[holder.__module__])}"
    first = system.paper.authors.split(",")[0].split()[-1]
    assert first in text
    assert str(system.paper.year) in text


@pytest.mark.parametrize("system", CLASSICAL + TRAINED, ids=lambda s: s.name)
def test_product(system: System, scene: np.ndarray) -> None:
    """Shape, dtype, finiteness; compiled equals eager; a batch equals one by one; another size and grid work."""
    data = pair(scene)
    function = fusion(system, data)
    product = compiled(function)(data.observation, data.model)
    assert product.shape == data.target.shape
    assert product.dtype == jnp.float32
    assert bool(jnp.isfinite(product).all())
    scale = float(jnp.abs(product).max())
    np.testing.assert_allclose(function(data.observation, data.model), product, atol=2e-3 * scale)
    first = jax.tree.map(lambda x: x[:1], data.observation)
    np.testing.assert_allclose(compiled(function)(first, data.model), product[:1], atol=2e-3 * scale)
    larger = pair(scene, size=(24, 40))
    assert jax.eval_shape(lambda: function(larger.observation, larger.model)).shape == larger.target.shape
    other = pair(scene, size=(24, 39), grid=SHIFTED)
    product = compiled(fusion(system, other))(other.observation, other.model)
    assert product.shape == other.target.shape
    assert bool(jnp.isfinite(product).all())


@each_task
@each_classical
def test_classical_beats_interpolation(system: System, task: str, scene: np.ndarray) -> None:
    if task not in system.tasks:
        pytest.skip(f"{system.name} does not serve {task}")
    data = of_task(scene, task)
    product = jax.jit(system.method.function)(data.observation, data.model)  # type: ignore[union-attr]
    assert product.shape == data.target.shape
    baseline = catalogue.get(TASKS[task].baseline).method.function(data.observation, data.model)  # type: ignore[union-attr]
    error, trivial = (float(jnp.mean((x - data.target) ** 2)) for x in (product, baseline))
    assert error < (1.02 if system.name in (TASKS[task].baseline, "interp23") else 0.9) * trivial


@each_task
@each_trained
def test_network_serves_its_tasks(system: System, task: str, scene: np.ndarray) -> None:
    data = of_task(scene, task)
    shape = jax.eval_shape(
        lambda: tiny(system, Bands.of(data.observation, data.model))(data.observation, data.model)  # type: ignore[operator]
    ).shape
    assert shape == data.target.shape


@each_trained
def test_network_trains_in_half_precision(system: System, scene: np.ndarray) -> None:
    """Decompositions, which have no such precision, are lowered too."""
    assert isinstance(system.method, Trained)
    data, method = pair(scene, size=(16, 16)), system.method
    graph, parameters, rest = nnx.split(tiny(system, Bands.of(data.observation, data.model)), nnx.Param, ...)

    def loss(parameters: nnx.State, observation: Observation) -> jax.Array:
        half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (parameters, observation))
        return method.loss(nnx.merge(graph, half[0], rest, copy=True), half[1], data.model, data.target)

    jax.jit(jax.grad(loss)).lower(parameters, data.observation)


@pytest.mark.parametrize("system", [s for s in TRAINED if s.family == "unrolled"], ids=lambda s: s.name)
def test_unrolled_network_passes_its_options_on(system: System, scene: np.ndarray) -> None:
    """Reports and `--exact` ask for them."""
    data = pair(scene, size=(16, 16))
    asked = jax.eval_shape(
        lambda: tiny(system, Bands.of(data.observation, data.model))(  # type: ignore[operator]
            data.observation, data.model, stages=True, exact=True
        )
    )
    assert asked.product.shape == asked.estimates.shape[1:] == data.target.shape
    assert set(asked.residuals) == {"lr", "guide"}


@each_network
def test_parameter_count(system: System) -> None:
    """The stated number at the paper's setting, without memory or compilation."""
    assert system.parameters is not None
    count, bands = system.parameters
    method = system.method
    builder = method.network if isinstance(method, Trained) else method.generator  # type: ignore[union-attr]
    assert count_parameters(nnx.eval_shape(lambda: builder(bands, rngs=nnx.Rngs(0)))) == count


FEWER = {"mhf_net": {"stages": 3}, "bmhf_net": {"stages": 3}}
"""Of the paper's twenty stages, which take half a minute to trace and are all alike."""


@each_trained
def test_training_step_at_the_papers_size(system: System) -> None:
    """A step on the paper's batch gives the state that it was given, without memory or compilation."""
    assert isinstance(system.method, Trained)
    assert system.parameters is not None
    method, recipe, bands = system.method, system.method.recipe, system.parameters[1]
    grid = Grid.nested(bands.ratio)
    operators = {
        "lr": SpatialResponse(gaussian_psf(bands.ratio / 2.35, grid), bands.ratio, grid.phase, "circular"),
        "guide": SpectralResponse(jnp.full((bands.guide, bands.lr), 1 / bands.lr)),
    }

    def first_step(target, model):
        network = method.network(bands, rngs=nnx.Rngs(0), **FEWER.get(system.name, {}))
        players, modules = make_players(method, network, bands, recipe.steps, 0, {})
        state = begin(players, modules)
        share = jax.tree.map(lambda x: x[None], Batch(model(target), target))
        return state, make_step(players, Devices.of(1), recipe.parts, recipe.dtype)(state, share, model)

    target = jax.ShapeDtypeStruct((recipe.batch, recipe.patch, recipe.patch, bands.lr), jnp.float32)
    before, (after, losses) = jax.eval_shape(first_step, target, ObservationModel(dict(operators), grid))
    assert after == before
    assert {loss.shape for loss in losses.values()} == {()}


@each_trained
def test_gradients_reach_every_parameter(system: System, scene: np.ndarray) -> None:
    data = pair(scene, size=(16, 16))
    module = tiny(system, Bands.of(data.observation, data.model))
    if system.method.initialise is not None:  # type: ignore[union-attr]
        system.method.initialise(module, data.observation, data.model, data.target)  # type: ignore[union-attr]
    graph, parameters, rest = nnx.split(module, nnx.Param, ...)

    @jax.jit
    def gradient(parameters):
        def loss(parameters):
            return system.method.loss(  # type: ignore[union-attr]
                nnx.merge(graph, parameters, rest, copy=True), data.observation, data.model, data.target
            )

        return jax.grad(loss)(parameters)

    for path, value in nnx.to_flat_state(gradient(parameters)):
        assert bool(jnp.isfinite(value[...]).all()), path
        assert float(jnp.abs(value[...]).max()) > 0, path


@each_trained
def test_training_lowers_the_loss(system: System, scene: np.ndarray) -> None:
    two = pair(scene, size=(16, 16))
    # one image of a patch's size: the losses of different steps are those of the same pixels
    data = two._replace(observation=jax.tree.map(lambda x: x[:1], two.observation), target=two.target[:1])
    sizes = system.method.tiny  # type: ignore[union-attr]
    result = train(system, data, sizes=sizes, steps=60, batch=2, patch=16)
    assert len(result.losses) == 3
    assert result.losses[-1] < result.losses[0]


@each_fitted
def test_fit(system: System, scene: np.ndarray) -> None:
    """A few steps lower the loss at an odd ratio, on grids that are not nested, with one band in the guide."""
    data = pair(scene, guide_bands=1, size=(36, 36), grid=SHIFTED)
    one = jax.tree.map(lambda x: x[:1], data.observation)
    model, _ = completed(system, one, data.model)
    fit = system.method.fit(one, model, key=jax.random.key(0), effort=60 / system.method.steps, **system.method.tiny)  # type: ignore[union-attr]
    assert fit.product.shape == data.target[:1].shape
    assert bool(jnp.isfinite(fit.product).all())
    assert fit.losses[-1] < fit.losses[0]
    assert fit.model.known


@each_fitted
def test_scenes_have_modules_alike(system: System, scene: np.ndarray) -> None:
    """So that those of a batch are fitted at once."""
    data = pair(scene, size=(24, 24))
    model = data.model if system.needs_model else data.model.replace(operators={"lr": None, "guide": None})
    singles = [jax.tree.map(lambda x, i=i: x[i : i + 1], data.observation) for i in range(2)]
    plan = inspect.unwrap(system.method.fit)  # type: ignore[union-attr]
    first, second = (plan(single, model, **system.method.tiny) for single in singles)  # type: ignore[union-attr]
    key = jax.random.key(0)
    assert first.stages == second.stages
    assert nnx.graphdef(nnx.eval_shape(lambda: first.build(key))) == nnx.graphdef(
        nnx.eval_shape(lambda: second.build(key))
    )


@each_fitted
def test_fitters_cannot_receive_a_reference(system: System) -> None:
    names = set(inspect.signature(system.method.fit).parameters)  # type: ignore[union-attr]
    assert not names & {"target", "reference", "truth", "ground_truth"}


def test_losses_of_a_fit_see_no_reference() -> None:
    assert {field.name for field in dataclasses.fields(Pair)} == {"observation", "weight", "model"}


def test_unknown_name_suggests_others() -> None:
    with pytest.raises(InputError, match="brovey"):
        catalogue.get("brovy")


def test_run_estimates_what_a_system_needs(scene: np.ndarray) -> None:
    data = pair(scene, size=(48, 48))
    one = jax.tree.map(lambda x: x[:1], data.observation)
    unknown = dataclasses.replace(data.model, operators={"lr": None, "guide": None})
    done = run(catalogue.get("fuse"), one, unknown)
    assert done.model.known
    assert "estimated" in done.note


def test_rows_of_ones_own_may_be_made_anew() -> None:
    """As in a notebook; those of packages may not be replaced."""
    row = catalogue.get("cubic")
    mine = [dataclasses.replace(row, name="mine_again", title=title) for title in ("first", "second")]
    try:
        for one in mine:
            catalogue.add(one)
            assert catalogue.get("mine_again") is one
        with pytest.raises(InputError, match="called 'cubic' already"):
            catalogue.add(dataclasses.replace(row, title="mine"))
    finally:
        catalogue.systems().pop("mine_again")


def test_rows_that_cannot_be_meant() -> None:
    row = catalogue.get("cubic")
    with pytest.raises(InputError, match="did you mean unrolled"):
        dataclasses.replace(row, family="unroled")
    with pytest.raises(InputError, match="such as lambda steps"):
        Recipe(optax.adam(1e-3), steps=1, patch=8, batch=1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="module:NAME"):
        catalogue.get("my_module.MINE")


@pytest.mark.parametrize("name", ["cubic", "pannet", "dip"])
def test_what_cannot_be_run_is_said_first(name: str, scene: np.ndarray) -> None:
    data = pair(scene)
    observation, lr = data.observation, data.observation["lr"]
    for wrong, said in (
        ({"hs": lr, "guide": observation["guide"]}, "but this dict has hs, guide"),
        (data, "but this Simulation is none"),
        ({"lr": lr[0], "guide": observation["guide"][0]}, r"came as lr \(16, 16, 12\), guide"),
        ({"lr": observation["guide"], "guide": lr}, "common extent"),
        ({"lr": lr.at[0, 0, 0, 0].set(jnp.nan), "guide": observation["guide"]}, "lr has 1 values that are NaN"),
    ):
        with pytest.raises(InputError, match=said):
            run(name, wrong, data.model)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"training\.weights\.load"):
        run(name, observation, data.model, weights="net.safetensors")  # type: ignore[arg-type]
    if name != "pannet":
        with pytest.raises(InputError, match="not trained: leave out stpes"):
            run(name, observation, data.model, stpes=3)
