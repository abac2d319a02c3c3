"""GPPNN: two projected gradient methods, one for each sensor, that take turns.

Xu, Zhang, Zhao, Sun, Liu, Zhang, "Deep Gradient Projection Networks for Pan-sharpening", CVPR 2021, arXiv 2103.04584;
code: github.com/xsxjtu/GPPNN.

Of two problems, ``min_X |Y - D X|^2 / 2 + f(X)`` and ``min_X |P - R X|^2 / 2 + g(X)``, each gives a block with D the
spatial and R the spectral response, Y the low-resolution image and P the guide:

    X <- prox_f(X + rho D'(Y - D X)),   X <- prox_g(X + rho R'(P - R X))

A stage is the first block and then the second; it starts from the cubic interpolation of Y. D, D', R, R' and both prox
are each a convolution to 64 channels, a ReLU and a convolution back, without bias, all their own in every one of 8
stages: 3x3 for D, D' and prox_f, 1x1 for R, R' and prox_g. D and D' resize their result by cubic interpolation, and
there is no rho, which D' and R' hold. 119,808 parameters for 4 bands and one of the guide, 297,984 for 10.

With other physics (`unrolled.physics`) the steps are those of the equations. Their rho is learned in each block, from 1
in units of one over the squared norm of the response.

Training: mean absolute error, Adam at 5e-4, 100 epochs of batches of 16 patches, 32 x 32 pixels of Y.

Differences from the release:

- Images are resized with their pixels at their true places; the release aligns the corners, which stretches them, and
  its cubic has a = -3/4 and not -1/2.
- All images are divided by one number, the 99.9 % quantile of the truth; the release divides each image, the truth too,
  by its own maximum, so that its products lack a scale.
- It keeps the epoch that is best on the test images.
- A schedule that halves the rate every 20 epochs is built there but never called; the rate is constant here too.
- More than one guide band (the paper has one): R and R' have that many outputs and inputs.
"""

from __future__ import annotations

from typing import Unpack

import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands, Original, Paper, Recipe, System, Table, Trained
from jfusion.layers.conv import Conv
from jfusion.layers.layouts import torch_layer
from jfusion.layers.resample import sample
from jfusion.operators import Observation, ObservationModel, upsample
from jfusion.tasks import SPATIOSPECTRAL
from jfusion.training.losses import mean_absolute_error
from unrolled.physics import Physics, Sensor, Sensors, back_projections
from unrolled.stages import Options, Positive, Stages, Unroll, finish, run_stages

SENSORS = ("lr", "guide")
"""Keys of the observation in the order of the blocks."""

WINDOWS = {"lr": 3, "guide": 1}
"""Sides of the convolutions of a block."""


