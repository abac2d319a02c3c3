"""A rectifier with a learned slope."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx


class PReLU(nnx.Module):
    """``x`` where it is positive, elsewhere a learned multiple of it (He et al., ICCV 2015).

    Args:
        channels: with a slope of their own; 1 for a slope that all share, PyTorch's default.
        start: of the slopes.
    """

    def __init__(self, channels: int = 1, start: float = 0.25) -> None:
        self.slope = nnx.Param(jnp.full(channels, start))

    def __call__(self, x: jax.Array) -> jax.Array:
        """``(..., channel)`` to the same."""
        return jnp.where(x > 0, x, self.slope[...].astype(x.dtype) * x)
