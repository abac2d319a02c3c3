"""The catalogue: every system, found through the entry-point group ``jfusion.systems``.

An entry point names a package or module; each module-level `System` in it, or in a module below it, is a row. Any
installed package can add its own systems through the same door.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
from jax import Array

from jfusion.errors import InputError, unknown
from jfusion.operators import Observation, ObservationModel
from jfusion.progress import Progress, silent

if TYPE_CHECKING:
    import optax
    from flax import nnx

Family = Literal["classical", "cnn", "gan", "transformer", "unrolled", "prior"]
DType = Literal["float32", "bfloat16"]

Fusion = Callable[[Observation, ObservationModel], Array]
"""A system that is ready to work: ``product = system(observation, model)``."""


@dataclasses.dataclass(frozen=True)
class Paper:
    """Where a system comes from; ``code`` names the release that was read, empty where there is none."""

    authors: str
    year: int
    title: str
    venue: str
    doi: str = ""
    code: str = ""


@dataclasses.dataclass(frozen=True)
class Bands:
    """What a network has to know of a pair before it is built."""

    lr: int
    guide: int
    ratio: int

    @staticmethod
    def of(observation: Observation, model: ObservationModel) -> Bands:
        """Read off an observation and its model."""
        return Bands(observation["lr"].shape[-1], observation["guide"].shape[-1], model.ratio)

    def __str__(self) -> str:
        return f"{self.lr} + {self.guide} bands at ratio {self.ratio}"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a paper trains its system.

    Attributes:
        optimiser: makes the optax transformation for so many steps in all, such as ``lambda steps: optax.adam(1e-3)``.
        steps: optimiser steps.
        patch: side of a training patch in high-resolution pixels.
        batch: patches a step.
        note: the paper's schedule and data preparation in words.
        groups: parameters with an optimiser of their own, made like ``optimiser``, by the name of the module's
            attribute that holds them ("degradation", "stages/0/step").
        parts: pieces that a batch is computed in, one after the other, to save memory.
        average: decay of an exponential moving average of the parameters, which the trained network then uses; 0 for
            none.
        dtype: of computation, "float32" or "bfloat16"; parameters and the loss are float32 all the same, and so are the
            arrays of the observation model, whose operators keep the type of the image.
        turn: whether patches are turned and mirrored at random.
    """

    optimiser: Callable[[int], optax.GradientTransformation]
    steps: int
    patch: int
    batch: int
    note: str = ""
    groups: dict[str, Callable[[int], optax.GradientTransformation]] = dataclasses.field(default_factory=dict)
    parts: int = 1
    average: float = 0.0
    dtype: DType = "float32"
    turn: bool = False

    def __post_init__(self) -> None:
        if not callable(self.optimiser):
            raise InputError(
                "the optimiser of a recipe is made for a number of steps, such as lambda steps: optax.adam(1e-3), but "
                f"is a {type(self.optimiser).__name__}."
            )


@dataclasses.dataclass(frozen=True)
class Adversary:
    """The critics that a network is trained against; `jfusion.training.adversarial` has losses of their scores.

    In each step the critics play first. While one side plays, the other stands still, statistics included. ``key`` is
    random, another one at each step, and the same for the network as for the first turn of the critics.

    Attributes:
        critics: builds one module that holds all critics, ``critics(bands, rngs=rngs, **sizes)``.
        loss: what the network lowers, its adversarial terms and all others,
            ``loss(module, critics, observation, model, target, key)``.
        critics_loss: what the critics lower, ``critics_loss(critics, module, observation, model, target, key)``.
        optimiser: of the critics, for so many of their steps in all.
        turns: steps of the critics before each step of the network, on the same batch.
        project: called on the critics after each of their steps; puts parameters back into their set, in place.
    """

    critics: Callable[..., nnx.Module]
    loss: Callable[[Any, Any, Observation, ObservationModel, Array, Array], Array]
    critics_loss: Callable[[Any, Any, Observation, ObservationModel, Array, Array], Array]
    optimiser: Callable[[int], optax.GradientTransformation]
    turns: int = 1
    project: Callable[[Any], None] | None = None


Layout = Callable[[np.ndarray], np.ndarray]
Table = dict[str, tuple[str, Layout]]
"""An array's name in a file and how its axes are brought into our order, by the path of our parameter, such as
`{"head/kernel": ("conv1.weight", torch_kernel), "head/bias": ("conv1.bias", as_is)}`; see `jfusion.layers.layouts`. A
parameter that a file keeps in parts has them at `path/0`, `path/1` and so on, in their order along its first axis."""


