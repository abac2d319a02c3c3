"""Tutorial: an unrolled network of your own, trained, judged, and read stage by stage.

    python -m experiments.tutorial

The problem is ``min_x sum_k w_k |A_k x - y_k|^2 + g(x)``: the scene x must look as both sensors saw it, and like a
scene. The method of multipliers solves it by turns,

    x = argmin_x  sum_k w_k |A_k x - y_k|^2 + |x - (z - u)|^2       known physics: conjugate gradients
    z = prox(x + u)                                                 what a scene looks like: learned
    u = u + x - z,

and the network is five of these turns with a prox and weights w_k of their own, all trained together. The operators
A_k, here a blur with decimation and a spectral response, come in with the images, so the same weights can be applied to
another sensor with as many bands, at this ratio; SUN (`unrolled/sun.py`), whose prox looks at one principal component
at a time, shows how to drop both. What to change first: the data step (`gradient_step`, `closed_form_step`), the prox,
what the stages share, the loss.

What was trained is kept in ``--out``, and fuses files like any system of the catalogue. The same row can be trained by
the protocol of the papers' scripts, with checkpoints, a report and the classical systems beside it:

    jfusion fuse hsi.tif ms.tif sharp.tif --system experiments.tutorial:MINE --weights runs/mine.safetensors
    python -m experiments.own experiments.tutorial:MINE --out runs/mine
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Unpack

import jax
import jax.numpy as jnp
import optax
import tyro
from flax import nnx
from jax import Array
from rich.console import Console
from rich.table import Table

from experiments.places import Place, place
from jfusion import catalogue
from jfusion.catalogue import Bands, Paper, Recipe, System, Trained
from jfusion.demo import JASPER
from jfusion.files import check_output, make_folder
from jfusion.inference.evaluate import against_reference
from jfusion.inference.run import run
from jfusion.operators import Observation, ObservationModel, upsample
from jfusion.process import answered, use_all_cores
from jfusion.progress import bar
from jfusion.training import weights
from jfusion.training.loop import Network, train
from unrolled.stages import Options, Positive, Prox, Split, Stages, admm_step, cg_step, finish, run_stages

# The network ----------------------------------------------------------------------------------------------------------


TRUST = 100.0
"""Of both images against the prox, at first."""


class Turn(nnx.Module):
    """What one turn learns: trust in each image, and the prox, which is shown the guide."""

    def __init__(self, bands: Bands, width: int, rngs: nnx.Rngs) -> None:
        self.lr, self.guide = Positive(1.0), Positive(1.0)
        self.prox = Prox(bands.lr, bands.guide, width=width, depth=2, rngs=rngs)


class Mine(nnx.Module):
    """The network. Every network of jfusion is made like this, by bands and sizes, and called like this."""

    def __init__(self, bands: Bands, *, stages: int = 5, width: int = 48, rngs: nnx.Rngs) -> None:
        self.turns = nnx.List([Turn(bands, width, rngs) for _ in range(stages)])

    def solve(self, observation: Observation, model: ObservationModel) -> Array:
        """The scene after each turn, ``(turn, batch, height, width, band)``."""

        def body(turn: Turn, state: Split) -> tuple[Split, Array]:
            weight = {"lr": TRUST * turn.lr(), "guide": TRUST * turn.guide()}
            state = admm_step(
                state,
                data=lambda prior: cg_step(prior, observation, model, weight, steps=8),
                prox=lambda x: turn.prox(x, observation["guide"]),
            )
            return state, state.x

        start = upsample(observation["lr"], model.grid)
        _, estimates = run_stages(list(self.turns), body, Split(start, start, jnp.zeros_like(start)))
        return estimates

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``; with ``stages=True`` also what led to it."""
        weights = {key: TRUST * jnp.stack([getattr(turn, key)() for turn in self.turns]) for key in ("lr", "guide")}
        return finish(self.solve(observation, model), observation, model, weights, **options)


def loss(network: Mine, observation: Observation, model: ObservationModel, target: Array) -> Array:
    """Mean absolute error of the product, and a tenth of that of all turns, so that the early ones learn too."""
    error = jnp.abs(network.solve(observation, model) - target)
    return jnp.mean(error[-1]) + 0.1 * jnp.mean(error)


def optimiser(steps: int) -> optax.GradientTransformation:
    """Adam from 1e-3 to 0, with clipped gradients, for turns that feed each other can make them large."""
    return optax.chain(optax.clip_by_global_norm(0.1), optax.adam(optax.cosine_decay_schedule(1e-3, steps)))


# A row of the catalogue, which is all that training and fusion ask for. Its name is `experiments.tutorial:MINE`; in a
# package of your own, the entry point `jfusion.systems = your_module` would make it known by the name `mine` alone.
MINE = System(
    name="mine",
    title="A network of my own",
    family="unrolled",
    tasks=("hs_ms",),
    paper=Paper("me", 2026, "An afternoon's prototype", ""),
    summary="Five turns of the method of multipliers with known physics and a learned prox.",
    method=Trained(
        network=Mine,
        loss=loss,
        recipe=Recipe(optimiser=optimiser, steps=400, patch=32, batch=4, turn=True),
        tiny={"stages": 2, "width": 8},  # for tests
    ),
    needs_model=True,  # takes the true operators: sensors are estimated where unknown, and patches are observed anew
)


# What it is worth -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of the tutorial.

    Attributes:
        steps: of training, some minutes on two cores.
        out: file of the weights.
    """

    steps: int = 400
    out: Path = Path("runs/mine.safetensors")


def rows(network: Network, where: Place) -> list[tuple[str, Array, str]]:
    """Products by name: two systems of the catalogue, and each turn of the network with what it weighs with."""
    observation, model = where.test.observation, where.test.model
    made = [(name, run(catalogue.get(name), observation, model).product, "") for name in ("cubic", "fuse")]
    stages = jax.jit(lambda observation, model: network(observation, model, stages=True))(observation, model)
    for k, estimate in enumerate(stages.estimates):
        told = [f"{key} {stages.steps[key][k]:.0f}, misses {stages.residuals[key][k, 0]:.1%}" for key in stages.steps]
        made.append((f"mine, turn {k + 1}", estimate, "; ".join(told)))
    return made


def main(settings: Settings) -> None:
    """Trains on the upper rows of Jasper Ridge, is judged on the lower ones, and prints the table."""
    make_folder(settings.out.parent)
    check_output(settings.out, overwrite=True)
    where = place("jasper_ridge", JASPER)
    with bar("training") as progress:
        trained = train(MINE, where.learn, steps=settings.steps, progress=progress)
    weights.save(settings.out, trained.network)
    table = Table("", "PSNR, dB", "SAM, degrees", "ERGAS", "weights, and what is left of the misfit")
    for name, product, told in rows(trained.network, where):
        found = against_reference(product, where.reference, ratio=JASPER.ratio, data_range=where.data_range)
        table.add_row(name, *(f"{found[metric]:.2f}" for metric in ("PSNR", "SAM", "ERGAS")), told)
    Console().print(table)


if __name__ == "__main__":
    use_all_cores()
    sys.exit(answered(lambda: main(tyro.cli(Settings, prog="python -m experiments.tutorial"))))