class Unit(nnx.Module):
    """Two convolutions around a ReLU, ``(batch, height, width, inputs)`` to ``(batch, height, width, outputs)``."""

    def __init__(self, inputs: int, outputs: int, width: int, window: int, rngs: nnx.Rngs) -> None:
        self.first = Conv(inputs, width, window, use_bias=False, rngs=rngs)
        self.second = Conv(width, outputs, window, use_bias=False, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.second(nnx.relu(self.first(x)))


class Stage(nnx.Module):
    """What a stage has of its own: the prox of both blocks and, as the physics has it, convolutions or step sizes."""

    def __init__(self, bands: Bands, width: int, free: bool, rngs: nnx.Rngs) -> None:
        def unit(key: str, inputs: int, outputs: int) -> Unit:
            return Unit(inputs, outputs, width, WINDOWS[key], rngs)

        seen = {"lr": bands.lr, "guide": bands.guide}
        self.sensors = (
            Sensors("free", bands, lambda: {k: (unit(k, bands.lr, n), unit(k, n, bands.lr)) for k, n in seen.items()})
            if free
            else None
        )
        self.prox = nnx.Dict({key: unit(key, bands.lr, bands.lr) for key in SENSORS})
        self.step = nnx.Dict({} if free else {key: Positive(1.0) for key in SENSORS})

    def sensors_at(self, model: ObservationModel) -> dict[str, Sensor]:
        """The stage's own sensors, of which the spatial one resizes between the grids of the model."""
        assert self.sensors is not None
        free, grid = self.sensors(model), model.grid
        see, back = free["lr"]
        return {**free, "lr": Sensor(lambda x: sample(see(x), grid), lambda e: upsample(back(e), grid))}


class GPPNN(nnx.Module):
    """The network of Xu et al., 2021.

    Args:
        bands: of the pair.
        stages: each with a block for either sensor.
        width: channels between two convolutions.
        physics: see `unrolled.physics`; responses that are learned are the same in all stages.
        unroll: layout of the stages, see `unrolled.stages.Unroll`.

    Raises:
        InputError: no such physics.
    """

    def __init__(
        self,
        bands: Bands,
        *,
        stages: int = 8,
        width: int = 64,
        physics: Physics = "free",
        unroll: Unroll = "loop",
        rngs: nnx.Rngs,
    ) -> None:
        self.unroll = unroll
        self.sensors = None if physics == "free" else Sensors(physics, bands)
        self.stages = nnx.List([Stage(bands, width, physics == "free", rngs) for _ in range(stages)])

    def steps(self) -> dict[str, Array]:
        """rho of every stage by name, ``(stage,)`` each; none where the convolutions hold it."""
        if self.sensors is None:
            return {}
        return {f"rho_{key}": jnp.stack([stage.step[key]() for stage in self.stages]) for key in SENSORS}

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of `unrolled.stages.finish`.

        Raises:
            InputError: the physics is exact, but an operator is not known.
        """
        shared = None if self.sensors is None else back_projections(self.sensors, model, observation["lr"].shape[-1])

        def body(stage: Stage, x: Array) -> tuple[Array, Array]:
            sensors = shared or stage.sensors_at(model)
            for key in SENSORS:
                error = observation[key] - sensors[key].see(x)
                rho = stage.step[key]() if key in stage.step else 1.0
                x = stage.prox[key](x + rho * sensors[key].back(error))
            return x, x

        start = upsample(observation["lr"], model.grid)
        _, estimates = run_stages(list(self.stages), body, start, self.unroll)
        return finish(estimates, observation, model, self.steps(), **options)


def _release(network: GPPNN) -> Table:
    """The names in the release, whose physics is free."""
    table: Table = {}
    for k in range(len(network.stages)):
        for key, name in (("lr", "LR"), ("guide", "PAN")):
            units = {
                f"sensors/free/{key}/0": f"get_{name}",
                f"sensors/free/{key}/1": "get_HR_residual",
                f"prox/{key}": "prox",
            }
            for path, unit in units.items():
                theirs = f"{name.lower()}_blocks.{k}.{unit}.basic_unit"
                table |= torch_layer(f"stages/{k}/{path}/first", f"{theirs}.0", use_bias=False)
                table |= torch_layer(f"stages/{k}/{path}/second", f"{theirs}.2", use_bias=False)
    return table


GPPNN_SYSTEM = System(
    name="gppnn",
    title="GPPNN",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="S. Xu, J. Zhang, Z. Zhao, K. Sun, J. Liu, C. Zhang",
        year=2021,
        title="Deep Gradient Projection Networks for Pan-sharpening",
        venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
        doi="10.1109/CVPR46437.2021.00142",
        code="https://github.com/xsxjtu/GPPNN",
    ),
    summary="Projected gradient steps on the low-resolution image and on the guide take turns; in each, small "
    "convolutional networks stand for the response of the sensor, for its adjoint and for the prox.",
    method=Trained(
        network=GPPNN,
        loss=mean_absolute_error,
        recipe=Recipe(
            optimiser=lambda steps: optax.adam(5e-4),
            steps=35_000,
            patch=128,
            batch=16,
            note="Mean absolute error, Adam at 5e-4, 100 epochs; the number of steps is ours, for 350 scenes of 16 "
            "patches; images divided by the 99.9 % quantile of the truth (release: each by its own maximum).",
        ),
        tiny={"stages": 2, "width": 8},
        compact={"stages": 3, "width": 32},
        originals=(
            Original(
                file="what the release's training saves as a state dict; it comes without weights",
                table=_release,
                bands=Bands(4, 1, 4),
                scale=None,
                note="The release divides each image by its maximum and aligns corners when it resizes.",
            ),
        ),
    ),
    differences="Images are resized at their true places, where the release aligns corners, and are divided by one "
    "number, where it divides each, the truth too, by its maximum; several guide bands share a block.",
    parameters=(119_808, Bands(4, 1, 4)),
)
