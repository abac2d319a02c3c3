"""Parts of transformers: attention, windows of an image, and the layers around them as PyTorch initialises them.

Tokens are `(..., token, channel)`. Attention is that of Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
eq. 1, in several heads; attention within windows is that of Liu et al., "Swin Transformer", ICCV 2021.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from jfusion.errors import InputError
from jfusion.layers.init import torch_bias, torch_kernel


def attend(query: jax.Array, key: jax.Array, value: jax.Array, heads: int, bias: jax.Array | None = None) -> jax.Array:
    """`softmax(query key' / sqrt(channels of a head) + bias) value` for each head; the softmax is in float32.

    Args:
        query: `(..., tokens, channel)`; each head has the next `channel / heads` channels.
        key, value: `(..., others, channel)`.
        bias: broadcast to `(..., heads, tokens, others)`; minus infinity hides a token from another.

    Returns:
        `(..., tokens, channel)`.

    Raises:
        InputError: the heads do not divide the channels.
    """
    if query.shape[-1] % heads:
        raise InputError(f"the heads must divide the channels, but {query.shape[-1]} channels came with {heads} heads.")
    q, k, v = (x.reshape(*x.shape[:-1], heads, -1) for x in (query, key, value))
    scores = jnp.einsum("...ihd,...jhd->...hij", q, k).astype(jnp.float32) * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(scores if bias is None else scores + bias).astype(v.dtype)
    return jnp.einsum("...hij,...jhd->...ihd", weights, v).reshape(query.shape)


def padded(image: jax.Array, window: tuple[int, int]) -> jax.Array:
    """The image `(batch, height, width, channel)`, mirrored below and to the right up to multiples of the window."""
    rows, columns = (-n % size for n, size in zip(image.shape[1:3], window, strict=True))
    return jnp.pad(image, ((0, 0), (0, rows), (0, columns), (0, 0)), "symmetric")


def to_windows(image: jax.Array, window: tuple[int, int]) -> jax.Array:
    """Windows that tile an image: `(batch, height, width, channel)` to `(batch, rows, columns, token, channel)`."""
    batch, height, width, channels = image.shape
    h, w = window
    x = image.reshape(batch, height // h, h, width // w, w, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // h, width // w, h * w, channels)


def from_windows(windows: jax.Array, window: tuple[int, int]) -> jax.Array:
    """The image of which these are the `to_windows`."""
    batch, rows, columns, _, channels = windows.shape
    x = windows.reshape(batch, rows, columns, *window, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, rows * window[0], columns * window[1], channels)


def linear(inputs: int, outputs: int, *, use_bias: bool = True, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear layer that starts as PyTorch's."""
    return nnx.Linear(
        inputs, outputs, use_bias=use_bias, kernel_init=torch_kernel, bias_init=torch_bias(inputs), rngs=rngs
    )


def layer_norm(channels: int, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Normalisation of each token over its channels, with PyTorch's epsilon."""
    return nnx.LayerNorm(channels, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


gelu = partial(jax.nn.gelu, approximate=False)
"""PyTorch's `GELU`: by the error function and not by its approximation."""


class Perceptron(nnx.Module):
    """Two linear layers around an activation, the same for every token."""

    def __init__(
        self, channels: int, hidden: int, activation: Callable[[jax.Array], jax.Array], *, rngs: nnx.Rngs
    ) -> None:
        self.first = linear(channels, hidden, rngs=rngs)
        self.second = linear(hidden, channels, rngs=rngs)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(..., channel)` to the same."""
        return self.second(self.activation(self.first(x)))
