"""Proximal maps and projections: ``prox(x, t) = argmin_z g(z) + |z - x|^2 / (2 t)``."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def soft_threshold(x: Array, threshold: Array | float) -> Array:
    """Prox of ``threshold * |x|_1``: every entry moves towards zero by ``threshold``."""
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)


def group_soft_threshold(x: Array, threshold: Array | float, axis: int | tuple[int, ...] = -1) -> Array:
    """Prox of ``threshold * sum |x_group|_2``: every group, a vector along ``axis``, shrinks by ``threshold``.

    With the two differences of all bands of a pixel as a group this is the prox of vector total variation.
    """
    energy = jnp.sum(x**2, axis=axis, keepdims=True)
    norm = jnp.sqrt(jnp.where(energy > 0, energy, 1))
    return x * jnp.where(energy > 0, jnp.maximum(1 - threshold / norm, 0), 0)


def project_simplex(x: Array, total: Array | float = 1.0, axis: int = -1) -> Array:
    """Nearest point with non-negative entries that sum to ``total`` along ``axis``.

    Held et al., "Validation of subgradient optimization", Mathematical Programming 6, 1974: sort and threshold.
    """
    x = jnp.moveaxis(x, axis, -1)
    x = x - x.max(-1, keepdims=True)  # the same projection, safe from rounding
    descending = jnp.sort(x, axis=-1, descending=True)
    excess = jnp.cumsum(descending, axis=-1) - total
    count = jnp.arange(1, x.shape[-1] + 1)
    support = jnp.sum(descending * count > excess, axis=-1, keepdims=True)
    level = jnp.take_along_axis(excess, support - 1, axis=-1) / support
    return jnp.moveaxis(jnp.maximum(x - level, 0), -1, axis)


def project_box(x: Array, low: Array | float = 0.0, high: Array | float = 1.0) -> Array:
    """Nearest point with every entry between ``low`` and ``high``."""
    return jnp.clip(x, low, high)
