"""The one data-parallel training step: every network trains through it, on one device or on many.

A step is played by players. A plain network is one player; a network and its critics are two, and the critics play
first. Each turn of a player lowers its own loss by its own optimiser while the others stand still, so a batch statistic
changes in its owner's turn only.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jfusion.errors import InputError
from jfusion.operators import Observation, ObservationModel
from jfusion.operators.linear import all_finite

T = TypeVar("T")

AXIS = "data"
"""Name of the axis that the batch is shared out along."""


class Batch(NamedTuple):
    """Training patches: observation and target with a batch axis."""

    observation: Observation
    target: Array


PlayerLoss = Callable[[Mapping[str, Any], Batch, ObservationModel, Array], Array]
"""``loss(modules, batch, model, key)``, a scalar, mean over the batch; the key is another one at every step and every
turn of a player, the first of which share it, and the same on all devices."""


@dataclasses.dataclass(frozen=True)
class Player:
    """A module that is trained, and how.

    Attributes:
        graph: the structure of the module.
        loss: what it lowers, see `PlayerLoss`.
        optimiser: of its parameters.
        turns: updates a step.
        average: decay of an exponential moving average of the parameters; 0 for none.
        project: puts parameters back into their set after each update, in place.
    """

    graph: Any
    loss: PlayerLoss
    optimiser: optax.GradientTransformation
    turns: int = 1
    average: float = 0.0
    project: Callable[[Any], None] | None = None


class PlayerState(NamedTuple):
    """What a step changes of a player: parameters, the rest of the module, the optimiser's state, the average."""

    parameters: Any
    rest: Any
    optimiser: optax.OptState
    average: Any


class TrainState(NamedTuple):
    """All that training goes on from.

    Attributes:
        players: by name.
        key: random key of the whole training.
        step: steps done.
        failed: the first step whose loss was not finite, or 0.
    """

    players: dict[str, PlayerState]
    key: Array
    step: Array
    failed: Array


def failed_at(state: TrainState) -> int:
    """The first step whose loss was not finite, or which has just left parameters that are not; 0 for none."""
    if failed := int(state.failed):
        return failed
    sound = all_finite({name: player.parameters for name, player in state.players.items()})
    return 0 if bool(sound) else int(state.step)


Losses = dict[str, Array]
Step = Callable[[TrainState, Batch, ObservationModel], tuple[TrainState, Losses]]
Steps = Callable[[TrainState, Sequence[Batch], int, ObservationModel], tuple[TrainState, Losses]]


def _split(module: Any) -> tuple[Any, Any, Any]:
    graph, parameters, *rest = nnx.split(module, nnx.Param, ...)
    return graph, parameters, rest[0]


def enter(module: nnx.Module, loss: PlayerLoss, optimiser: optax.GradientTransformation, **options: Any) -> Player:
    """A player for ``module``; ``options`` are further attributes of `Player`."""
    return Player(nnx.graphdef(module), loss, optimiser, **options)


def begin(players: Mapping[str, Player], modules: Mapping[str, nnx.Module], seed: int = 0) -> TrainState:
    """The state that training starts from; a copy, for the modules keep theirs while the state is donated."""
    states = {}
    for name, player in players.items():
        _, parameters, rest = _split(modules[name])
        average = parameters if player.average else None
        states[name] = PlayerState(parameters, rest, player.optimiser.init(parameters), average)
    start = TrainState(states, jax.random.key(seed), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))
    # an explicit dtype, or a weakly typed constant of a module would have the second step traced anew
    return jax.tree.map(lambda x: jnp.copy(x) if _is_key(x) else jnp.array(x, x.dtype), start)


def merge(player: Player, state: PlayerState) -> Any:
    """The module that a state describes, with its averaged parameters where it keeps them, ready to be applied."""
    parameters = state.parameters if state.average is None else state.average
    module = nnx.merge(player.graph, parameters, state.rest, copy=True)
    module.eval()
    return module


# ----------------------------------------------------------------------------------------------------------------------
# The body: what one device does, under pmap or shard_map with the axis `AXIS`


