"""Training of one network on pairs with truth that fit into memory."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jfusion.catalogue import Bands, System, Trained
from jfusion.data.simulate import Simulation
from jfusion.errors import InputError, RunError
from jfusion.operators import Observation, ObservationModel, scaled
from jfusion.progress import Progress, silent
from jfusion.training.step import Batch, make_step, merge, split

REPORT_EVERY = 20


@dataclasses.dataclass(frozen=True)
class Network:
    """A network that is ready to work: ``product = network(observation, model)``, in the units of the observation.

    Attributes:
        system: its row of the catalogue.
        bands: that it was built for.
        sizes: constructor arguments other than the paper's.
        module: with its parameters.
        scale: what the images are divided by before they go in, the largest value that it was trained on.
    """

    system: System
    bands: Bands
    sizes: dict[str, Any]
    module: Any
    scale: float

    def __call__(self, observation: Observation, model: ObservationModel, **options: Any) -> Any:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of the module.

        Raises:
            InputError: the observation has other bands, or another ratio, than the network was built for.
        """
        if (found := Bands.of(observation, model)) != self.bands:
            raise InputError(f"the network was built for {self.bands}, but the pair has {found}; train for this pair.")
        result = self.module(*scaled(observation, model, 1 / self.scale), **options)
        return result * self.scale if isinstance(result, jax.Array) else result


@dataclasses.dataclass(frozen=True)
class Training:
    """What training returns: the network and the loss at the reported steps, in order."""

    network: Network
    losses: list[float]
    steps: int
    seconds: float


def patches(data: Simulation, patch: int, batch: int, seed: int) -> Iterator[Batch]:
    """Endless random crops that keep `lr`, `guide` and target aligned; the same for the same seed.

    The side of a crop is ``patch`` high-resolution pixels or, where the image is smaller, the image's.
    """
    ratio = data.model.ratio
    lr, guide, target = (np.asarray(x) for x in (data.observation["lr"], data.observation["guide"], data.target))
    height, width = (min(max(patch // ratio, 1), n) for n in lr.shape[1:3])
    rng = np.random.default_rng(seed)

    def crop(image: np.ndarray, scale: int, corners: np.ndarray) -> np.ndarray:
        return np.stack(
            [image[n, r * scale : (r + height) * scale, c * scale : (c + width) * scale] for n, r, c in corners]
        )

    high = np.array([lr.shape[0], lr.shape[1] - height + 1, lr.shape[2] - width + 1])
    while True:
        corners = rng.integers(0, high, (batch, 3))
        observation = {"lr": jnp.asarray(crop(lr, 1, corners)), "guide": jnp.asarray(crop(guide, ratio, corners))}
        yield Batch(observation, jnp.asarray(crop(target, ratio, corners)))


def build(system: System, bands: Bands, seed: int = 0, sizes: dict[str, Any] | None = None) -> Any:
    """The untrained network of a system.

    Raises:
        InputError: the system is not a network that is trained.
    """
    if not isinstance(system.method, Trained):
        raise InputError(f"{system.name} is not a network that is trained; it is of the family {system.family}.")
    return system.method.network(bands, rngs=nnx.Rngs(seed), **(sizes or {}))


def train(
    system: System,
    data: Simulation,
    *,
    seed: int = 0,
    sizes: dict[str, Any] | None = None,
    steps: int | None = None,
    patch: int | None = None,
    batch: int | None = None,
    budget: float | None = None,
    progress: Progress = silent,
) -> Training:
    """Trains a system on random patches of ``data`` by its recipe.

    Args:
        system: a row of the catalogue whose method is `Trained`.
        data: pairs with truth, with their observation model.
        seed: of the parameters and of the patches.
        sizes: constructor arguments of the network, the paper's by default.
        steps, patch, batch: in place of the recipe's; the batch is rounded up to a multiple of the local devices.
        budget: seconds after which training ends early; the learning rate then ends where it is.
        progress: called every few steps.

    Raises:
        InputError: the system is not trained.
        RunError: the loss is not finite; the message names the step.
    """
    bands, scale = Bands.of(data.observation, data.model), float(jnp.abs(data.target).max())
    module = build(system, bands, seed, sizes)
    assert isinstance(system.method, Trained)
    data = Simulation(*scaled(data.observation, data.model, 1 / scale), data.target / scale)
    method, recipe = system.method, system.method.recipe
    if method.initialise is not None:
        method.initialise(module, data.observation, data.model, data.target)
    steps = steps or recipe.steps
    devices = jax.local_device_count()
    batch = math.ceil((batch or recipe.batch) / devices) * devices
    optimiser = recipe.optimiser(steps)
    graph, state = split(module, optimiser)
    step = make_step(graph, method.loss, optimiser)
    batches = patches(data, patch or recipe.patch, batch, seed)

    losses: list[float] = []
    start = time.perf_counter()
    done = 0
    while done < steps:
        state, value = step(state, next(batches), data.model)
        if budget is not None:
            value.block_until_ready()
        done += 1
        last = budget is not None and time.perf_counter() - start >= budget
        if done % REPORT_EVERY == 0 or done == steps or last:
            losses.append(float(value))
            if not math.isfinite(losses[-1]):
                raise RunError(
                    f"the loss of {system.name} became {losses[-1]} by step {done}; lower the learning rate or check "
                    "the images for extreme values."
                )
            progress(done, steps, {"loss": losses[-1]})
        if last:
            break
    network = Network(system, bands, sizes or {}, merge(graph, state), scale)
    return Training(network, losses, done, time.perf_counter() - start)
