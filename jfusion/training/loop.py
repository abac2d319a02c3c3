"""Training of one network on pairs with truth: in memory, or in a folder that no kill can spoil."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import math
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jfusion.catalogue import Bands, DType, Recipe, System, Trained
from jfusion.data.patches import VALID, Crops, Mixture, crops, turned_crops
from jfusion.data.pipeline import loader, stacked
from jfusion.data.simulate import Simulation, explains, unexplained
from jfusion.errors import InputError, RunError
from jfusion.operators import Observation, ObservationModel, check_pair, scaled
from jfusion.progress import Progress, silent
from jfusion.training.players import CRITICS, NETWORK, make_players
from jfusion.training.step import (
    Batch,
    Devices,
    PlayerState,
    TrainState,
    begin,
    failed_at,
    make_judge,
    make_steps,
    may_lock,
    merge,
)

if TYPE_CHECKING:
    from jfusion.training.folder import Run

REPORT_EVERY = 20

LONGEST_CALL = 5.0
"""Seconds that a call of several steps may take: between two calls SIGTERM is obeyed and a budget is looked at."""

UNIT = 0.999
"""Share of the values to learn from that lie below what networks see as 1: a glint must not set the scale."""


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A network that is ready to work: ``product = network(observation, model)``, in the units of the observation.

    Attributes:
        system: its row of the catalogue.
        bands: that it was built for.
        sizes: constructor arguments other than the paper's.
        module: with its parameters.
        scale: what the images are divided by before they go in, see `UNIT`.
    """

    system: System
    bands: Bands
    sizes: dict[str, Any]
    module: Any
    scale: float

    def serves(self, bands: Bands) -> bool:
        """Whether pairs with these bands can be fused: those that it was built for, or any."""
        return bands == self.bands or (isinstance(self.system.method, Trained) and self.system.method.any_bands)

    def __call__(self, observation: Observation, model: ObservationModel, **options: Any) -> Any:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of the module.

        Where that is a named tuple, its ``product`` and ``estimates`` are in the units of the observation.

        Raises:
            InputError: the observation has other bands, or another ratio, than the network was built for, or its images
                do not cover the same area.
        """
        check_pair(observation, model)
        if not self.serves(found := Bands.of(observation, model)):
            raise InputError(f"the network was built for {self.bands}, but the pair has {found}; train for this pair.")
        if self.system.reads_model(self.sizes):
            observation, model = model.linear(observation)
        result = self.module(*scaled(observation, model, 1 / self.scale), **options)
        if isinstance(result, jax.Array):
            return result * self.scale
        return result._replace(product=result.product * self.scale, estimates=result.estimates * self.scale)


@dataclasses.dataclass(frozen=True)
class Training:
    """What training returns.

    Attributes:
        network: after the last step.
        losses: of the network at the reported steps, in order.
        steps: done in all.
        planned: steps that it was to have; more than were done where a budget ended it.
        seconds: of all sittings together, with compilation.
        best: the network that was best on the held-out images, None where there are none.
    """

    network: Network
    losses: list[float]
    steps: int
    planned: int
    seconds: float
    best: Network | None = None


@dataclasses.dataclass
class _History:
    """What is told of a training besides its state: the reported losses, and the best step on held-out images."""

    losses: list[float] = dataclasses.field(default_factory=list)
    best_step: int = 0
    best: float | None = None


def build(system: System, bands: Bands, seed: int = 0, sizes: dict[str, Any] | None = None) -> Any:
    """The untrained network of a system; the sizes of its critics are passed over.

    Raises:
        InputError: the system is not a network that is trained.
    """
    if not isinstance(system.method, Trained):
        raise InputError(f"{system.name} is not a network that is trained; it is of the family {system.family}.")
    arguments = {name: value for name, value in (sizes or {}).items() if name != CRITICS}
    return system.method.network(bands, rngs=nnx.Rngs(seed), **arguments)


def train(
    system: System,
    data: Simulation,
    *,
    seed: int = 0,
    sizes: dict[str, Any] | None = None,
    steps: int | None = None,
    patch: int | None = None,
    batch: int | None = None,
    dtype: DType | None = None,
    turn: bool | None = None,
    pace: float | None = None,
    budget: float | None = None,
    progress: Progress = silent,
    validation: Simulation | None = None,
    start: Network | None = None,
    valid: np.ndarray | None = None,
    every: int = 500,
    folder: Path | None = None,
    resume: bool = True,
    configuration: Mapping[str, Any] | None = None,
) -> Training:
    """Trains a system on random patches of ``data`` by its recipe, on all devices that divide the batch.

    With a ``folder``, which all processes must see, the training is a run that can be stopped at any moment and goes on
    where its last checkpoint was, with the same result as if it had never been stopped. SIGTERM then saves after the
    present steps and raises SystemExit(143).

    Args:
        system: a row of the catalogue whose method is `Trained`.
        data: pairs with truth, with their observation model.
        seed: of the parameters, the patches and all else that is random.
        sizes: constructor arguments of the network, the paper's by default; those of the critics under "critics".
        steps, patch, batch, dtype, turn: in place of the recipe's.
        pace: for runs much shorter than the paper's, in place of its schedule: learning rates rise to this many times
            the recipe's first ones over the first steps and fall to zero at the last.
        budget: seconds, of all sittings together and with compilation, after which training ends early; the learning
            rate then ends where it is. There is at least one step.
        progress: called every few steps.
        validation: pairs with truth from another region, which must not overlap that of ``data``; the best step is that
            of the product with the lowest root mean square error there, whatever the system learns by.
        start: a trained network of the system whose parameters training starts from, in its sizes and its units; it
            counts as step 0 where the best step is chosen.
        valid: ``(h, w)``, pixels of `lr` that patches are drawn of, see `jfusion.data.patches.Crops`; all by default.
        every: steps between two checkpoints, and between two looks at ``validation``.
        folder: of the run.
        resume: whether a run in the folder is gone on with; otherwise there must be none.
        configuration: further settings of the experiment, plain values; a run is resumed only with the same.

    Raises:
        InputError: the system is not trained, the images do not fit each other, the seed is negative, the validation
            images are those of training, the network to start from is another system's, or the folder holds a run that
            is not to be resumed, or of other settings.
        RunError: the loss is not finite (the message names step, patches and last checkpoint), a checkpoint cannot be
            written, or no checkpoint of the run is sound.
    """
    if validation is not None and np.array_equal(validation.target, data.target):
        raise InputError("the validation images are those of training; give another region, see data.patches.hold_out.")
    if budget is not None and jax.process_count() > 1:
        raise InputError("a budget of seconds ends each process at another step; give a number of steps.")
    if seed < 0:
        raise InputError(f"a seed is 0 or more, but is {seed}.")
    if not isinstance(data, Simulation):
        raise InputError(f"training takes pairs with truth, a Simulation, but a {type(data).__name__} came.")
    check_pair(data.observation, data.model, data.target)
    origin = _begun(system, data, seed, sizes, start)
    if system.reads_model(origin.sizes):
        data, validation = _linear(data), validation and _linear(validation)
    method = system.method
    assert isinstance(method, Trained)
    recipe = _asked(method.recipe, steps=steps, patch=patch, batch=batch, dtype=dtype, turn=turn)
    if every < 1:
        raise InputError(f"there must be a step at least between two looks, but every is {every}.")
    steps, batch, data = recipe.steps, recipe.batch, _over(data, origin.scale)
    _check_product(system, origin.module, data, recipe.patch)
    if start is None and method.initialise is not None:
        method.initialise(origin.module, data.observation, data.model, data.target)
    players, modules = make_players(method, origin.module, origin.bands, steps, seed, origin.sizes, pace)
    devices = Devices.of(batch, recipe.parts)
    state, done, history = begin(players, modules, seed), 0, _History()
    held_out, held_out_model = None, data.model
    if validation is not None:
        observation, held_out_model, target = _over(validation, origin.scale)
        held_out = Batch(observation, target)
    best: PlayerState | None = None
    first = None if start is None else jax.tree.map(jnp.copy, state.players[NETWORK])
    began, spent = time.perf_counter(), 0.0

    with ExitStack() as stack:
        run: Run | None = None
        if folder is not None:
            from jfusion.training.folder import code_of, open_run

            settings = {
                "system": system.name, "bands": dataclasses.asdict(origin.bands), "sizes": origin.sizes, "seed": seed,
                "steps": steps, "patch": recipe.patch, "batch": batch, "parts": recipe.parts, "dtype": recipe.dtype,
                "average": recipe.average, "turn": recipe.turn, "pace": pace, "data": _digest(data),
                "observation model": name_of(data.model), "arrays of the state": _shapes(state),
                "validation": validation and _digest(validation), "experiment": configuration or {},
            }  # fmt: skip
            if first is not None:
                settings["start"] = name_of(first.parameters)
            if valid is not None:
                settings["valid pixels"] = name_of(valid)
            code = code_of(*(part for part in (method.network, method.loss, method.stochastic) if part is not None))
            run = stack.enter_context(open_run(folder, settings, code))
            done, state, record = run.resume(state, resume)
            history = _History(**record.get("history", {}))
            best, spent = _best(run, state, history), record.get("seconds", 0.0)
            stack.enter_context(run.writing(done))
        source, observing = _patches(data, recipe, seed, valid, anew=system.reads_model(origin.sizes))
        read = stacked if run is None else loader
        records = read(source, batch, start=done, process=jax.process_index(), processes=jax.process_count())
        stack.callback(records.close)
        batches = _batches(records)
        example = next(batches)
        advance = make_steps(players, devices, recipe.parts, recipe.dtype, observing)
        if may_lock(advance, devices, state, [devices.share(example)] * devices.steps, 1, data.model):
            devices = devices.one()
            advance = make_steps(players, devices, recipe.parts, recipe.dtype, observing)
        state, model = devices.replicate((state, data.model))
        judge = None if held_out is None else make_judge(players[NETWORK], devices, held_out, held_out_model)
        if first is not None and judge is not None and history.best_step == 0:
            value = judge(first)
            best, history.best = (first, value) if math.isfinite(value) else (None, None)
        batches = devices.prefetch(chain([example], batches))

        last = done == steps or (done > 0 and budget is not None and spent >= budget)
        at_once, reported = 1, (done, time.perf_counter())
        while not last:
            count = min(at_once, steps - done, REPORT_EVERY - done % REPORT_EVERY, every - done % every)
            taken = list(islice(batches, count))
            state, values = advance(state, taken + taken[-1:] * (devices.steps - count), count, model)
            done += count
            if budget is not None:
                values[NETWORK].block_until_ready()
            seconds = spent + time.perf_counter() - began
            last = done == steps or (budget is not None and seconds >= budget)
            report, look = last or done % REPORT_EVERY == 0, last or done % every == 0
            figures: dict[str, float] = {}
            if report or look:
                _check_finite(system, state, batch, run)
            if report:
                figures = {name if name != NETWORK else "loss": float(value) for name, value in values.items()}
                history.losses.append(figures["loss"])
                took = (time.perf_counter() - reported[1]) / (done - reported[0])
                at_once = max(1, min(devices.steps, int(LONGEST_CALL / took)))
                reported = done, time.perf_counter()
            if look and judge is not None:
                figures["validation"] = value = judge(state.players[NETWORK])
                if math.isfinite(value) and (history.best is None or value < history.best):
                    history.best, history.best_step = value, done
                    best = jax.tree.map(jnp.copy, state.players[NETWORK])
            if figures:
                progress(done, steps, figures)
            if run is not None:
                run.checkpoints.best = history.best_step
                told = {"history": dataclasses.asdict(history), "seconds": seconds}
                run.after(done, state, figures, told, save=look, failed=partial(failed_at, state))
        if run is not None:
            run.checkpoints.wait()

    def network(player: PlayerState) -> Network:
        return dataclasses.replace(origin, module=merge(players[NETWORK], jax.device_get(player)))

    seconds = spent + time.perf_counter() - began
    chosen = None if best is None else network(best)
    return Training(network(state.players[NETWORK]), history.losses, done, steps, seconds, chosen)


def _check_product(system: System, module: Any, data: Simulation, patch: int) -> None:
    """Raises InputError where the network does not make products of patches; nothing is computed.

    One of the family unrolled is also asked for its stages, as reports do.
    """
    example = crops(data, patch)[0]
    target = example.pop("target")
    images = {name: jax.ShapeDtypeStruct((1, *image.shape), image.dtype) for name, image in example.items()}
    graph, state = nnx.split(module)
    options = {"stages": True} if system.family == "unrolled" else {}
    takes = inspect.signature(module).parameters
    if options and "stages" not in takes and all(p.kind is not p.VAR_KEYWORD for p in takes.values()):
        raise InputError(
            f"{system.name} is of the family unrolled, whose networks are asked for their stages, but its network "
            f"takes {', '.join(takes)} alone; let it take **options and pass them to unrolled.stages.finish, or name "
            "another family."
        )
    made = jax.eval_shape(lambda state, images: nnx.merge(graph, state)(images, data.model, **options), state, images)
    product = getattr(made, "product", made)
    if (shape := getattr(product, "shape", type(product).__name__)) != (1, *target.shape):
        raise InputError(
            f"{system.name} makes {shape} of a patch, but a product is {(1, *target.shape)}: the bands of lr at the "
            "pixels of the guide."
        )


def _begun(system: System, data: Simulation, seed: int, sizes: dict[str, Any] | None, start: Network | None) -> Network:
    """The network before the first step: a copy of ``start``, or one that is made for the pairs."""
    bands = Bands.of(data.observation, data.model)
    if start is not None:
        if start.system.name != system.name or not start.serves(bands):
            raise InputError(
                f"training of {system.name} for {bands} cannot start from {start.system.name} for {start.bands}; give "
                "a network of the same system and bands."
            )
        module = nnx.clone(start.module)
        module.train()
        return Network(system, bands, start.sizes, module, start.scale)
    try:
        sizes = json.loads(json.dumps(sizes or {}))  # as a weights file gives them back
    except TypeError as error:
        raise InputError(
            f"sizes must be numbers, words and lists, which a weights file keeps, but: {error}."
        ) from error
    return Network(system, bands, sizes, build(system, bands, seed, sizes), _unit(data.target))


def _asked(recipe: Recipe, **settings: Any) -> Recipe:
    """The recipe with the settings that are not None.

    Raises:
        InputError: it is of no step, pixel or patch.
    """
    recipe = dataclasses.replace(recipe, **{name: value for name, value in settings.items() if value is not None})
    if min(recipe.steps, recipe.patch, recipe.batch) < 1:
        raise InputError(
            f"a training needs one step, one pixel and one patch at least, but has {recipe.steps} steps of "
            f"{recipe.batch} patches of {recipe.patch} pixels; leave out what the recipe is to decide."
        )
    return recipe


def _patches(
    data: Simulation, recipe: Recipe, seed: int, valid: np.ndarray | None, anew: bool
) -> tuple[Crops | Mixture, bool]:
    """The patches, and whether the step observes them: then `lr` is what the sensor does not explain.

    Args:
        data: pairs with truth.
        recipe, seed: of the patches.
        valid: see `train`.
        anew: whether the system reads the model, so that patches are to be observed anew where it explains them.
    """
    if valid is not None:
        data = data._replace(observation={**data.observation, VALID: jnp.asarray(valid)[None, ..., None]})
    take = turned_crops if recipe.turn else crops
    source = take(data, recipe.patch, seed)
    if not (anew and explains(data.model, source[0]["target"].shape[:2])):
        return source, False
    noise = data._replace(observation={**data.observation, "lr": unexplained(data)})
    return take(noise, recipe.patch, seed), True


def _unit(target: jax.Array) -> float:
    values = np.abs(np.asarray(target))
    return float(np.quantile(values, UNIT) or values.max() or 1)


def _linear(data: Simulation) -> Simulation:
    """The pairs without what their sensors add."""
    return Simulation(*data.model.linear(data.observation), data.target)


def _over(data: Simulation, scale: float) -> Simulation:
    """The pairs in units of ``scale``."""
    return Simulation(*scaled(data.observation, data.model, 1 / scale), data.target / scale)


def _batches(records: Iterator[dict[str, np.ndarray]]) -> Iterator[Batch]:
    for record in records:
        images: dict[str, Any] = dict(record)
        yield Batch(target=images.pop("target"), observation=images)


def _digest(data: Simulation) -> str:
    """A short name for the very values of some pairs."""
    return name_of((dict(data.observation), data.target))


def _shapes(state: TrainState) -> str:
    """A short name for the arrays of a state, which the parameters of network, critics and optimisers decide."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    told = (f"{jax.tree_util.keystr(path)} {x.shape} {x.dtype}" for path, x in leaves)
    return name_of(list(told))