def _is_key(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _is_float(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _cast(tree: T, dtype: Any) -> T:
    return jax.tree.map(lambda x: x.astype(dtype) if x.dtype == jnp.float32 else x, tree)


def _module(player: Player, parameters: Any, rest: Any, dtype: Any) -> Any:
    """The module on this device: its own random numbers, and batch statistics over all devices."""
    rest = jax.tree.map(lambda x: jax.random.fold_in(x, lax.axis_index(AXIS)) if _is_key(x) else x, rest)
    module = nnx.merge(player.graph, _cast(parameters, dtype), rest, copy=True)
    for _, part in nnx.iter_modules(module):
        if isinstance(part, nnx.BatchNorm) and part.axis_name is None:
            part.axis_name = AXIS
    return module


def _loss(
    name: str, players: Mapping[str, Player], states: Mapping[str, PlayerState], model: ObservationModel, dtype: Any
) -> Callable[[Any, Any, Batch, Array], tuple[Array, Any]]:
    """``(parameters, rest, batch, key)`` of a player to its loss and the rest after it; the others stand still."""

    def loss(parameters: Any, rest: Any, batch: Batch, key: Array) -> tuple[Array, Any]:
        modules = {other: _module(players[other], *states[other][:2], dtype) for other in players if other != name}
        modules[name] = _module(players[name], parameters, rest, dtype)
        value = players[name].loss(modules, Batch(_cast(batch.observation, dtype), batch.target), model, key)
        after = _split(modules[name])[2]
        return value.astype(jnp.float32), jax.tree.map(lambda x, y: x if _is_key(x) else y.astype(x.dtype), rest, after)

    return loss


Gradients = Callable[[Any, Any, Batch, Array], tuple[tuple[Array, Any], Any]]


def _in_parts(gradients: Gradients, parts: int) -> Gradients:
    """The same over equal parts of the batch, one after the other, each with a key of its own."""

    def averaged(parameters: Any, rest: Any, batch: Batch, key: Array) -> tuple[tuple[Array, Any], Any]:
        def add(carry: tuple[Any, Any], numbered: tuple[Array, Batch]) -> tuple[tuple[Any, Any], None]:
            (total, rest), (number, part) = carry, numbered
            (value, rest), gradient = gradients(parameters, rest, part, jax.random.fold_in(key, number))
            return (jax.tree.map(jnp.add, total, (value, gradient)), rest), None

        pieces = jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), batch)
        nothing = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, parameters))
        (total, rest), _ = lax.scan(add, (nothing, rest), (jnp.arange(parts), pieces))
        value, gradient = jax.tree.map(lambda x: x / parts, total)
        return (value, rest), gradient

    return gradients if parts == 1 else averaged


def _update(player: Player, own: PlayerState, gradient: Any, rest: Any) -> PlayerState:
    """The player after a step along its gradient."""
    updates, optimiser = player.optimiser.update(gradient, own.optimiser, own.parameters)
    parameters = optax.apply_updates(own.parameters, updates)
    if player.project is not None:
        module = nnx.merge(player.graph, parameters, rest, copy=True)
        player.project(module)
        parameters = _split(module)[1]
    average = own.average
    if player.average:
        average = jax.tree.map(lambda a, p: player.average * a + (1 - player.average) * p, average, parameters)
    return PlayerState(parameters, rest, optimiser, average)


def observed(batch: Batch, model: ObservationModel) -> Batch:
    """The batch with what the low-resolution sensor makes of the patches added to its `lr`; see `make_body`."""
    lr = model["lr"](batch.target) + batch.observation["lr"]
    return batch._replace(observation={**batch.observation, "lr": lr})


