"""The low-resolution sensor of networks that ask for no other: the sensor's own response, or one that is learned.

These networks teach a plain network first and solve a variational problem with what it says afterwards, so no gradient
passes through the solve; a response that is learned is fitted to the truth, for which the loss gets `LrSensor.misfit`.
The problems need an operator and its adjoint, and so there is no "free" physics.
"""

from __future__ import annotations

from typing import get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands
from jfusion.classical.hypersharpening import known_response
from jfusion.errors import InputError
from jfusion.layers.responses import LearnedPsf
from jfusion.operators import Grid, Observation, ObservationModel, SpatialResponse
from unrolled.closed_form import LinearPhysics
from unrolled.physics import learned_response


class LrSensor(nnx.Module):
    """The spatial response of a network.

    Args:
        physics: "exact" for that of the observation model, "learned" for a kernel of ``2 ratio + 1`` taps a side that
            starts as the mean over a low-resolution pixel and is not constrained.
        bands: of the pair.

    Raises:
        InputError: another physics.
    """

    def __init__(self, physics: LinearPhysics, bands: Bands) -> None:
        if physics not in get_args(LinearPhysics):
            raise InputError(f"the solver needs an adjoint: physics must be exact or learned, but is {physics!r}.")
        learned = physics == "learned"
        self.psf = LearnedPsf(Grid.nested(bands.ratio), "free", size=2 * bands.ratio + 1) if learned else None

    def response(self, model: ObservationModel) -> SpatialResponse:
        """The response; of ``model`` only the grid counts where it is learned.

        Raises:
            InputError: the physics is exact, and the response is not known.
        """
        if self.psf is None:
            return known_response(model)
        return learned_response(self.psf, model.grid)

    def __call__(self, model: ObservationModel) -> ObservationModel:
        """``model`` with the response in the place of that of ``lr``; no gradient passes through it.

        Raises:
            InputError: the physics is exact, and the response is not known.
        """
        return model.replace(operators={**model.operators, "lr": jax.lax.stop_gradient(self.response(model))})

    def misfit(self, observation: Observation, model: ObservationModel, target: Array) -> Array:
        """What the loss adds: mean squared error of what a learned response sees of the truth; 0 for the exact one."""
        if self.psf is None:
            return jnp.zeros(())
        return jnp.mean((self.response(model)(target) - observation["lr"]) ** 2)
