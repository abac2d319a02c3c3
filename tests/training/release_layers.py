"""Layers of releases on one image ``(height, width, channel)`` in NumPy, and the shapes of their arrays."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from jfusion.layers.resample import sample
from jfusion.operators import Grid, upsample

Arrays = dict[str, np.ndarray]
Shapes = Iterator[tuple[str, tuple[int, ...]]]


def correlate(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A kernel `(height, width, in, out)` with zeros around the image, the odd one at the end; `size` is kept."""
    rows, columns = kernel.shape[:2]
    pads = [((n - 1) // 2, n // 2) for n in (rows, columns)]
    wide = np.pad(x, [*pads, (0, 0)])
    height, width = x.shape[:2]
    places = [(i, j) for i in range(rows) for j in range(columns)]
    return sum(wide[i : i + height, j : j + width] @ kernel[i, j] for i, j in places)  # type: ignore[return-value]


def lay(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """All that kernels `(height, width, in, out)` laid down by each pixel sum up to, nothing cut off."""
    (height, width), (rows, columns) = x.shape[:2], kernel.shape[:2]
    out = np.zeros(((height - 1) * stride + rows, (width - 1) * stride + columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            out[i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride] += (
                x @ kernel[i, j]
            )
    return out


def shrunk(x: np.ndarray, kernel: np.ndarray, step: int) -> np.ndarray:
    """TensorFlow's "same" convolution with strides that divide the sides of an image."""
    window = len(kernel)
    first = (window - 1) // 2 - (window - step) // 2
    return correlate(x, kernel)[first::step, first::step]


def enlarged(x: np.ndarray, kernel: np.ndarray, step: int) -> np.ndarray:
    """TensorFlow's transposed convolution, `(height, width, out, in)`, back to what `shrunk` takes."""
    first, (height, width) = (len(kernel) - step) // 2, x.shape[:2]
    out = lay(x, kernel.swapaxes(2, 3), step)
    return out[first : first + step * height, first : first + step * width]


def conv(a: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    """PyTorch's convolution or linear layer."""
    kernel = a[f"{name}.weight"]
    kernel = kernel.T[None, None] if kernel.ndim == 2 else kernel.transpose(2, 3, 1, 0)
    return correlate(x, kernel) + a.get(f"{name}.bias", 0)


def depthwise(a: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    """PyTorch's convolution of every channel for itself."""
    return correlate(x, a[f"{name}.weight"].transpose(2, 3, 1, 0) * np.eye(x.shape[-1])) + a[f"{name}.bias"]


def linear(a: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    return x @ a[f"{name}.weight"].T + a.get(f"{name}.bias", 0)


def layer_norm(a: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * a[f"{name}.weight"] + a[f"{name}.bias"]


def relu(x: np.ndarray, slope: np.ndarray | float = 0) -> np.ndarray:
    return np.where(x > 0, x, slope * x)


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, bias: np.ndarray | float = 0) -> np.ndarray:
    """Of tokens `(token, channel)`; the bias may be that of each head."""
    biases = np.broadcast_to(bias, (heads, len(q), len(k)))
    parts = zip(*(np.split(x, heads, -1) for x in (q, k, v)), biases, strict=True)
    return np.concatenate([softmax(q @ k.T / np.sqrt(q.shape[1]) + b, -1) @ v for q, k, v, b in parts], -1)


def interpolated(y: np.ndarray, ratio: int, method: Any) -> np.ndarray:
    return np.asarray(upsample(jnp.asarray(y, jnp.float32), Grid.nested(ratio), method), np.float64)


def slim_layer(name: str, *shape: int) -> Shapes:
    yield f"{name}/weights", shape
    yield f"{name}/biases", shape[-1:]


def sampled(x: np.ndarray, ratio: int) -> np.ndarray:
    return np.asarray(sample(jnp.asarray(x, jnp.float32), Grid.nested(ratio)), np.float64)


def layer(name: str, *shape: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]