def name_of(tree: Any) -> str:
    """A short name for a pytree: its structure with all that is no array, and shapes, dtypes and contents of arrays."""
    leaves, structure = jax.tree.flatten(tree)
    content = hashlib.sha256(str(structure).encode())
    for leaf in leaves:
        array = np.ascontiguousarray(leaf)
        content.update(f"{array.shape} {array.dtype}".encode())
        content.update(array.tobytes())
    return content.hexdigest()[:16]


def _check_finite(system: System, state: TrainState, batch: int, run: Run | None) -> None:
    if not (failed := failed_at(state)):
        return
    good: list[int] = []
    if run is not None:
        run.checkpoints.wait()
        good = run.checkpoints.steps()
    kept = f"the last good checkpoint is that of step {good[-1]}; " if good else ""
    raise RunError(
        f"loss or gradient of {system.name} were not finite at step {failed}, on the patches {(failed - 1) * batch} "
        f"to {failed * batch - 1}; {kept}lower the learning rate or check the images for extreme values."
    )


def _best(run: Run, state: TrainState, history: _History) -> PlayerState | None:
    """The best network of a run that is gone on with; a damaged one is given up, with a warning."""
    if history.best is None or history.best_step == 0:
        return None
    if damage := run.checkpoints.damage(history.best_step):
        warnings.warn(
            f"the checkpoint of the best step, {history.best_step}, is damaged ({damage}); the best is sought anew.",
            RuntimeWarning,
            stacklevel=3,
        )
        history.best, history.best_step = None, 0
        return None
    return run.checkpoints.state(history.best_step, state).players[NETWORK]