def make_body(players: Mapping[str, Player], parts: int = 1, dtype: str = "float32", observing: bool = False) -> Step:
    """The step of one device on its share of the batch; it averages over the devices along `AXIS`.

    `nnx.BatchNorm` takes the moments of the batch over all devices, other parts that couple images may use
    `jfusion.training.adversarial.batch_mean`; where the share is computed in parts, both are those of a part.

    Args:
        players: in the order of play.
        parts: pieces that the share is computed in, one after the other, to save memory.
        dtype: of computation; parameters, losses and statistics stay float32, and so do the arrays of the model, whose
            operators keep the type of the image.
        observing: whether the `lr` of a batch is noise alone, and the sensor is still to see the patches.
    """

    precision = jnp.dtype(dtype)

    def body(state: TrainState, batch: Batch, model: ObservationModel) -> tuple[TrainState, Losses]:
        key = jax.random.fold_in(state.key, state.step)
        batch = observed(batch, model) if observing else batch
        states, losses = dict(state.players), {}
        for name, turn in ((name, turn) for name, player in players.items() for turn in range(player.turns)):
            own = states[name]
            gradients = _in_parts(
                jax.value_and_grad(_loss(name, players, states, model, precision), has_aux=True), parts
            )
            (value, rest), gradient = gradients(own.parameters, own.rest, batch, jax.random.fold_in(key, turn))
            losses[name], gradient = lax.pmean((value, gradient), AXIS)
            rest = jax.tree.map(lambda x: lax.pmean(x, AXIS) if _is_float(x) else x, rest)
            states[name] = _update(players[name], own, gradient, rest)
        finite = jnp.isfinite(jnp.stack(list(losses.values()))).all()
        failed = jnp.where((state.failed == 0) & ~finite, state.step + 1, state.failed)
        return TrainState(states, state.key, state.step + 1, failed), losses

    return body


