"""The fitter: an untrained module is fitted to a pair, without truth.

A fit is a list of stages, each with its loss, its trainable parts and its schedule. The steps run in compiled loops;
between two loops the host reports progress, saves, keeps to the budget and decides whether to stop.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from operator import attrgetter, itemgetter
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jfusion.catalogue import Fit, Fitter
from jfusion.errors import InputError, RunError
from jfusion.operators import Observation, ObservationModel
from jfusion.operators.linear import all_finite, pytree
from jfusion.progress import Progress, silent
from priors.pair import Pair
from priors.rollback import Record, Rollback

Tree = Any

Loss = Callable[[Any, Pair, Array], tuple[Array, Tree]]
"""``loss(module, pair, key)``: a scalar, and the output that the fit is for: product and observation model, unless
`Plan.finish` makes these of another pytree of arrays."""

ADAM = optax.flatten(optax.scale_by_adam())
"""Adam on one vector of all parameters, which compiles faster than on each array."""

Restore = Callable[[Callable[[int], "FitState"]], "FitState | None"]
"""``restore(begin)``: the state to go on from, or None; ``begin(stage)`` is how the stage so numbered begins, which has
the structure of all states of that stage."""

SHARED = "shared"
"""Axis of the devices that share scenes or an ensemble."""

REPORT_SECONDS = 0.5
"""Aim for the time between two reports."""


# ----------------------------------------------------------------------------------------------------------------------
# The recipe


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Learning rate ``rate`` until the share ``hold`` of the stage's steps is done, then linearly down to zero."""

    rate: float
    hold: float = 1.0

    def __call__(self, done: Array) -> Array:
        """The learning rate after the share ``done`` of the steps."""
        return self.rate * jnp.minimum(1, (1 - done) / max(1 - self.hold, 1e-9))


