"""Losses of a product against the truth that several papers share; means over all pixels, bands and images."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from jfusion.operators import Observation, ObservationModel


def mean_squared_error(network: Any, observation: Observation, model: ObservationModel, target: Array) -> Array:
    """Mean of the squared differences."""
    return jnp.mean((network(observation, model) - target) ** 2)


def mean_absolute_error(network: Any, observation: Observation, model: ObservationModel, target: Array) -> Array:
    """Mean of the absolute differences."""
    return jnp.mean(jnp.abs(network(observation, model) - target))
