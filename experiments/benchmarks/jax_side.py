"""The work of jfusion, as its users have it: the step of training, a compiled network, the loader, and a fit."""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.benchmarks.cases import FIT_STEPS, READ, SCENE, TRAIN_STEPS, Case, FitCase
from jfusion import catalogue
from jfusion.catalogue import Bands, System, Trained
from jfusion.data import scenes
from jfusion.data.patches import crops
from jfusion.data.pipeline import loader
from jfusion.data.simulate import Protocol, Simulation, simulate
from jfusion.inference.fits import check_fitted
from jfusion.inference.fits import fit as fit_pair
from jfusion.inference.run import ready
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse
from jfusion.operators.spatial import band_matrix
from jfusion.training.loop import Network, build
from jfusion.training.players import NETWORK, make_players
from jfusion.training.step import Batch, Devices, begin, make_steps
from priors.fit import Iterate, Plan, Program, Stage, advance
from priors.pair import Pair


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
    return {name: _by_path(nnx.to_pure_dict(nnx.state(module, nnx.Param))) for name, module in modules.items()}


def _by_path(arrays: Any) -> dict[str, np.ndarray]:
    """Copies, which PyTorch may write to."""
    leaves = jax.tree.leaves_with_path(arrays)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.array(leaf) for path, leaf in leaves}


def train(case: Case) -> Callable[[], dict[str, float]]:
    """`TRAIN_STEPS` of training on all devices, on a batch that lies there already; returns the losses by player."""
    players, modules = _players(case)
    recipe = _system(case)[1].recipe
    devices = Devices.of(case.batch, recipe.parts)
    advance = make_steps(players, devices, recipe.parts, recipe.dtype)
    images, model = _pair(case, case.batch, case.patch)
    batches = [devices.share(images)] * devices.steps
    state, model = devices.replicate((begin(players, modules), model))

    def call() -> dict[str, float]:
        nonlocal state
        for done in range(0, TRAIN_STEPS, devices.steps):
            state, losses = advance(state, batches, min(devices.steps, TRAIN_STEPS - done), model)
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


# Fits -----------------------------------------------------------------------------------------------------------------


def _simulation(case: FitCase) -> Simulation:
    """A pair of the scene; its operators are given only to a system that needs them."""
    hsi = scenes.load(SCENE)["hsi"]
    assert hsi.wavelengths is not None
    protocol = Protocol(4, guide_bands=("B2", "B3", "B4", "B5", "B6", "B7"), crop=(0, case.side, 0, case.side))
    made = simulate(hsi.physical(), hsi.wavelengths, protocol)
    if catalogue.get(case.system).needs_model:
        return made
    return made._replace(model=made.model.replace(operators={"lr": None, "guide": None}))


def _last_stage(case: FitCase) -> tuple[nnx.Module, Pair, Stage]:
    """Module, pair and last stage, as the system itself plans its fit."""
    method, made = check_fitted(catalogue.get(case.system)), _simulation(case)
    plan: Plan = unwrap(method.fit)(made.observation, made.model, **case.sizes)
    return plan.build(jax.random.key(0)), plan.pair, plan.stages[-1]


def beginning(case: FitCase) -> dict[str, dict[str, np.ndarray]]:
    """What a fit's last stage begins from.

    Returns:
        "module": the arrays of the module by their path; "images": those of the pair; "operators": where they are
        known, the products with `rows` and `columns` that blur and decimate, and the `srf`.
    """
    module, pair, _ = _last_stage(case)
    operators, blur, spectral = {}, pair.model.operators["lr"], pair.model.operators["guide"]
    if isinstance(blur, SpatialResponse) and isinstance(spectral, SpectralResponse):
        sides = zip(("rows", "columns"), blur.psf, pair.observation["guide"].shape[1:3], blur.phase, strict=True)
        operators = {name: band_matrix(p, n, blur.ratio, at, blur.boundary) for name, p, n, at in sides}
        operators["srf"] = spectral.srf
    return {
        "module": _by_path(nnx.to_pure_dict(nnx.state(module))),
        "images": _by_path(pair.observation),
        "operators": _by_path(operators),
    }


def fit(case: FitCase, looped: bool = True) -> Callable[[], float]:
    """`FIT_STEPS` steps of a fit's last stage, in one compiled loop or each alone; it returns the last loss."""
    module, pair, stage = _last_stage(case)
    graph, params, rest = stage.split(module)
    program = Program(graph, stage, ensemble=False)
    iterate: Iterate = jax.jit(program.begin)(params, rest, jax.random.key(0), pair)
    step, total = jax.jit(program.step), jnp.asarray(stage.steps)

    def call() -> float:
        nonlocal iterate
        if looped:
            iterate = advance(program, iterate, pair, FIT_STEPS, stage.steps)
        else:
            for _ in range(FIT_STEPS):
                iterate = step(iterate, pair, total)
        return float(jax.block_until_ready(iterate).loss)

    return call


def whole_fit(case: FitCase) -> Callable[[], object]:
    """A fit by the system's own fitter, from its beginning to its product, a few steps long."""
    made, system = _simulation(case), catalogue.get(case.system)
    effort = FIT_STEPS / check_fitted(system).steps

    def call() -> object:
        done, _ = fit_pair(system, made.observation, made.model, jax.random.key(0), effort=effort, sizes=case.sizes)
        return jax.block_until_ready(done.product)

    return call
