"""What an unrolled network takes for its sensors: the observation model, responses that it learns, or convolutions.

Published networks seldom keep the physics: most let free convolutions stand for the responses of the sensors and for
their adjoints. Here that is one choice, of every network where more than one makes sense:

    "exact"    the operators of the observation model and their adjoints
    "learned"  a PSF and a spectral response that are parameters, and the adjoints that follow from them
    "free"     the convolutions of the paper, one for a response and another one for its adjoint
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.layers.responses import LearnedPsf, LearnedSrf
from jfusion.operators import Grid, ObservationModel, SpatialResponse, psf_kernel

Physics = Literal["exact", "learned", "free"]


def check_physics(physics: str) -> None:
    """Raises InputError unless it is one of `Physics`."""
    if physics not in get_args(Physics):
        raise InputError(f"physics must be one of {', '.join(get_args(Physics))}, but is {physics!r}.")


class Sensor(NamedTuple):
    """``see`` an image as one sensor does, and lead what it saw ``back``, by the adjoint or by what stands for it."""

    see: Callable[[Array], Array]
    back: Callable[[Array], Array]

    def __call__(self, x: Array) -> Array:
        """As a linear operator is called."""
        return self.see(x)

    @property
    def T(self) -> Callable[[Array], Array]:
        """As the adjoint of a linear operator."""
        return self.back


def learned_response(psf: LearnedPsf, grid: Grid) -> SpatialResponse:
    """A learned PSF at the place of another grid's pixels, between high-resolution ones by linear interpolation."""
    response = psf()
    kernel = psf_kernel(response.psf)
    for axis, move in enumerate(np.subtract(grid.shift, psf.grid.shift).tolist()):
        if move:
            kernel = jnp.pad(kernel, [(int(axis == a),) * 2 for a in range(2)])
            kernel = (1 - abs(move)) * kernel + abs(move) * jnp.roll(kernel, -int(np.sign(move)), axis)
    return dataclasses.replace(response, psf=kernel, phase=grid.phase)


def around(grid: Grid, window: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding (before, after) of rows and columns that puts windows around the low-resolution pixels of a grid.

    Between two places the later one is taken; on nested grids this is TensorFlow's "same".
    """
    rows, columns = (math.ceil((window - 1) / 2 - centre - 0.5) for centre in grid.centre)
    return (rows, window - grid.ratio - rows), (columns, window - grid.ratio - columns)


class LearnedResponses(nnx.Module):
    """An observation model whose PSF and spectral response are parameters.

    They start as the mean over a low-resolution pixel and as the mean over all bands; nothing constrains them.
    """

    def __init__(self, bands: Bands) -> None:
        self.psf = LearnedPsf(Grid.nested(bands.ratio), "free", size=2 * bands.ratio + 1)
        self.srf = LearnedSrf(bands, "free")

    def __call__(self, model: ObservationModel) -> ObservationModel:
        """``model`` with the learned operators in place of its own; of its own only the geometry counts."""
        return model.replace(operators={"lr": learned_response(self.psf, model.grid), "guide": self.srf()})


class Sensors(nnx.Module):
    """The two sensors of a network.

    Args:
        physics: see the module.
        bands: of the pair.
        free: builds the paper's convolutions, ``{"lr": (see, back), "guide": (see, back)}``; called only where
            ``physics`` is "free", which a network without it has no `Sensors` for.

    Raises:
        InputError: no such physics.
    """

    def __init__(
        self,
        physics: Physics,
        bands: Bands,
        free: Callable[[], Mapping[str, tuple[nnx.Module, nnx.Module]]] | None = None,
    ) -> None:
        check_physics(physics)
        if physics == "free" and free is None:
            raise InputError(
                "what is solved for needs linear operators: physics must be exact or learned, but is free."
            )
        self.learned = LearnedResponses(bands) if physics == "learned" else None
        self.free = nnx.Dict({k: nnx.List(pair) for k, pair in free().items()}) if free and physics == "free" else None

    def model(self, model: ObservationModel) -> ObservationModel | None:
        """The linear operators behind `__call__`, such as for `unrolled.stages.on_coefficients`; None if free."""
        return None if self.free is not None else model if self.learned is None else self.learned(model)

    def __call__(self, model: ObservationModel) -> dict[str, Sensor]:
        """The sensors by key of the observation.

        Raises:
            InputError: the physics is exact, but an operator is not known.
        """
        if self.free is not None:
            return {key: Sensor(*pair) for key, pair in self.free.items()}
        operators = self.model(model)
        assert operators is not None
        return {key: Sensor(operators[key], operators[key].T) for key in ("lr", "guide")}


def back_projections(sensors: Sensors, model: ObservationModel, bands: int) -> dict[str, Sensor]:
    """The sensors, whose adjoints make up for what they shrink; convolutions are left alone.

    An adjoint spreads what it is given over a low-resolution pixel, or over the bands that a guide's band sees, and so
    shrinks it. That of the guide is divided by the squared norm of its operator, that of ``lr`` by ``1 / ratio^2``,
    the squared norm of a PSF that sums to one and weighs all phases of the low-resolution grid alike, such as the mean
    over a pixel. A gradient step of size 1 is then the largest that does not overshoot for one sensor, whatever the
    ratio and the bands. The same holds of Gaussian PSFs at least one low-resolution pixel wide at half maximum; the
    squared norm of narrower ones is larger (1.1 times that at 0.75 pixels, 1.8 times at 0.5), as that of a learned PSF
    may become, and smaller sizes are then for the network to learn.

    Args:
        sensors: of a network.
        model: of the pair.
        bands: of the scene.

    Raises:
        InputError: the physics is exact, but an operator is not known.
    """
    found, linear = sensors(model), sensors.model(model)
    if linear is None:
        return found
    spectral = jax.lax.stop_gradient(linear["guide"].norm((1, 1, bands)) ** 2)
    gain: dict[str, Any] = {"lr": model.ratio**2, "guide": 1 / spectral}

    def divided(key: str) -> Sensor:
        see, back = found[key]
        return Sensor(see, lambda y: gain[key] * back(y))

    return {key: divided(key) for key in found}
