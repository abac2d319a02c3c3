"""The parameters of other frameworks in the shapes of ours: layouts, and the parts of a `jfusion.catalogue.Table`."""

from __future__ import annotations

import numpy as np

from jfusion.catalogue import Layout, Table


def as_is(array: np.ndarray) -> np.ndarray:
    """The same: vectors; kernels of TensorFlow and Keras but transposed and depthwise ones."""
    return array


def torch_kernel(array: np.ndarray) -> np.ndarray:
    """PyTorch's `(out, in, *window)` to `(*window, in, out)`; a linear layer's `(out, in)` to `(in, out)`."""
    return np.moveaxis(array, (0, 1), (-1, -2))


def torch_transposed_kernel(array: np.ndarray) -> np.ndarray:
    """PyTorch's `(in, out, *window)` of a transposed convolution to `(*window, in, out)`; none is flipped."""
    return np.moveaxis(array, (0, 1), (-2, -1))


def tensorflow_transposed_kernel(array: np.ndarray) -> np.ndarray:
    """TensorFlow's `(*window, out, in)` of a transposed convolution to `(*window, in, out)`."""
    return np.swapaxes(array, -1, -2)


def tensorflow_depthwise_kernel(array: np.ndarray) -> np.ndarray:
    """TensorFlow's `(*window, channel, 1)` of a depthwise convolution to `(*window, 1, channel)`."""
    return np.swapaxes(array, -1, -2)


def first_of_one(array: np.ndarray) -> np.ndarray:
    """`(1, ...)` to `(...)`."""
    return np.squeeze(array, 0)


def tensorflow_pointwise_matrix(array: np.ndarray) -> np.ndarray:
    """TensorFlow's `(1, 1, in, out)` of a convolution of single pixels to `(in, out)`."""
    return np.squeeze(array, (0, 1))


def number(array: np.ndarray) -> np.ndarray:
    """`()` or `(1,)` to `(1,)`: one of the numbers of a vector."""
    return array.reshape(1)


def negated(layout: Layout) -> Layout:
    """The same with the other sign."""
    return lambda array: -layout(array)


def matlab_kernel(array: np.ndarray) -> np.ndarray:
    """MatConvNet's `(height, width, in, out)`, from which MATLAB drops ones at the end."""
    return array.reshape(array.shape + (1,) * (4 - array.ndim))


def matlab_vector(array: np.ndarray) -> np.ndarray:
    """`(n, 1)` or `(1, n)` to `(n,)`."""
    return array.ravel()


def matconvnet_mean(array: np.ndarray) -> np.ndarray:
    """The mean in MatConvNet's moments of a batch norm `(n, 2)`, `(n,)`."""
    return array.reshape(-1, 2)[:, 0]


def matconvnet_variance(epsilon: float) -> Layout:
    """The variance, `(n,)`, in the same; they hold the deviation, with the epsilon of the norm in it."""
    return lambda array: array.reshape(-1, 2)[:, 1] ** 2 - epsilon


# ----------------------------------------------------------------------------------------------------------------------
# Parts of tables


def torch_layer(ours: str, theirs: str, kernel: Layout = torch_kernel, *, use_bias: bool = True) -> Table:
    """A convolution or linear layer of PyTorch: its kernel and, but for layers without one, its bias."""
    table = {f"{ours}/kernel": (f"{theirs}.weight", kernel)}
    return table | {f"{ours}/bias": (f"{theirs}.bias", as_is)} if use_bias else table


def slim_layer(ours: str, theirs: str, kernel: Layout = as_is) -> Table:
    """A convolution of TensorFlow's slim and contrib layers: its kernel and its bias."""
    return {f"{ours}/kernel": (f"{theirs}/weights", kernel), f"{ours}/bias": (f"{theirs}/biases", as_is)}


def torch_norm(ours: str, theirs: str) -> Table:
    """A layer norm of PyTorch: scale and offset."""
    return {f"{ours}/scale": (f"{theirs}.weight", as_is), f"{ours}/bias": (f"{theirs}.bias", as_is)}


def torch_batch_norm(ours: str, theirs: str) -> Table:
    """A batch norm of PyTorch: scale, offset and running moments."""
    moments = {"mean": "running_mean", "var": "running_var"}
    return torch_norm(ours, theirs) | {f"{ours}/{k}": (f"{theirs}.{name}", as_is) for k, name in moments.items()}


def keras_layer(ours: str, theirs: str) -> Table:
    """A convolution or dense layer in a file of Keras: its kernel and its bias."""
    return {f"{ours}/{part}": (f"{theirs}/{part}:0", as_is) for part in ("kernel", "bias")}


def keras_batch_norm(ours: str, theirs: str, end: str = "") -> Table:
    """A batch norm of Keras and of TensorFlow's layers; names in a file of Keras end in ":0"."""
    parts = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}
    return {f"{ours}/{part}": (f"{theirs}/{name}{end}", as_is) for part, name in parts.items()}
