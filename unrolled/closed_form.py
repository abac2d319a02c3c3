"""The sensors of networks whose data steps are closed forms: true or learned, linear, and the same for all bands.

A closed form needs operators that are linear and a PSF that all bands share; where each band has its own, their mean
stands for it. There is no "free" physics: a convolution with a bias or an activation has no closed form.

These networks solve for the scene, teach a plain network what the solution lacks, and solve again. The published ones
compute the first solution once, before training; so no gradient passes through the solves, and responses that are
learned are fitted to the truth: the loss gets `LinearSensors.misfit`.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands
from jfusion.classical.hypersharpening import known_response, srf
from jfusion.operators import Observation, ObservationModel, SpectralResponse, one_psf
from unrolled.physics import Sensors

LinearPhysics = Literal["exact", "learned"]


class LinearSensors(nnx.Module):
    """An observation model that the closed forms cover.

    Args:
        physics: "exact" or "learned", see `unrolled.physics`.
        bands: of the pair.

    Raises:
        InputError: another physics.
    """

    def __init__(self, physics: LinearPhysics, bands: Bands) -> None:
        self.sensors = Sensors(physics, bands)

    def __call__(self, model: ObservationModel) -> ObservationModel:
        """The model with a spatial response that all bands share; no gradient passes through it.

        Raises:
            InputError: the physics is exact, and an operator is not known or not what a closed form covers.
        """
        return jax.lax.stop_gradient(self._shared(model))

    def _shared(self, model: ObservationModel) -> ObservationModel:
        known = self.sensors.model(model)
        assert known is not None
        spatial, spectral = one_psf(known_response(known)), SpectralResponse(srf(known))
        return known.replace(operators={"lr": spatial, "guide": spectral})

    def misfit(self, observation: Observation, model: ObservationModel, target: Array) -> Array:
        """What the loss adds: mean squared errors of what learned responses see of the truth; 0 for the exact ones."""
        if self.sensors.learned is None:
            return jnp.zeros(())
        seen = self._shared(model)(target)
        return sum((jnp.mean((image - observation[key]) ** 2) for key, image in seen.items()), jnp.zeros(()))