# ----------------------------------------------------------------------------------------------------------------------
# The devices


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices that share a batch: of each process the same number, in the order of the processes."""

    devices: tuple[jax.Device, ...]

    @staticmethod
    def all() -> Devices:
        """Every device of every process."""
        return Devices(tuple(sorted(jax.devices(), key=lambda d: (d.process_index, d.id))))

    @staticmethod
    def of(batch: int, parts: int = 1) -> Devices:
        """As many devices as divide a batch evenly, so that a step is the same on any number of them.

        Warns where another batch would have kept more devices busy.

        Raises:
            InputError: the processes, or the parts that each share is cut into, do not divide the batch.
        """
        processes = jax.process_count()
        if batch % (processes * parts):
            raise InputError(
                f"a batch of {batch} patches cannot be shared by {processes} processes in {parts} parts each; choose a "
                f"multiple of {processes * parts}."
            )
        share = batch // (processes * parts)
        here = jax.local_device_count()
        count = max(n for n in range(1, here + 1) if share % n == 0)
        if count < min(here, share):
            warnings.warn(
                f"a batch of {batch} patches keeps {count} of {here} devices busy; a multiple of "
                f"{here * processes * parts} would keep all.",
                RuntimeWarning,
                stacklevel=2,
            )
        everyone = Devices.all().devices
        chosen = ([d for d in everyone if d.process_index == p][:count] for p in range(processes))
        return Devices(tuple(device for process in chosen for device in process))

    def one(self) -> Devices:
        """The first device of each process."""
        by_process = {device.process_index: device for device in reversed(self.devices)}
        return Devices(tuple(by_process[process] for process in sorted(by_process)))

    @property
    def local(self) -> int:
        """Devices of this process."""
        return sum(device.process_index == jax.process_index() for device in self.devices)

    @property
    def steps(self) -> int:
        """Train steps that one call may take, see `make_steps`; the clocks of several processes may disagree."""
        return 5 if jax.process_count() == 1 else 1

    def _sharding(self, *axes: str) -> NamedSharding:
        return NamedSharding(Mesh(np.array(self.devices), (AXIS,)), PartitionSpec(*axes))

    def replicate(self, tree: T) -> T:
        """The same arrays on every device."""

        def place(x: Any) -> Array:
            if isinstance(x, Array) and _is_key(x):
                return jax.random.wrap_key_data(place(jax.random.key_data(x)), impl=jax.random.key_impl(x))
            # each process fills its own devices from its host
            return jax.device_put(x if jax.process_count() == 1 else np.asarray(x), self._sharding())

        return jax.tree.map(place, tree)

    def share(self, tree: T) -> T:
        """The arrays of this process, cut along their first axis, with a leading axis of devices."""

        def place(x: Any) -> Array:
            shards = np.asarray(x).reshape(self.local, x.shape[0] // self.local, *x.shape[1:])
            return jax.make_array_from_process_local_data(self._sharding(AXIS), shards)

        return jax.tree.map(place, tree)

    def prefetch(self, batches: Iterator[Batch], ahead: int = 2) -> Iterator[Batch]:
        """The batches on the devices, some steps before they are needed."""
        placed = (self.share(batch) for batch in batches)
        waiting = list(islice(placed, ahead))
        while waiting:
            yield waiting.pop(0)
            waiting.extend(islice(placed, 1))


def make_step(
    players: Mapping[str, Player], devices: Devices, parts: int = 1, dtype: str = "float32", observing: bool = False
) -> Step:
    """The train step ``state, losses = step(state, batch, model)``; see `make_body` for the arguments.

    State and model come from `Devices.replicate`, the batch from `Devices.share`. Gradients, losses and module
    statistics are averaged over the devices, so the result is that of one device with the whole batch. The state is
    donated.
    """
    return _parallel(make_body(players, parts, dtype, observing), devices, None, 0, None)


def make_steps(
    players: Mapping[str, Player], devices: Devices, parts: int = 1, dtype: str = "float32", observing: bool = False
) -> Steps:
    """The first ``count`` of some train steps in one call, ``state, losses = steps(state, batches, count, model)``.

    They are those of `make_step`, one after the other. On CPU each call takes its memory from the system anew, and the
    page faults cost a small network much of its time; the steps of one call share what they take. On a GPU they spare
    it the wait for the host.

    There are always `Devices.steps` batches, also where fewer are used; the losses are those of the last step.
    """
    body = make_body(players, parts, dtype, observing)

    def several(
        state: TrainState, batches: Sequence[Batch], count: Array, model: ObservationModel
    ) -> tuple[TrainState, Losses]:
        if len(batches) == 1:
            return body(state, batches[0], model)

        def one(i: Array, reached: tuple[TrainState, Losses]) -> tuple[TrainState, Losses]:
            return body(reached[0], lax.switch(i, [partial(Batch, *batch) for batch in batches]), model)

        return lax.fori_loop(0, count, one, (state, {name: jnp.zeros(()) for name in players}))

    return _parallel(several, devices, None, 0, None, None)


def _parallel(function: Any, devices: Devices, *in_axes: int | None) -> Any:
    """On all devices at once; the first argument is donated."""
    return jax.pmap(function, axis_name=AXIS, in_axes=in_axes, out_axes=None, devices=devices.devices, donate_argnums=0)


def may_lock(step: Any, devices: Devices, *arguments: Any) -> bool:
    """Whether several CPU devices that run a step on these arguments together may wait for one another for ever.

    They share a pool of as many threads as there are cores. A device that waits for the gradients of the others keeps
    its thread, and LAPACK's routines wait for threads that share out a stack of matrices.
    """
    shared = devices.local > 1 and devices.devices[0].platform == "cpu"
    return shared and "lapack" in step.lower(*arguments).as_text()


def make_judge(
    player: Player, devices: Devices, images: Batch, model: ObservationModel
) -> Callable[[PlayerState], float]:
    """``judge(state)``: the root mean square error of the products of all images, however many.

    Pixels whose truth is not known, NaN in the target, do not count. Images are shared out over the devices, where they
    stay; what is added to make the shares even weighs nothing. Every process is given all of the images.
    """
    count, size = len(devices.devices), len(images.target)
    rows = -(-size // count) * devices.local
    mine = np.arange(rows) + jax.process_index() * rows
    padded = jax.tree.map(lambda x: np.asarray(x)[np.minimum(mine, size - 1)], images)
    placed = devices.share((padded, (mine < size).astype(np.float32)))
    model = devices.replicate(model)

    @partial(jax.pmap, axis_name=AXIS, in_axes=(None, 0, 0, None), out_axes=None, devices=devices.devices)
    def parallel(state: PlayerState, images: Batch, weights: Array, model: ObservationModel) -> Array:
        def one(image: Batch) -> Array:
            alone = jax.tree.map(lambda x: x[None], image)
            error = merge(player, state)(alone.observation, model) - alone.target
            return jnp.mean(error**2, where=~jnp.isnan(alone.target))

        values = lax.map(one, images)
        # a padded image may give anything, also a value that is not finite
        total = lax.psum(jnp.where(weights > 0, values, 0).sum(), AXIS)
        return jnp.sqrt(total / lax.psum(weights.sum(), AXIS))

    return lambda state: float(parallel(devices.replicate(state), *placed, model))
