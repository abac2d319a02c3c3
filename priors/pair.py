"""What a loss may see of a pair: both images, which of their pixels count, and the observation model.

With it come the terms that losses are made of: distances, and what they compare.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jfusion.errors import InputError
from jfusion.operators import Observation, ObservationModel, check_pair, one_psf
from jfusion.operators.linear import pytree


@pytree
class Pair:
    """A pair as losses see it.

    Attributes:
        observation: `lr` ``(batch, h, w, band)`` and `guide` ``(batch, h ratio, w ratio, guide band)``.
        weight: of the pixels of each image, ``(batch, height, width, 1)``; 0 where a pixel is held out or not valid.
        model: the observation model; unknown parts are None.
    """

    observation: Observation
    weight: dict[str, Array]
    model: ObservationModel

    @staticmethod
    def of(observation: Observation, model: ObservationModel) -> Pair:
        """The pair with weights of one, in float32 or better: sums over pixels do not fit into less.

        Raises:
            InputError: the shapes do not fit each other.
        """
        check_pair(observation, model)
        images = {key: jnp.asarray(observation[key]) for key in ("lr", "guide")}
        images = {key: image.astype(jnp.promote_types(image.dtype, jnp.float32)) for key, image in images.items()}
        weights = {key: jnp.ones((*image.shape[:-1], 1), image.dtype) for key, image in images.items()}
        return Pair(images, weights, model)

    def normalised(self) -> tuple[Pair, Array]:
        """The pair divided by the largest magnitude in it, and that scale; one for both keeps the model valid."""
        peak = jnp.max(jnp.stack([jnp.max(jnp.abs(image)) for image in self.observation.values()]))
        scale = jnp.where(peak > 0, peak, 1)
        images = {key: image / scale.astype(image.dtype) for key, image in self.observation.items()}
        return dataclasses.replace(self, observation=images), scale

    def only(self, valid: Mapping[str, np.ndarray]) -> Pair:
        """The pair with weight 0 where an image, by its name, is not valid, ``(height, width)``.

        Raises:
            InputError: a mask has not its image's height and width.
        """
        sizes = {name: weight.shape[1:3] for name, weight in self.weight.items()}
        if wrong := {name: mask.shape for name, mask in valid.items() if sizes.get(name) != mask.shape}:
            raise InputError(f"masks of valid pixels must have the height and width of {sizes}, but are {wrong}.")
        return self._weighted({name: jnp.asarray(mask)[..., None] for name, mask in valid.items()})

    def hold_out(self, fraction: float, key: Array) -> tuple[Pair, Pair]:
        """The pair without about this fraction of the pixels of each image, and the pair of these alone.

        It is the losses that do without them: a network that takes an image as its input sees them all the same.
        """
        keys = jax.random.split(key, len(self.weight))
        seen = {
            name: jax.random.uniform(k, weight.shape) >= fraction
            for k, (name, weight) in zip(keys, self.weight.items(), strict=True)
        }
        return self._weighted(seen), self._weighted({name: ~mask for name, mask in seen.items()})

    def _weighted(self, masks: Mapping[str, Array]) -> Pair:
        """The pair with weights multiplied by masks."""
        weights = {name: self.weight[name] * mask.astype(self.weight[name].dtype) for name, mask in masks.items()}
        return dataclasses.replace(self, weight=self.weight | weights)


# ----------------------------------------------------------------------------------------------------------------------
# Distances: of a predicted from an observed image ``(batch, height, width, band)`` where its pixels have weight

Distance = Callable[[Array, Array, Array], Array]
"""``distance(predicted, observed, weight)``: a scalar; the weight is that of a `Pair`."""


def weighted_mean(values: Array, weight: Array) -> Array:
    """Mean over bands and weighted pixels, of values ``(batch, height, width, band)``."""
    return jnp.sum(values.mean(-1, keepdims=True) * weight) / jnp.maximum(weight.sum(), 1)


def mean_l1(predicted: Array, observed: Array, weight: Array) -> Array:
    """Mean absolute difference over bands and weighted pixels."""
    return weighted_mean(jnp.abs(predicted - observed), weight)


def mean_l2(predicted: Array, observed: Array, weight: Array) -> Array:
    """Mean squared difference over bands and weighted pixels."""
    return weighted_mean(jnp.square(predicted - observed), weight)


def sum_l1(predicted: Array, observed: Array, weight: Array) -> Array:
    """Sum of absolute differences over bands and weighted pixels."""
    return jnp.sum(jnp.abs(predicted - observed) * weight)


def half_l2(predicted: Array, observed: Array, weight: Array) -> Array:
    """Half the sum of squared differences over bands and weighted pixels."""
    return 0.5 * jnp.sum(jnp.square(predicted - observed) * weight)


# ----------------------------------------------------------------------------------------------------------------------
# What the sensors say of a product and of each other


def misfits(distance: Distance, model: ObservationModel, product: Array, pair: Pair) -> tuple[Array, Array]:
    """``|B X - Y|`` and ``|R X - Z|``: how far what the sensors see of the product X is from what they saw.

    Args:
        distance: such as `mean_l1`.
        model: with PSF B and spectral response R.
        product: ``(batch, height, width, band)``.
        pair: the images Y and Z.
    """
    observed, weight = pair.observation, pair.weight
    lr, guide = (distance(model[name](product), observed[name], weight[name]) for name in ("lr", "guide"))
    return lr, guide


def degraded(model: ObservationModel, pair: Pair) -> tuple[Array, Array]:
    """``R Y`` and ``B Z``, ``(batch, h, w, guide band)``: each image as the other's sensor sees it.

    They are equal but for noise. Where B has a PSF for each band, their mean sees Z.
    """
    return model["guide"](pair.observation["lr"]), one_psf(model["lr"])(pair.observation["guide"])
