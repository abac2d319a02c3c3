"""What untrained generators are made of: mirrored convolutions, and normalisation by the moments of the image itself.

They have no running moments, since they never see another image: what batch normalisation in training mode does to a
batch of one.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jfusion.layers.conv import Conv
from jfusion.layers.init import torch_bias
from jfusion.operators import Grid, upsample

SLOPE = 0.2
EPSILON = 1e-5


def activate(x: Array) -> Array:
    """Leaky ReLU of slope 0.2."""
    return jax.nn.leaky_relu(x, SLOPE)


def enlarge(x: Array, size: tuple[int, ...]) -> Array:
    """Bilinear interpolation by 2 on nested grids, cut to ``size``: a level below an odd image gives one row too many.

    Args:
        x: ``(batch, height, width, channel)``.
        size: height and width of the result, at most twice as large.
    """
    return upsample(x, Grid.nested(2), "bilinear")[:, : size[0], : size[1]]


def normalise(x: Array) -> Array:
    """Zero mean and unit variance of each channel of ``(batch, height, width, channel)`` over batch and pixels."""
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) * jax.lax.rsqrt(variance + EPSILON)


class Norm(nnx.Module):
    """`normalise` with a learned scale and shift of each channel."""

    def __init__(self, width: int) -> None:
        self.scale = nnx.Param(jnp.ones(width))
        self.shift = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Array) -> Array:
        return normalise(x) * self.scale[...] + self.shift[...]


class MirroredConv(nnx.Module):
    """Convolution with mirrored borders, PyTorch's reflection padding of half the window on every side.

    Args:
        inputs, outputs: channels.
        window: odd.
        strides: of 2 keeps the pixels 0, 2, ..., so ``ceil(size / 2)`` of them.
    """

    def __init__(self, inputs: int, outputs: int, window: int, strides: int = 1, *, rngs: nnx.Rngs) -> None:
        bias = torch_bias(window**2 * inputs)
        self.conv = Conv(inputs, outputs, window, strides=strides, padding="valid", bias_init=bias, rngs=rngs)
        self.margin = window // 2

    def __call__(self, x: Array) -> Array:
        pad = (self.margin, self.margin)
        return self.conv(jnp.pad(x, ((0, 0), pad, pad, (0, 0)), mode="reflect") if self.margin else x)


class NormedConv(nnx.Module):
    """`MirroredConv`, then `Norm`; see there for the arguments."""

    def __init__(self, inputs: int, outputs: int, window: int, strides: int = 1, *, rngs: nnx.Rngs) -> None:
        self.conv = MirroredConv(inputs, outputs, window, strides, rngs=rngs)
        self.norm = Norm(outputs)

    def __call__(self, x: Array) -> Array:
        return self.norm(self.conv(x))
