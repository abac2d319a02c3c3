"""Losses that draw the sensors anew at each step: what a network learns so holds for sensors that it never saw.

The scene is known in training, so its two images can be made on the spot: by a blur of random form, by the spectral
response of a random sensor, at a random ratio, with random noise. A network that is told the observation model, and
whose parameters do not depend on the bands (`jfusion.catalogue.Trained.any_bands`), then serves any pair.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jfusion.data.simulate import Simulation, observe
from jfusion.operators import Grid, Observation, ObservationModel, SpatialResponse, SpectralResponse
from jfusion.operators.psf import FWHM_PER_SIGMA, moving_psf
from jfusion.training.adversarial import per_image

UNSEEN = 1.0
"""Deviation of the noise, in the network's units, in bands that a guide does not have, so that they say nothing."""


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers that are drawn evenly between two ends."""

    low: float
    high: float

    def draw(self, key: Array, shape: tuple[int, ...] = ()) -> Array:
        return jax.random.uniform(key, shape, minval=self.low, maxval=self.high)


@dataclasses.dataclass(frozen=True)
class ManySensors:
    """What is drawn. Lengths are in low-resolution pixels.

    Attributes:
        responses: spectral responses ``(sensor, guide band, band)``, see `jfusion.sensors.responses`; rows of zeros are
            absent bands.
        ratios: of which one is drawn.
        width: full width at half maximum of the Gaussian blur, along each of two axes at right angles that point
            anywhere.
        motion: length of the way that the sensor moves meanwhile, in any direction.
        shift: of the response against the grid, along rows and columns.
        lr_snr_db, guide_snr_db: signal to noise ratio, dB.
    """

    responses: np.ndarray
    ratios: tuple[int, ...] = (2, 3, 4, 6, 8)
    width: Range = Range(0.6, 1.3)
    motion: Range = Range(0.0, 1.0)
    shift: Range = Range(-0.5, 0.5)
    lr_snr_db: Range = Range(25.0, 45.0)
    guide_snr_db: Range = Range(30.0, 50.0)

    def observe(self, key: Array, target: Array, ratio: int, noise: Array | None = None) -> Simulation:
        """What sensors drawn by ``key`` see of ``target`` ``(batch, height, width, band)``.

        Height and width are cropped to multiples of the ratio. All images of the batch are seen by the same sensors;
        their noise is drawn by the key ``noise``, where there is one, and its level is that of these images.
        """
        width, angle, motion, way, shift, sensor, lr, guide, own = jax.random.split(key, 9)
        grid = Grid.nested(ratio)
        psf = moving_psf(
            ratio * self.width.draw(width, (2,)) / FWHM_PER_SIGMA,
            jax.random.uniform(angle, maxval=jnp.pi),
            ratio * self.motion.draw(motion),
            jax.random.uniform(way, maxval=jnp.pi),
            jnp.asarray(grid.shift) + ratio * self.shift.draw(shift, (2,)),
            taps=4 * ratio + 1,
        )
        response = jnp.asarray(self.responses)[jax.random.randint(sensor, (), 0, len(self.responses))]
        height, length = (n // ratio * ratio for n in target.shape[1:3])
        made = observe(
            target[:, :height, :length], SpatialResponse(psf, ratio, grid.phase, "circular"),
            SpectralResponse(response), grid, self.lr_snr_db.draw(lr), self.guide_snr_db.draw(guide),
            own if noise is None else noise,
        )  # fmt: skip
        deviation = jnp.where(response.any(-1), made.model.noise["guide"], UNSEEN)
        return made._replace(model=made.model.replace(noise={**made.model.noise, "guide": deviation}))

    def loss(self, loss: Callable[[Any, Observation, ObservationModel, Array], Array]) -> DrawnLoss:
        """``loss`` for sensors drawn at each step."""
        return DrawnLoss(self, loss)


@dataclasses.dataclass(frozen=True)
class DrawnLoss:
    """A loss of training for sensors drawn at each step, see `jfusion.catalogue.Trained.stochastic`.

    Only the target of the pairs to learn from is used. Each device draws noise of its own, so that a step depends on
    how many share the batch.

    Attributes:
        sensors: that are drawn.
        of_pair: the loss for one of them.
    """

    sensors: ManySensors
    of_pair: Callable[[Any, Observation, ObservationModel, Array], Array]

    def __call__(
        self, module: Any, observation: Observation, model: ObservationModel, target: Array, key: Array
    ) -> Array:
        which, key = jax.random.split(key)
        noise = per_image(key, 1)[0]

        def at(ratio: int) -> Array:
            return self.of_pair(module, *self.sensors.observe(key, target, ratio, noise))

        branches = [lambda ratio=ratio: at(ratio) for ratio in self.sensors.ratios]
        return jax.lax.switch(jax.random.randint(which, (), 0, len(branches)), branches)