@dataclasses.dataclass(frozen=True)
class Original:
    """Weights that were published with a system; their file stays with its authors, and a user brings it.

    Attributes:
        file: which file it is, in words.
        table: of a module, ``table(module)``, all parameters; names without what stands before each name of a file.
        bands: of the published network.
        scale: what the images are divided by before they go in, in physical units, which are digital numbers where a
            file says nothing else; None where the release has no such number.
        sizes: constructor arguments of the published network other than the paper's.
        unused: regular expression of names in the file that the network does without.
        note: what the module does otherwise than the release, and what is to be done with the file first.
    """

    file: str
    table: Callable[[Any], Table]
    bands: Bands
    scale: float | None
    sizes: dict[str, Any] = dataclasses.field(default_factory=dict)
    unused: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Classical:
    """Ready at once: a function of the observation and its model."""

    function: Fusion


@dataclasses.dataclass(frozen=True)
class Trained:
    """Ready after training on pairs with truth.

    Attributes:
        network: builds the module, ``network(bands, rngs=rngs, **sizes)``; sizes default to the paper's. The module is
            called as ``module(observation, model)``; of the family unrolled also with the options of
            `unrolled.stages.finish`, which reports and ``exact`` ask for.
        loss: ``loss(module, observation, model, target)``, a scalar.
        recipe: of the paper.
        initialise: sets parameters from the training data, ``initialise(module, observation, model, target)``, in
            place, before the first step; None where the paper starts from random parameters.
        tiny: sizes for tests and ``--smoke``; those of the critics, if there are any, under "critics".
        compact: sizes that train within minutes on two cores, where the paper's do not.
        project: called on the module after each step; puts parameters back into their set (a simplex, a box), in place.
        adversary: what the network is trained against; its loss then takes the place of ``loss`` in training.
        stochastic: the loss of a training step where that draws numbers (noise, sensors),
            ``stochastic(module, observation, model, target, key)``; the key is another one at each step and the same on
            all devices, so that what is drawn by image needs `jfusion.training.adversarial.per_image`. It takes the
            place of ``loss``.
        any_bands: whether the parameters do not depend on the bands nor on the ratio, so that a trained network serves
            any pair.
        originals: published weights that `jfusion.training.originals.published` puts into the module.
    """

    network: Callable[..., nnx.Module]
    loss: Callable[[Any, Observation, ObservationModel, Array], Array]
    recipe: Recipe
    initialise: Callable[[Any, Observation, ObservationModel, Array], None] | None = None
    tiny: dict[str, Any] = dataclasses.field(default_factory=dict)
    compact: dict[str, Any] = dataclasses.field(default_factory=dict)
    project: Callable[[Any], None] | None = None
    adversary: Adversary | None = None
    stochastic: Callable[[Any, Observation, ObservationModel, Array, Array], Array] | None = None
    any_bands: bool = False
    originals: tuple[Original, ...] = ()


@dataclasses.dataclass(frozen=True)
class Fit:
    """What a fitter returns.

    Attributes:
        product: the fused image.
        model: the observation model with its estimated parts filled in.
        losses: value of the loss at the reported steps, in order.
    """

    product: Array
    model: ObservationModel
    losses: list[float]