@dataclasses.dataclass(frozen=True)
class Falling:
    """Learning rate ``rate``, multiplied by ``factor`` after each of the stage's ``parts``, which are equally long.

    The last one may be cut short: with 2.5 parts the rate falls twice.
    """

    rate: float
    factor: float
    parts: float

    def __call__(self, done: Array) -> Array:
        """The learning rate after the share ``done`` of the steps."""
        return self.rate * self.factor ** jnp.floor(self.parts * done)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a fit. Stages that are equal are compiled once, so make them of module-level functions.

    Attributes:
        loss: see `Loss`; it draws its noise from the key, which is another one at every step.
        steps: optimiser steps at full effort.
        rate: learning rate by the share of the steps that is done, such as a `Schedule` or `Falling`.
        optimiser: turns gradients into the direction that the learning rate scales and that is then subtracted, such as
            ``optax.scale_by_adam()``; ``optax.adam(rate)`` has a rate and a sign of its own and would climb.
        trainable: names of the module's attributes whose parameters are fitted; empty for all.
        rates: multiples of the learning rate for the parameters of single attributes, (name, multiple) each.
        project: called on the module after each step; puts parameters back into their set, in place.
        rollback: see there.
        average: decay of an exponential average of the outputs; 0 for none.
    """

    loss: Loss
    steps: int
    rate: Callable[[Array], Array]
    optimiser: optax.GradientTransformation = ADAM
    trainable: tuple[str, ...] = ()
    rates: tuple[tuple[str, float], ...] = ()
    project: Callable[[Any], None] | None = None
    rollback: Rollback | None = None
    average: float = 0.0

    def split(self, module: nnx.Module) -> tuple[Any, Tree, Tree]:
        """Graph definition, what is fitted, and the rest.

        Raises:
            InputError: the module has no attribute of a name in `trainable` or `rates`.
        """
        if missing := {*self.trainable, *dict(self.rates)} - set(vars(module)):
            raise InputError(f"{type(module).__name__} has no {', '.join(sorted(missing))}; see trainable and rates.")

        def fitted(path: tuple[Any, ...], value: Any) -> bool:
            return isinstance(value, nnx.Param) and (not self.trainable or path[0] in self.trainable)

        return cast(tuple[Any, Tree, Tree], nnx.split(module, fitted, ...))

    def move(self, params: Tree, direction: Tree, done: Array) -> Tree:
        """``params`` after a step against the direction, each part at its own learning rate.

        Args:
            params: of `split`.
            direction: the optimiser's, of the same structure.
            done: share of the steps.
        """
        rate, multiples = self.rate(done), dict(self.rates)

        def step(path: tuple[Any, ...], d: Array) -> Array:
            return (-rate * multiples.get(path[0].key, 1) * d).astype(d.dtype)

        return optax.apply_updates(params, jax.tree.map_with_path(step, direction))


@dataclasses.dataclass(frozen=True)
class Stopping:
    """When a stage has nothing more to learn, judged without truth; its best parameters are kept.

    The watched value is the stage's loss on observed pixels that the fit's losses do not see or, where none is held
    out, on those that they see (a plateau).

    Attributes:
        held_out: fraction of the observed pixels that is held out.
        every: steps between two looks.
        patience: looks without improvement after which the stage ends.
        tolerance: relative decrease that counts as an improvement.
    """

    held_out: float = 0.0
    every: int = 100
    patience: int = 5
    tolerance: float = 1e-3


# ----------------------------------------------------------------------------------------------------------------------
# The compiled part

Kind = Literal["fit", "pair", "all"]
"""What has an argument of its own: each fit (of a member to a scene), each pair, or all of them the same."""


@pytree
class Iterate:
    """What one optimiser step hands to the next; ``failed`` is the first step with a loss that is not finite, or -1."""

    params: Tree
    rest: Tree
    optimiser: Tree
    key: Array
    step: Array
    loss: Array
    failed: Array
    output: Tree
    record: Record | None


@dataclasses.dataclass(frozen=True)
class Program:
    """A stage and the graph of its module: all that is static.

    Attributes:
        graphdef, stage: see `Stage.split`.
        ensemble: whether iterates have an axis of members, which share a pair.
        scenes: whether iterates and pairs have an axis of scenes, before that of members.
        mesh: of the devices that the first of these axes is shared out over, None for one device.
    """

    graphdef: Any
    stage: Stage
    ensemble: bool
    scenes: bool = False
    mesh: Mesh | None = None

    def mapped(self, function: Callable[..., Tree], *kinds: Kind) -> Callable[..., Tree]:
        """The function mapped over scenes and members, where there are any, of arguments of these kinds."""
        levels = [("fit",)] * self.ensemble + [("fit", "pair")] * self.scenes
        if not levels:
            return function
        for level in levels:
            function = jax.vmap(function, in_axes=tuple(0 if kind in level else None for kind in kinds))
        if self.mesh is None:
            return function
        specs = tuple(_spec(kind, self.scenes) for kind in kinds)
        return jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=P(SHARED), check_vma=False)

    def evaluate(self, params: Tree, rest: Tree, pair: Pair, key: Array) -> tuple[Array, Tree]:
        """Loss and output."""
        return self.stage.loss(nnx.merge(self.graphdef, params, rest), pair, key)

    def begin(self, params: Tree, rest: Tree, key: Array, pair: Pair) -> Iterate:
        """The iterate before the first step."""
        output = None
        if self.stage.average:
            shapes = jax.eval_shape(self.evaluate, params, rest, pair, key)[1]
            output = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        return Iterate(
            params,
            rest,
            self.stage.optimiser.init(params),
            key,
            step=jnp.zeros((), jnp.int32),
            loss=jnp.zeros(()),
            failed=jnp.full((), -1, jnp.int32),
            output=output,
            record=self.stage.rollback.begin(params) if self.stage.rollback else None,
        )

    def step(self, iterate: Iterate, pair: Pair, total: Array) -> Iterate:
        """The iterate after one more step of ``total``."""
        stage, params, record = self.stage, iterate.params, iterate.record
        key = jax.random.fold_in(iterate.key, iterate.step)
        (loss, output), gradient = jax.value_and_grad(self.evaluate, has_aux=True)(params, iterate.rest, pair, key)
        direction, optimiser = stage.optimiser.update(gradient, iterate.optimiser, params)
        updated = stage.move(params, direction, iterate.step / total)
        if stage.project is not None:
            module = nnx.merge(self.graphdef, updated, iterate.rest)
            stage.project(module)
            updated = stage.split(module)[1]
        if stage.rollback is not None and record is not None:
            record, updated = stage.rollback(record, loss, params, updated)
        if stage.average:
            decay = jnp.where(iterate.step == 0, 0, stage.average)
            output = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, iterate.output, output)
        return Iterate(
            updated,
            iterate.rest,
            optimiser,
            iterate.key,
            step=iterate.step + 1,
            loss=loss.astype(jnp.float32),
            failed=jnp.where((iterate.failed < 0) & ~jnp.isfinite(loss), iterate.step, iterate.failed),
            output=output if stage.average else None,
            record=record,
        )


@partial(jax.jit, static_argnames="program")
def _begin(program: Program, params: Tree, rest: Tree, key: Array, pair: Pair) -> Iterate:
    return program.mapped(program.begin, "fit", "fit", "fit", "pair")(params, rest, key, pair)


@partial(jax.jit, static_argnames="program")
def advance(program: Program, iterate: Iterate, pair: Pair, steps: int, total: int) -> Iterate:
    """The iterate after so many more steps of ``total``, in one compiled loop."""

    def one(iterate: Iterate, pair: Pair, steps: Array, total: Array) -> Iterate:
        return lax.fori_loop(0, steps, lambda _, i: program.step(i, pair, total), iterate)

    each = program.mapped(one, "fit", "pair", "all", "all")
    return each(iterate, pair, jnp.asarray(steps), jnp.asarray(total))


@partial(jax.jit, static_argnames="program")
def _look(program: Program, params: Tree, iterate: Iterate, pair: Pair) -> tuple[Array, Tree]:
    """Loss and output at ``params``, with the same noise at every look."""
    each = program.mapped(program.evaluate, "fit", "fit", "pair", "fit")
    return each(params, iterate.rest, pair, iterate.key)


# ----------------------------------------------------------------------------------------------------------------------
# The host part


@pytree
class FitState:
    """All that a fit needs to go on: a pytree, for any checkpointer.

    Attributes:
        stage: number of the stage, from 0.
        earlier: steps of the stages before it.
        iterate: of that stage.
        total: steps that the stage is to have.
        best: smallest watched value of the stage, of each fit.
        waited: looks since then, likewise.
        kept: parameters at that look, likewise.
        losses: of the stage, reported until now; those of the last stage begin before its first step.
    """

    stage: int
    earlier: int
    iterate: Iterate
    total: int
    best: np.ndarray
    waited: np.ndarray
    kept: Tree
    losses: list[float]


@dataclasses.dataclass(frozen=True)
class Fitting:
    """What `fit` returns: the fitted module, and the output and the reported losses of its last stage."""

    module: Any
    output: Tree
    losses: list[float]


def fit(
    build: Callable[[Array], nnx.Module] | Sequence[Callable[[Array], nnx.Module]],
    pair: Pair | Sequence[Pair],
    stages: tuple[Stage, ...],
    *,
    key: Array,
    effort: float = 1.0,
    budget: float | None = None,
    progress: Progress = silent,
    stopping: Stopping | None = None,
    valid: Mapping[str, np.ndarray] | None = None,
    restore: Restore | None = None,
    save: Callable[[FitState], None] | None = None,
) -> Fitting:
    """Fits a module to a pair, or modules alike to the pairs of several scenes at once.

    Args:
        build: makes the module from a key; of several scenes, one for each, which make modules of one structure.
        pair: what it is fitted to; the truth is no part of it. Of several scenes, one for each, of one shape.
        stages: run in order.
        key: random key, the same for all scenes. Keys ``(members,)`` fit an ensemble at once. Scenes, or else members,
            are shared out over as many devices as do so evenly.
        effort: scales the steps of every stage; each has at least one.
        budget: seconds for the whole. A stage may use its share, by steps, of what its compilation leaves, but not more
            than half while others follow; its schedule is shortened to that and not cut off.
        progress: called before the first loop, with the steps that are planned, and after each; the loss is a mean.
        stopping: ends stages early, when all scenes and members have nothing more to learn; each keeps its own best.
        valid: masks ``(height, width)`` of the pixels of each image that count, by its name; all by default.
        restore: gives the state of an interrupted fit with the same arguments to go on from; called once.
        save: called after each loop with the state.

    Returns:
        The module, the losses, and the output of the last stage: its average where the stage keeps one and nothing
        stops it early, and otherwise that of the final parameters. Module and output have an axis of scenes and one of
        members, where there are any.

    Raises:
        InputError: key, effort, budget or masks do not fit, or the modules of scenes differ in structure.
        RunError: a loss is not finite.
    """
    if not effort > 0 or (budget is not None and not budget > 0):
        raise InputError(f"effort and budget must be positive, but are {effort} and {budget}.")
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.ndim > 1:
        raise InputError("the key must come from jax.random.key, or from jax.random.split for an ensemble.")
    ensemble, begun = key.ndim == 1, time.monotonic()
    totals = [max(1, round(stage.steps * effort)) for stage in stages]
    scenes = not isinstance(pair, Pair)
    pairs = [one.only(valid or {}) for one in ([pair] if isinstance(pair, Pair) else pair)]
    modules = [_build(one, key) for one in (build if isinstance(build, Sequence) else [build])]
    if len(modules) != len(pairs):
        raise InputError(f"each pair needs a module of its own, but there are {len(pairs)} and {len(modules)}.")
    mesh = _mesh(len(pairs) if scenes else key.size)
    joined = _stacked if scenes else itemgetter(0)
    if stopping is not None and stopping.held_out > 0:
        parts = [one.hold_out(stopping.held_out, key[0] if ensemble else key) for one in pairs]
        seen, watched = (joined(part) for part in zip(*parts, strict=True))
    else:
        seen = watched = joined(pairs)
    module, key = _alike(modules) if scenes else modules[0], joined([key] * len(pairs))
    if mesh is not None:
        each, of_pairs = (NamedSharding(mesh, _spec(kind, scenes)) for kind in ("fit", "pair"))
        (seen, watched), key = jax.device_put((seen, watched), of_pairs), jax.device_put(key, each)
        module = nnx.merge(*jax.device_put(nnx.split(module), each))
    earlier = 0

    def staged(number: int) -> tuple[Program, Tree, Tree]:
        graphdef, params, rest = stages[number].split(module)
        return Program(graphdef, stages[number], ensemble, scenes, mesh), params, rest

    def begin(number: int) -> FitState:
        program, params, rest = staged(number)
        keys = program.mapped(jax.random.fold_in, "fit", "all")(key, number)
        iterate = _begin(program, params, rest, keys, seen)
        best = np.full(iterate.loss.shape, np.inf, np.float32)
        return FitState(number, earlier, iterate, totals[number], best, np.zeros(best.shape, np.int32), params, [])

    state = None if restore is None else restore(begin)
    if state is None:
        progress(0, sum(totals), {})
    for number in range(state.stage if state else 0, len(stages)):
        program, params, _ = staged(number)
        if state is None:
            state = begin(number)
            if number + 1 == len(stages):
                state.losses.append(float(_look(program, params, state.iterate, seen)[0].mean()))
        left = None if budget is None else budget - (time.monotonic() - begun)
        fraction = 1.0 if number + 1 == len(stages) else min(totals[number] / sum(totals[number:]), 0.5)
        after = partial(_after, sum(totals[number + 1 :]), progress, save)
        final = _run(program, seen, watched, state, stopping, left, fraction, after)
        earlier = final.earlier + final.total
        module, state = nnx.merge(program.graphdef, final.kept, final.iterate.rest), None
    if stages[-1].average and stopping is None:
        return Fitting(module, final.iterate.output, final.losses)
    return Fitting(module, _look(program, final.kept, final.iterate, seen)[1], final.losses)


def _spec(kind: Kind, scenes: bool) -> P:
    """How arguments of a kind are shared out over the devices."""
    return P(SHARED) if kind == "fit" or (kind == "pair" and scenes) else P()


def _mesh(count: int) -> Mesh | None:
    """As many devices of this process as share out so many fits evenly, None for one."""
    here = jax.local_devices()
    number = max(n for n in range(1, len(here) + 1) if count % n == 0)
    return Mesh(np.array(here[:number]), (SHARED,)) if number > 1 else None


def _build(build: Callable[[Array], nnx.Module], key: Array) -> nnx.Module:
    if key.ndim == 0:
        return build(key)
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: build(key[0])))
    return nnx.merge(graphdef, jax.jit(jax.vmap(lambda k: nnx.state(build(k))))(key))


def _stacked(trees: Sequence[Tree]) -> Tree:
    """One tree of trees alike, whose arrays have a new first axis."""
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *trees)


def _alike(modules: Sequence[nnx.Module]) -> nnx.Module:
    """One module of modules of one structure, whose arrays have a new first axis."""
    graphdefs, states = zip(*map(nnx.split, modules), strict=True)
    if any(other != graphdefs[0] for other in graphdefs):
        raise InputError("the modules of scenes that are fitted at once must be of one structure; fit each alone.")
    return nnx.merge(graphdefs[0], _stacked(states))


def _run(
    program: Program,
    pair: Pair,
    watched: Pair,
    state: FitState,
    stopping: Stopping | None,
    seconds: float | None,
    fraction: float,
    after: Callable[[FitState, int], None],
) -> FitState:
    """Runs a stage to its end, or for a fraction of the seconds that its first loop, which compiles, has left."""
    begun, loop, pace, planned, first = time.monotonic(), 1, None, state.total, True
    step = int(jnp.max(state.iterate.step))
    while step < state.total:
        steps = min(loop, state.total - step)
        if stopping is not None:
            steps = min(steps, stopping.every - step % stopping.every)
        started = time.monotonic()
        iterate = jax.block_until_ready(advance(program, state.iterate, pair, steps, state.total))
        now = time.monotonic()
        step += steps
        failed = np.asarray(iterate.failed)
        if (failed >= 0).any() or not all_finite(iterate.params):
            first = failed[failed >= 0].min(initial=step - 1)
            raise RunError(
                f"loss or gradient of stage {state.stage + 1} is not finite at its step {first}; check the images for "
                "pixels that are not finite, or lower the learning rate."
            )
        loss = float(iterate.loss.mean())
        state = dataclasses.replace(state, iterate=iterate, losses=[*state.losses, loss])
        if seconds is not None and first:
            seconds, begun = fraction * (seconds - (now - begun)), now
        if seconds is not None and step < state.total:
            left = seconds - (now - begun)
            more = 0 if left <= 0 else math.ceil(left / pace) if pace else planned
            state = dataclasses.replace(state, total=min(planned, step + more))
        state = _watch(program, watched, state, stopping, step)
        after(state, step)
        if not first:
            pace = (now - started) / steps
            loop = min(4 * loop, max(1, round(REPORT_SECONDS / pace)))
        first = False
    return state


def _watch(program: Program, watched: Pair, state: FitState, stopping: Stopping | None, step: int) -> FitState:
    """Keeps the parameters of each fit that are worth it, and ends the stage where `stopping` says so of all."""
    if stopping is None:
        return dataclasses.replace(state, kept=state.iterate.params)
    if step % stopping.every and step < state.total:
        return state
    value = np.asarray(_look(program, state.iterate.params, state.iterate, watched)[0])
    best, waited = np.asarray(state.best), np.asarray(state.waited)
    better = (value - best < -stopping.tolerance * np.abs(best)) | np.isinf(best)
    better &= waited < stopping.patience
    waited = np.where(better, 0, waited + 1)

    return dataclasses.replace(
        state,
        best=np.where(better, value, best),
        waited=waited,
        kept=_chosen(better, state.iterate.params, state.kept),
        total=step if (waited >= stopping.patience).all() else state.total,
    )


@jax.jit
def _chosen(better: Array, new: Tree, old: Tree) -> Tree:
    """Of each fit the new arrays where they are better, else the old ones."""
    return jax.tree.map(
        lambda n, o: jnp.where(better.reshape(better.shape + (1,) * (n.ndim - better.ndim)), n, o), new, old
    )


def _after(
    later: int,
    progress: Progress,
    save: Callable[[FitState], None] | None,
    state: FitState,
    step: int,
) -> None:
    progress(state.earlier + step, state.earlier + state.total + later, {"loss": state.losses[-1]})
    if save is not None:
        save(state)


# ----------------------------------------------------------------------------------------------------------------------
# What a system needs to write


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a system fits to a pair.

    Attributes:
        build, pair, stages: see `fit`; plans for pairs of one shape make modules of one structure, and have the same
            stages.
        scale: what the pair was divided by, and its product is multiplied by.
        finish: makes of the output of the last stage the product ``(..., height, width, band)``, in the unit of the
            pair, and the observation model with what was learned; by default they are the output.
        stopping: where the user says nothing of it.
    """

    build: Callable[[Array], nnx.Module]
    pair: Pair
    stages: tuple[Stage, ...]
    scale: Array
    finish: Callable[[Tree], tuple[Array, ObservationModel]] = tuple
    stopping: Stopping | None = None


