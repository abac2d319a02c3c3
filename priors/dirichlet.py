"""Codes that a stick broken into pieces gives, and what else Qu et al. build around them (uSDN, u2-MDN).

The code of a pixel is what is broken off a stick of length one, piece after piece: ``s_k = v_k prod_{j<k} (1 - v_j)``
with ``v_k = u_k^(1/beta)``, where ``u_k`` lies between 0 and 1 and each pixel has one positive ``beta``. What is left
of the stick is dropped, so that a code sums to less than one.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jfusion.layers.conv import Conv
from jfusion.layers.init import tf_truncated_normal
from priors.pair import weighted_mean

MARGIN = 1e-6
"""Distance that keeps ``v`` from 1 and ``beta`` from 0, where logarithms end."""

EPSILON = 1e-8
"""What quotients and logarithms of codes are kept away from zero by, as released."""


def broken_stick(logits: Array, beta: Array) -> Array:
    """Codes for ``u = sigmoid(logits)`` and ``softplus(beta)``.

    Args:
        logits: ``(..., code)``.
        beta: ``(..., 1)``.

    Returns:
        ``(..., code)``, not negative, with a sum below one.
    """
    v = jnp.minimum(jax.nn.log_sigmoid(logits) / (jax.nn.softplus(beta) + MARGIN), -MARGIN)
    left = jnp.log(-jnp.expm1(v))
    count = logits.shape[-1]
    before = np.triu(np.ones((count, count), np.float32), 1)
    return jnp.exp(v + jnp.matmul(left, before, precision="highest"))


def entropy(codes: Array, weight: Array) -> Array:
    """Mean of ``-p log p`` over codes and weighted pixels, where p is a code divided by its sum.

    Args:
        codes: ``(batch, height, width, code)``.
        weight: of the pixels, ``(batch, height, width, 1)``.
    """
    p = codes / (codes.sum(-1, keepdims=True) + EPSILON)
    return weighted_mean(-p * jnp.log(p + EPSILON), weight)


def centred(image: Array, weight: Array) -> tuple[Array, Array]:
    """The image without the mean of each band over its weighted pixels, and that mean ``(batch, 1, 1, band)``."""
    total = jnp.maximum(weight.sum((-3, -2), keepdims=True), 1)
    mean = jnp.sum(image * weight, (-3, -2), keepdims=True) / total
    return image - mean, mean


def dense(inputs: int, outputs: int, *, rngs: nnx.Rngs) -> Conv:
    """A linear map of every pixel with a bias, started as TensorFlow's `fully_connected` is."""
    return Conv(inputs, outputs, 1, kernel_init=jax.nn.initializers.glorot_uniform(), rngs=rngs)


class DenseStack(nnx.Module):
    """Linear layers without activation, each of which sees the input and all layers before it.

    Args:
        inputs: features of the input.
        widths: of the layers.
    """

    def __init__(self, inputs: int, widths: Sequence[int], *, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([dense(inputs + sum(widths[:i]), w, rngs=rngs) for i, w in enumerate(widths)])
        self.outputs = inputs + sum(widths)

    def __call__(self, x: Array) -> Array:
        """``(..., inputs)`` to ``(..., outputs)``: the input and what every layer makes."""
        for layer in self.layers:
            x = jnp.concatenate([x, layer(x)], -1)
        return x


class Decoder(nnx.Module):
    """Spectra of the codes, two linear maps without bias.

    Args:
        codes: of a pixel.
        bands: of a spectrum.
    """

    def __init__(self, codes: int, bands: int, *, rngs: nnx.Rngs) -> None:
        self.mixing = nnx.Param(tf_truncated_normal(rngs.params(), (codes, codes)))
        self.bases = nnx.Param(tf_truncated_normal(rngs.params(), (codes, bands)))

    def spectra(self) -> Array:
        """One spectrum a code, ``(code, band)``."""
        return self.mixing[...] @ self.bases[...]

    def __call__(self, codes: Array) -> Array:
        """``(..., code)`` to ``(..., band)``."""
        return codes @ self.mixing[...] @ self.bases[...]
