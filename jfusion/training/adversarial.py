"""Adversarial losses as functions of what a critic says of real and of fake images.

A critic ends in plain numbers (no sigmoid) of any shape, one an image or one a patch. Every loss is a mean over them,
so that shares of a batch average to the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jax.nn import softplus

from jfusion.training.step import AXIS


class Game(NamedTuple):
    """What critic and network lower: both are functions of (scores of real images, scores of fake images)."""

    critic: Callable[[Array, Array], Array]
    network: Callable[[Array, Array], Array]


NON_SATURATING = Game(
    critic=lambda real, fake: softplus(-real).mean() + softplus(fake).mean(),
    network=lambda real, fake: softplus(-fake).mean(),
)
"""Goodfellow et al., "Generative Adversarial Nets", 2014: cross-entropy; the network raises log D(fake)."""

WASSERSTEIN = Game(critic=lambda real, fake: fake.mean() - real.mean(), network=lambda real, fake: -fake.mean())
"""Arjovsky et al., "Wasserstein GAN", 2017; for critics of bounded slope: by `gradient_penalty`, by
`jfusion.layers.spectral` or by clipped weights."""


def least_squares(one: float | Array = 1.0, zero: float | Array = 0.0) -> Game:
    """Mao et al., "Least Squares Generative Adversarial Networks", 2017, with the labels of real and fake."""
    return Game(
        critic=lambda real, fake: 0.5 * (((real - one) ** 2).mean() + ((fake - zero) ** 2).mean()),
        network=lambda real, fake: ((fake - one) ** 2).mean(),
    )


def _relativistic(real: Array, fake: Array) -> Array:
    above, below = real - batch_mean(fake), fake - batch_mean(real)
    return 0.5 * (softplus(-above).mean() + softplus(below).mean())


RELATIVISTIC = Game(critic=_relativistic, network=lambda real, fake: _relativistic(fake, real))
"""Jolicoeur-Martineau, "The relativistic discriminator", 2019, average form: real against the mean fake and the
reverse. The means are those of the whole batch."""


def _position() -> Array | int:
    """Number of this device among those that share the batch; 0 outside of the training step."""
    try:
        return lax.axis_index(AXIS)
    except NameError:
        return 0


def batch_mean(x: Array) -> Array:
    """Mean over the whole batch, wherever its parts are, as a scalar."""
    try:
        return lax.pmean(x.mean(), AXIS)
    except NameError:
        return x.mean()


def per_image(key: Array, images: int) -> Array:
    """Random keys ``(images,)`` for this device's share of the batch, the same on one device and on many.

    Of a share that is computed in parts each has keys of its own, which depend on the number of devices.
    """
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(_position() * images + jnp.arange(images))


def gradient_penalty(critic: nnx.Module, real: Array, fake: Array, key: Array, *given: Array) -> Array:
    """How far the critic's gradient is from length one between real and fake images, mean of squares over images.

    Gulrajani et al., "Improved Training of Wasserstein GANs", 2017, equation 3. Each image has its own place between
    ``real`` and ``fake``, ``(batch, ...)``; the length is over all of its pixels and bands.

    Args:
        critic: called as ``critic(images, *given)``; it must treat each image by itself, without batch statistics. Its
            own statistics stay as they are.
        real, fake: images.
        key: of the places.
        given: what the critic is shown beside the images.
    """
    share = jax.vmap(jax.random.uniform)(per_image(key, len(real))).reshape(-1, *(1,) * (real.ndim - 1))

    def scores(images: Array) -> Array:
        still: Any = nnx.clone(critic)  # a module cannot change inside a gradient that it was not made in
        return still(images, *given).astype(jnp.float32).sum()

    slope = jax.grad(scores)(share * real + (1 - share) * fake)
    # the root has no gradient at zero
    length = jnp.sqrt(jnp.sum(slope**2, tuple(range(1, slope.ndim))) + 1e-12)
    return jnp.mean((length - 1) ** 2)
