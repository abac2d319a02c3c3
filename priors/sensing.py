"""The sensors first: what is unknown of PSF B and spectral response R is found before the product X.

The guide Z seen by the low-resolution sensor and the image Y seen by the guide's are the same image, R Y = B Z.
"""

from __future__ import annotations

from typing import Protocol

from jax import Array

from jfusion.operators import ObservationModel
from priors.degradation import Degradation
from priors.fit import Schedule, Stage
from priors.pair import Pair, degraded, sum_l1


class Filling(Protocol):
    """What completes an observation model, such as `Degradation`."""

    def __call__(self, model: ObservationModel) -> ObservationModel:
        """``model`` with its unknown parts filled in."""
        ...


class Sensing(Protocol):
    """A module that learns operators."""

    degradation: Filling


class Projected(Protocol):
    """A module whose learned operators are projected."""

    degradation: Degradation


def sensing_loss(module: Sensing, pair: Pair, key: Array) -> tuple[Array, tuple[()]]:
    """``|R Y - B Z|``, summed over pixels and bands; there is no output."""
    return sum_l1(*degraded(module.degradation(pair.model), pair), pair.weight["lr"]), ()


def project_sensors(module: Projected) -> None:
    """Puts learned operators back into their set, in place; see `Degradation.project`."""
    module.degradation.project()


SIMPLEX_SENSORS = Stage(sensing_loss, 5000, Schedule(5e-3), trainable=("degradation",))
"""Finds operators kept on the simplex by softmax; for the rate see `priors.degradation.LOGITS`."""
