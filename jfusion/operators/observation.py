"""The observation model: what each sensor did to the scene."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jfusion.errors import InputError
from jfusion.operators.grid import Grid
from jfusion.operators.linear import LinearOperator, pytree, static_field

Observation = dict[str, Array]
"""What the sensors gave: channel-last arrays by the keys that the task names."""


@pytree
class ObservationModel:
    """The operators that made an observation from the scene, with what is known of geometry and noise.

    Attributes:
        operators: by key of the observation; None where the operator is not known and has to be estimated.
        grid: where the low-resolution pixels lie; always known.
        noise: standard deviation of the noise by key, in the units of the images; a key that is absent is unknown.
        offset: what a sensor adds to whatever it sees, such as path radiance, one a band by key, in the units of the
            images; a key that is absent adds nothing. The operators, being linear, are without it, see `linear`.
        estimated: keys of the operators that were estimated from the pair itself, see `jfusion.operators.estimate`.
    """

    operators: dict[str, LinearOperator | None]
    grid: Grid = static_field()
    noise: dict[str, Array] = dataclasses.field(default_factory=dict)
    offset: dict[str, Array] = dataclasses.field(default_factory=dict)
    estimated: tuple[str, ...] = static_field(default=())

    def __getitem__(self, key: str) -> LinearOperator:
        operator = self.operators.get(key)
        if operator is None:
            raise InputError(
                f"the operator of {key!r} is not known; give the sensor (PSF, SRF) or estimate it from the pair with "
                "jfusion.operators.estimate."
            )
        return operator

    def __call__(self, x: Array) -> Observation:
        """What every sensor with a known operator would see of the scene ``x``."""
        seen = {key: operator(x) for key, operator in self.operators.items() if operator is not None}
        return {key: image + self.offset[key] if key in self.offset else image for key, image in seen.items()}

    def linear(self, observation: Observation) -> tuple[Observation, ObservationModel]:
        """An observation less what the sensors add, and the model of that."""
        images = {key: image - self.offset[key] if key in self.offset else image for key, image in observation.items()}
        return images, self.replace(offset={})

    @property
    def ratio(self) -> int:
        """High-resolution pixels per low-resolution pixel."""
        return self.grid.ratio

    @property
    def known(self) -> bool:
        """Whether all operators are known."""
        return all(operator is not None for operator in self.operators.values())

    def replace(self, **changes: Any) -> ObservationModel:
        """A copy with some attributes changed."""
        return dataclasses.replace(self, **changes)


def check_pair(observation: Mapping[str, Array], model: ObservationModel, target: Array | None = None) -> None:
    """Raises InputError unless the images of pairs are of one extent.

    Args:
        observation: `lr` ``(batch, height, width, band)``, and `guide` of ``ratio`` times its height and width.
        model: of the pairs.
        target: their truth, of the guide's height and width.
    """
    if not isinstance(observation, Mapping) or not {"lr", "guide"} <= observation.keys():
        came = f"has {', '.join(observation) or 'none'}" if isinstance(observation, Mapping) else "is none"
        raise InputError(
            f"an observation is a dict with the images lr and guide, but this {type(observation).__name__} {came}; "
            "give a pair's .observation, or both by these names."
        )
    lr, guide, ratio = jnp.shape(observation["lr"]), jnp.shape(observation["guide"]), model.ratio
    shapes = {"lr": lr, "guide": guide} | ({} if target is None else {"target": jnp.shape(target)})
    fine = () if len(lr) != 4 else (lr[0], ratio * lr[1], ratio * lr[2])
    if any(len(shape) != 4 or (name != "lr" and shape[:3] != fine) for name, shape in shapes.items()):
        came = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InputError(
            f"a pair is lr (batch, height, width, band) and the rest of {ratio} times that height and width, channels "
            f"last, but came as {came}; crop all to their common extent."
        )


def scaled(
    observation: Observation, model: ObservationModel, factor: float | Array
) -> tuple[Observation, ObservationModel]:
    """Images, noise levels and offsets times ``factor``; the operators, being linear, stay as they are."""
    images, noise, offset = jax.tree.map(lambda x: x * factor, (observation, model.noise, model.offset))
    return images, model.replace(noise=noise, offset=offset)


def relative_residual(predicted: Array, observed: Array) -> Array:
    """``|predicted - observed| / |observed|`` over height, width and band; shape of the leading axes."""
    axes = (-3, -2, -1)
    energy = jnp.sum(observed**2, axes)
    share = jnp.sum((predicted - observed) ** 2, axes) / jnp.where(energy > 0, energy, 1)
    return jnp.where(share > 0, jnp.sqrt(jnp.where(share > 0, share, 1)), share)  # whose derivative is finite at zero
