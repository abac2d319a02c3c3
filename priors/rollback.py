"""Loss-based roll-back: when the loss rises, the fit goes back to earlier parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jfusion.operators.linear import pytree


@pytree
class Record:
    """Parameters, each as one vector, and losses of the last recorded steps, in rings; `count` were recorded in all."""

    snapshots: Array
    losses: Array
    count: Array
    pause: Array


@dataclasses.dataclass(frozen=True)
class Rollback:
    """The rule of Uezato et al. (ECCV 2020): the loss is compared with its mean 21 to 40 recorded steps ago.

    The optimiser keeps its moments. While it pauses nothing is recorded, so a second rise restores the same parameters.

    Attributes:
        tolerance: rise of the loss that is let pass.
        start: recorded steps before the rule applies, at least `window`.
        back: recorded steps by which the parameters go back.
        pause: steps after a roll-back that are not recorded.
        window: recorded losses that are kept; the older half is the reference.
    """

    tolerance: float
    start: int = 1000
    back: int = 10
    pause: int = 150
    window: int = 40

    def begin(self, params: Any) -> Record:
        """An empty record."""
        flat, zero = ravel_pytree(params)[0], jnp.zeros((), jnp.int32)
        return Record(jnp.zeros((self.back, flat.size), flat.dtype), jnp.zeros(self.window), zero, zero)

    def __call__(self, record: Record, loss: Array, params: Any, updated: Any) -> tuple[Record, Any]:
        """The record after one more step and the parameters to go on with.

        Args:
            record: of the steps before.
            loss: at ``params``.
            params: before the step.
            updated: after the step.
        """
        oldest, slot = record.count % self.back, record.count % self.window
        reference = jnp.roll(record.losses, -slot)[: self.window // 2].mean()
        risen = (record.count > max(self.start, self.window)) & (loss - reference > self.tolerance)
        recorded = ~risen & (record.pause == 0)
        flat, restore = ravel_pytree(params)
        proceed = restore(jnp.where(risen, record.snapshots[oldest], ravel_pytree(updated)[0]))

        def put(ring: Array, at: Array, value: Array) -> Array:
            return ring.at[at].set(jnp.where(recorded, value, ring[at]))

        after = Record(
            put(record.snapshots, oldest, flat),
            put(record.losses, slot, loss),
            record.count + recorded,
            jnp.where(risen, self.pause, jnp.maximum(record.pause - 1, 0)),
        )
        return after, proceed