class Fitter(Protocol):
    """Fits a system to one observation, without truth."""

    def __call__(
        self,
        observation: Observation,
        model: ObservationModel,
        *,
        key: Array,
        effort: float = 1.0,
        budget: float | None = None,
        progress: Progress = silent,
        valid: Mapping[str, np.ndarray] | None = None,
        restore: Callable[[Callable[[int], Any]], Any] | None = None,
        save: Callable[[Any], None] | None = None,
        **sizes: Any,
    ) -> Fit:
        """Fits the system; with keys ``(members,)`` an ensemble: product and learned operators have a leading axis.

        ``effort`` scales the numbers of steps of the paper; ``budget`` stops after so many seconds. Only pixels that
        are ``valid``, ``(height, width)`` for each image, count in the losses, all by default; the others must be
        finite all the same. ``save`` gets the state of the fit again and again, a frozen dataclass of plain values and
        of pytrees of arrays; ``restore`` gives one to go on from, or None, and may call ``begin(stage)`` for one of the
        same structure. ``sizes`` are those of the generator, the paper's by default. The scenes of a batch are fitted
        at once, which takes as many times the memory of one.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Ready after it has been fitted to the very pair that it is to fuse.

    Attributes:
        generator: builds the untrained network, ``generator(bands, rngs=rngs)``.
        fit: the paper's fit.
        steps: optimiser steps of the paper, all stages together.
        note: the paper's losses and schedule in words.
        tiny: sizes for tests and ``--smoke``.
        compact: sizes that fit a scene within minutes on two cores, where the paper's do not.
    """

    generator: Callable[..., nnx.Module]
    fit: Fitter
    steps: int
    note: str = ""
    tiny: dict[str, Any] = dataclasses.field(default_factory=dict)
    compact: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class System:
    """A row of the catalogue.

    Attributes:
        name: as the command line says it.
        title: as the paper says it.
        family: classical, cnn, gan, transformer, unrolled or prior.
        tasks: names in `jfusion.tasks`.
        paper: the source.
        summary: what it computes, its equations in words.
        method: how it comes to be ready.
        differences: what differs from the paper or from its release.
        parameters: (count, `Bands` at which the count holds), for networks.
        needs_model: whether the network or rule takes the operators of the observation model: where they are not known
            they are estimated first, and training patches are observed anew through a `SpatialResponse`, which would
            not explain what is cut from a larger image.
        local: reach in low-resolution pixels where a product pixel depends on no pixel further away than that, so
            that a scene may be cut into tiles without a seam; None where statistics of the whole image enter.
        displaced: whether the operator of `lr` may be `jfusion.operators.Displaced`, so that the system takes a
            displaced image as it is; for others it is put in its place (`jfusion.operators.registration`).
    """

    name: str
    title: str
    family: Family
    tasks: tuple[str, ...]
    paper: Paper
    summary: str
    method: Classical | Trained | Fitted
    differences: str = ""
    parameters: tuple[int, Bands] | None = None
    needs_model: bool = False
    local: int | None = None
    displaced: bool = False

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            raise unknown("family", self.family, get_args(Family))

    def reads_model(self, sizes: Mapping[str, Any] | None = None) -> bool:
        """Whether it takes the operators of the observation model, by `needs_model` or by the ``physics`` of sizes."""
        return self.needs_model or (sizes or {}).get("physics") == "exact"


def _modules(name: str) -> Iterator[Any]:
    module = importlib.import_module(name)
    yield module
    for info in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{name}."):
        yield importlib.import_module(info.name)


@cache
def systems() -> dict[str, System]:
    """All rows by name, sorted by family and name.

    Raises:
        InputError: two rows share a name.
    """
    rows: dict[str, System] = {}
    for entry in entry_points(group="jfusion.systems"):
        for module in _modules(entry.value):
            for row in vars(module).values():
                if isinstance(row, System) and rows.setdefault(row.name, row) is not row:
                    raise InputError(f"two systems are called {row.name!r}; rename the one in {module.__name__}.")
    order = ("classical", "cnn", "gan", "transformer", "unrolled", "prior")
    return dict(sorted(rows.items(), key=lambda item: (order.index(item[1].family), item[0])))


ADDED: set[str] = set()
"""Names of the rows that `add` has made known."""


def add(system: System) -> System:
    """Makes a row known to this process, as those of installed packages are; it takes the place of one that was added.

    Raises:
        InputError: a row of an installed package has its name.
    """
    rows = systems()
    if system.name in rows and system.name not in ADDED and rows[system.name] is not system:
        raise InputError(f"there is a system called {system.name!r} already; rename one.")
    ADDED.add(system.name)
    rows[system.name] = system
    return system


def _of_module(name: str) -> System:
    """The row ``module:ATTRIBUTE``, which is added; the module may lie in the working directory."""
    module, _, attribute = name.partition(":")
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    try:
        row = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"no system could be taken from {name} ({error}); say module:NAME of its row.") from error
    if not isinstance(row, System):
        raise InputError(f"{name} must be a System, but is a {type(row).__name__}; say module:NAME of its row.")
    return add(row)


def get(name: str) -> System:
    """The row called ``name``; also one that no package declares, by ``module:ATTRIBUTE``, whose module is run.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    if ":" in name:
        return _of_module(name)
    rows = systems()
    if name in rows:
        return rows[name]
    raise InputError(f"{unknown('system', name, rows)} One of your own is module:NAME of its row.")
