"""Initialisers that published systems use and `jax.nn.initializers` lacks.

Kernels are `(*window, in, out)`; an initialiser is `init(key, shape, dtype)`. TensorFlow's `VarianceScaling`, Keras'
`glorot_uniform` and PyTorch's `kaiming_*` and `xavier_*` with the same mode are those of `jax.nn.initializers`.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer


def _initialiser(draw: Callable[..., jax.Array], deviation: Callable[[int], float]) -> Initializer:
    """What ``draw`` gives, times the deviation at a fan-in.

    Drawn as a vector, the numbers are those of the kernel's own shape, which takes XLA far longer to compile.
    """

    def init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        values = draw(key, shape=(math.prod(shape),), dtype=dtype or jnp.float32)
        return (values * jnp.asarray(deviation(math.prod(shape[:-1])), values.dtype)).reshape(shape)

    return init


_uniform = partial(jax.random.uniform, minval=-1.0)
_truncated = partial(jax.random.truncated_normal, lower=-2.0, upper=2.0)
_TRUNCATED_DEVIATION = 0.87962566103423978

# PyTorch's `Conv2d` and `Linear`: kaiming_uniform(a=sqrt(5)), which is U(-b, b) with b = 1 / sqrt(fan_in).
torch_kernel: Initializer = _initialiser(_uniform, lambda fan_in: 1 / math.sqrt(fan_in))

# TF-Slim's and TensorFlow 1's `variance_scaling_initializer` with factor 2: the normal law of He et al. (2015), cut at
# two standard deviations and rescaled to the variance 2 / fan_in.
tf_variance_scaling: Initializer = _initialiser(_truncated, lambda fan_in: math.sqrt(2 / fan_in) / _TRUNCATED_DEVIATION)

# He's law as hand-written TensorFlow cuts it: the normal law of variance 2 / fan_in, cut and not rescaled.
tf_he_normal: Initializer = _initialiser(_truncated, lambda fan_in: math.sqrt(2 / fan_in))

# `tf.truncated_normal(stddev=0.1)`, the habit of hand-written TensorFlow 1 networks.
tf_truncated_normal: Initializer = _initialiser(_truncated, lambda _: 0.1)


def torch_transposed_kernel(
    key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, out_sharding: Any = None
) -> jax.Array:
    """PyTorch's kernel of a transposed convolution, `(*window, in, out)`, whose fan-in counts the outputs."""
    *window, inputs, outputs = shape
    return jnp.swapaxes(torch_kernel(key, (*window, outputs, inputs), dtype), -1, -2)


def normal(deviation: float) -> Initializer:
    """The normal law of that deviation, the habit of adversarial networks."""
    return _initialiser(jax.random.normal, lambda _: deviation)


def torch_bias(fan_in: int) -> Initializer:
    """PyTorch's bias of `Conv2d` and `Linear`: U(-b, b) with b = 1 / sqrt(fan_in) of the layer's kernel."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