SETTINGS = tuple(p for p in signature(fit).parameters.values() if p.kind is Parameter.KEYWORD_ONLY)
"""Of every fitter, beside the options of its own."""


def fitter(plan: Callable[..., Plan]) -> Fitter:
    """A fitter from the plan for one pair: the scenes of a batch are fitted at once.

    They have one observation model, so estimates of its unknown parts are averaged. With keys ``(members,)`` the
    product has a leading member axis.

    Args:
        plan: ``plan(observation, model, **options)`` for an observation of one scene.
    """

    @wraps(plan)
    def fit_all(observation: Observation, model: ObservationModel, **options: Any) -> Fit:
        settings = {p.name: options.pop(p.name) for p in SETTINGS if p.name in options}
        batch = observation["lr"].shape[0]
        singles = [{name: image[i : i + 1] for name, image in observation.items()} for i in range(batch)]
        plans = [plan(single, model, **options) for single in singles]
        first = plans[0]
        home = min(first.pair.observation["lr"].devices(), key=attrgetter("id"))
        settings["stopping"] = settings.get("stopping") or first.stopping
        if batch == 1:
            fitted = fit(first.build, first.pair, first.stages, **settings)
            outputs = [jax.device_put(fitted.output, home)]
        else:
            fitted = fit([one.build for one in plans], [one.pair for one in plans], first.stages, **settings)
            output = jax.device_put(fitted.output, home)
            outputs = [jax.tree.map(itemgetter(i), output) for i in range(batch)]
        finished = [one.finish(output) for one, output in zip(plans, outputs, strict=True)]
        product = jnp.concatenate([x * one.scale for (x, _), one in zip(finished, plans, strict=True)], axis=-4)
        found = {
            name: jax.tree.map(lambda *each: sum(each) / batch, *(estimated[name] for _, estimated in finished))
            for name, operator in finished[0][1].operators.items()
            if operator is not None and model.operators.get(name) is None
        }
        model = model.replace(operators=model.operators | found) if found else model
        return Fit(product, model, fitted.losses)

    shown = [*signature(plan).parameters.values(), *SETTINGS]
    fit_all.__signature__ = Signature(sorted(shown, key=lambda p: p.kind))  # type: ignore[attr-defined]
    return fit_all
