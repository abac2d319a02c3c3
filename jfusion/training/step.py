"""The one data-parallel training step: every network trains through it, on one device or on many."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from jfusion.operators import Observation, ObservationModel

Loss = Callable[[Any, Observation, ObservationModel, Array], Array]
"""``loss(module, observation, model, target)``, a scalar, mean over the batch."""


class TrainState(NamedTuple):
    """What a step changes: trainable parameters, everything else of the module, and the optimiser's state."""

    parameters: Any
    rest: Any
    optimiser: optax.OptState


class Batch(NamedTuple):
    """Training patches: observation and target with a batch axis."""

    observation: Observation
    target: Array


def _split(module: Any) -> tuple[Any, Any, Any]:
    graph, parameters, *rest = nnx.split(module, nnx.Param, ...)
    return graph, parameters, rest[0]


def split(module: nnx.Module, optimiser: optax.GradientTransformation) -> tuple[Any, TrainState]:
    """The module's structure, and the state that training starts from."""
    graph, parameters, rest = _split(module)
    return graph, TrainState(parameters, rest, optimiser.init(parameters))


def merge(graph: Any, state: TrainState) -> Any:
    """The module that a state describes."""
    return nnx.merge(graph, state.parameters, state.rest, copy=True)


def make_step(
    graph: Any, loss: Loss, optimiser: optax.GradientTransformation
) -> Callable[[TrainState, Batch, ObservationModel], tuple[TrainState, Array]]:
    """The train step ``state, loss = step(state, batch, model)`` over all local devices.

    The batch is split over the devices and gradients, loss and module statistics are averaged, so the result is that
    of one device with the whole batch. The state is donated.
    """

    @partial(jax.pmap, axis_name="data", in_axes=(None, 0, None), out_axes=None, donate_argnums=0)
    def parallel_step(state: TrainState, batch: Batch, model: ObservationModel) -> tuple[TrainState, Array]:
        def mean_loss(parameters: Any) -> tuple[Array, Any]:
            module = nnx.merge(graph, parameters, state.rest, copy=True)
            value = loss(module, batch.observation, model, batch.target)
            return value, _split(module)[2]

        (value, rest), gradient = jax.value_and_grad(mean_loss, has_aux=True)(state.parameters)
        value, gradient = jax.lax.pmean((value, gradient), "data")
        rest = jax.tree.map(lambda x: jax.lax.pmean(x, "data") if jnp.issubdtype(x.dtype, jnp.floating) else x, rest)
        updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        return TrainState(parameters, rest, optimiser_state), value

    devices = jax.local_device_count()

    def step(state: TrainState, batch: Batch, model: ObservationModel) -> tuple[TrainState, Array]:
        shards = jax.tree.map(lambda x: x.reshape(devices, x.shape[0] // devices, *x.shape[1:]), batch)
        return parallel_step(state, shards, model)

    return step
