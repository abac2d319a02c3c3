"""Initialisers that published systems use and `jax.nn.initializers` lacks.

Kernels are `(*window, in, out)`; an initialiser is `init(key, shape, dtype)`. TensorFlow's `VarianceScaling`, Keras'
`glorot_uniform` and PyTorch's `kaiming_*` and `xavier_*` with the same mode are those of `jax.nn.initializers`.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer, truncated_normal, variance_scaling

# PyTorch's `Conv2d` and `Linear`: kaiming_uniform(a=sqrt(5)), which is U(-b, b) with b = 1 / sqrt(fan_in).
torch_kernel: Initializer = variance_scaling(1 / 3, "fan_in", "uniform")

# TF-Slim's and TensorFlow 1's `variance_scaling_initializer` with factor 2: the normal law of He et al. (2015), cut at
# two standard deviations and rescaled to the variance 2 / fan_in.
tf_variance_scaling: Initializer = variance_scaling(2.0, "fan_in", "truncated_normal")

# `tf.truncated_normal(stddev=0.1)`, the habit of hand-written TensorFlow 1 networks.
tf_truncated_normal: Initializer = truncated_normal(0.1)


def torch_bias(fan_in: int) -> Initializer:
    """PyTorch's bias of `Conv2d` and `Linear`: U(-b, b) with b = 1 / sqrt(fan_in) of the layer's kernel."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
