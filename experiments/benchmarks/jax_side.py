"""The work of jfusion, as its users have it: the step of training, a compiled network, and the loader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.benchmarks.cases import READ, SCENE, Case
from jfusion import catalogue
from jfusion.catalogue import Bands, System, Trained
from jfusion.data import scenes
from jfusion.data.patches import crops
from jfusion.data.pipeline import loader
from jfusion.data.simulate import Protocol, simulate
from jfusion.inference.run import ready
from jfusion.operators import Grid, ObservationModel
from jfusion.training.loop import Network, build
from jfusion.training.players import NETWORK, make_players
from jfusion.training.step import Batch, Devices, begin, make_step


def _system(case: Case) -> tuple[System, Trained, Bands]:
    system = catalogue.get(case.system)
    assert isinstance(system.method, Trained)
    return system, system.method, Bands(case.lr, case.guide, case.ratio)


def _players(case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    system, method, bands = _system(case)
    module = build(system, bands, sizes=case.sizes)
    return make_players(method, module, bands, method.recipe.steps, 0, case.sizes)


def _pair(case: Case, batch: int, side: int) -> tuple[Batch, ObservationModel]:
    images = {name: jnp.asarray(image) for name, image in case.images(batch, side).items()}
    target = images.pop("target")
    return Batch(images, target), ObservationModel({"lr": None, "guide": None}, Grid.nested(case.ratio))


def parameters(case: Case) -> dict[str, dict[str, np.ndarray]]:
    """Those that training starts from, by player and by their path, joined by dots."""
    _, modules = _players(case)
    return {
        name: {
            jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
            for path, leaf in jax.tree.leaves_with_path(nnx.to_pure_dict(nnx.state(module, nnx.Param)))
        }
        for name, module in modules.items()
    }


def train(case: Case) -> Callable[[], dict[str, float]]:
    """A step of training on all devices, on a batch that lies there already; it returns the losses by player."""
    players, modules = _players(case)
    recipe = _system(case)[1].recipe
    devices = Devices.of(case.batch, recipe.parts)
    step = make_step(players, devices, recipe.parts, recipe.dtype)
    images, model = _pair(case, case.batch, case.patch)
    batch = devices.share(images)
    state, model = devices.replicate((begin(players, modules), model))

    def call() -> dict[str, float]:
        nonlocal state
        state, losses = step(state, batch, model)
        jax.block_until_ready(state)
        return {name: float(loss) for name, loss in losses.items()}

    return call


def infer(case: Case) -> Callable[[], np.ndarray]:
    """The product of one image, ``(1, height, width, band)``."""
    system, _, bands = _system(case)
    _, modules = _players(case)
    images, model = _pair(case, 1, case.image)
    function = ready(system, Network(system, bands, case.sizes, modules[NETWORK], 1.0))
    return lambda: np.asarray(function(images.observation, model))


def load(case: Case) -> Callable[[], object]:
    """`READ` batches of crops of an embedded scene, as bands and ratio of the case see it."""
    hsi = scenes.load(SCENE)["hsi"]
    assert hsi.wavelengths is not None
    chosen = np.linspace(0, hsi.image.shape[-1] - 1, case.lr).astype(int)
    image, wavelengths = hsi.physical()[..., chosen], hsi.wavelengths[chosen]
    side = min(image.shape[:2]) // case.ratio * case.ratio
    protocol = Protocol(case.ratio, guide_bands=("B2", "B3", "B4")[: case.guide], crop=(0, side, 0, side))
    batches = loader(crops(simulate(image, wavelengths, protocol), case.patch), case.batch)

    def call() -> None:
        for _ in range(READ):
            next(batches)

    return call


def train_cached(case: Case, folder: Path) -> Callable[[], dict[str, float]]:
    """The same as `train`; what is compiled is kept in a folder."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return train(case)
