"""Images that a fit makes once, between two stages, and that later stages find as they were then.

The parameters of a network rest while those of the next one are fitted to what it makes, so that it need not be run at
every step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax

from priors.fit import Schedule, Stage
from priors.pair import Pair

Maker = Callable[[Any, Pair], Array]
"""``maker(module, pair)``: the image of a module that is to be held."""


class Held(nnx.Module):
    """An image that is zero until a stage of `hold` makes it."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.image = nnx.Param(jnp.zeros(shape))

    def __call__(self) -> Array:
        """The image, of the shape that was asked for."""
        return self.image[...]


def _distance(module: Any, pair: Pair, key: Array, *, makers: dict[str, Maker]) -> tuple[Array, tuple[()]]:
    """Half the squared distances of what is held from what is made: a gradient step of rate 1 ends at their minimum."""
    gaps = [getattr(module, name)() - lax.stop_gradient(make(module, pair)) for name, make in makers.items()]
    return sum((jnp.sum(jnp.square(gap)) / 2 for gap in gaps), jnp.zeros(())), ()


def hold(**makers: Maker) -> Stage:
    """A stage of one step that makes images and holds them.

    Args:
        makers: by the module's attribute, a `Held`, that is to hold the image; none may depend on another one's.
    """
    return Stage(
        partial(_distance, makers=makers), 1, Schedule(1.0), optimiser=optax.identity(), trainable=tuple(makers)
    )
