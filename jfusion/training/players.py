"""From a row of the catalogue to the players of a step: the network, and the critics where it has an adversary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands, Recipe, Trained
from jfusion.errors import InputError
from jfusion.operators import ObservationModel
from jfusion.training.step import Batch, Player, enter

NETWORK, CRITICS = "network", "critics"
"""Names of the players; the second is also that of the critics' sizes among the network's."""


WARM_UP = 200
"""Steps, at most a tenth of all, over which the learning rate of a paced training rises."""

UNENDING = 1000
"""Times as many steps as there are, for which a paced recipe is made: so far its own rates do not fall."""


def paced(
    make: Callable[[int], optax.GradientTransformation], steps: int, pace: float | None
) -> optax.GradientTransformation:
    """The optimiser that ``make`` makes for so many steps, or one with another schedule.

    With a pace, steps are that many times the optimiser's first ones, less at the beginning and ever less towards the
    end.
    """
    if pace is None:
        return make(steps)
    schedule = optax.warmup_cosine_decay_schedule(0, pace, min(WARM_UP, steps // 10), steps)
    return optax.chain(make(UNENDING * steps), optax.scale_by_schedule(schedule))


def make_optimiser(recipe: Recipe, steps: int, parameters: Any) -> optax.GradientTransformation:
    """The recipe's optimiser for so many steps, or one for each of its groups of parameters.

    Raises:
        InputError: a group has no parameters.
    """
    if not recipe.groups:
        return recipe.optimiser(steps)

    def group(path: tuple[Any, ...]) -> str:
        name = jax.tree_util.keystr(path, simple=True, separator="/") + "/"
        return max((g for g in recipe.groups if name.startswith(f"{g}/")), key=len, default="")

    labels = jax.tree_util.tree_map_with_path(lambda path, _: group(path), parameters)
    if missing := recipe.groups.keys() - set(jax.tree.leaves(labels)):
        raise InputError(f"the network has no parameters under {', '.join(sorted(missing))}; see the recipe's groups.")
    makers = {"": recipe.optimiser, **recipe.groups}
    return optax.multi_transform({name: make(steps) for name, make in makers.items()}, labels)


def make_players(
    method: Trained,
    module: Any,
    bands: Bands,
    steps: int,
    seed: int,
    sizes: Mapping[str, Any],
    pace: float | None = None,
) -> tuple[dict[str, Player], dict[str, Any]]:
    """Who plays a step of this method, critics first, and their modules by the same names.

    Args:
        method: of the catalogue.
        module: the network.
        bands: for the critics.
        steps: of the network in all.
        seed: of the network; the critics' is the next one.
        sizes: those of the critics are under "critics".
        pace: see `paced`.
    """
    parameters = nnx.state(module, nnx.Param)
    optimiser = paced(lambda steps: make_optimiser(method.recipe, steps, parameters), steps, pace)
    adversary = method.adversary

    def alone(modules: Mapping[str, Any], batch: Batch, model: ObservationModel, key: Array) -> Array:
        if method.stochastic is not None:
            return method.stochastic(modules[NETWORK], batch.observation, model, batch.target, key)
        return method.loss(modules[NETWORK], batch.observation, model, batch.target)

    def against(modules: Mapping[str, Any], batch: Batch, model: ObservationModel, key: Array) -> Array:
        assert adversary is not None
        return adversary.loss(modules[NETWORK], modules[CRITICS], batch.observation, model, batch.target, key)

    def critical(modules: Mapping[str, Any], batch: Batch, model: ObservationModel, key: Array) -> Array:
        assert adversary is not None
        return adversary.critics_loss(modules[CRITICS], modules[NETWORK], batch.observation, model, batch.target, key)

    loss = alone if adversary is None else against
    network = enter(module, loss, optimiser, average=method.recipe.average, project=method.project)
    if adversary is None:
        return {NETWORK: network}, {NETWORK: module}
    critics = adversary.critics(bands, rngs=nnx.Rngs(seed + 1), **sizes.get(CRITICS, {}))
    turns = adversary.turns
    optimiser = paced(adversary.optimiser, steps * turns, pace)
    critic = enter(critics, critical, optimiser, turns=turns, project=adversary.project)
    return {CRITICS: critic, NETWORK: network}, {CRITICS: critics, NETWORK: module}
