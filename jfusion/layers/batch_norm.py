"""Convolution with batch normalisation, for networks that learn on batches and are used on single images."""

from __future__ import annotations

import jax
from flax import nnx
from jax.nn.initializers import Initializer, ones

from jfusion.layers.conv import Conv


class ConvNorm(nnx.Module):
    """3 x 3 convolution with a bias, then batch normalisation (Ioffe and Szegedy, ICML 2015).

    Args:
        inputs, outputs: channels.
        momentum: share of the running moments that a training step keeps: 0.99 in TensorFlow, 0.9 in PyTorch.
        epsilon: beside the variance: 1e-3 in TensorFlow, 1e-5 in PyTorch.
        kernel_init, scale_init: of the kernel and of the learned scale.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        momentum: float,
        epsilon: float,
        kernel_init: Initializer,
        scale_init: Initializer = ones,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv = Conv(inputs, outputs, 3, kernel_init=kernel_init, rngs=rngs)
        self.norm = nnx.BatchNorm(
            outputs, momentum=momentum, epsilon=epsilon, scale_init=scale_init, use_fast_variance=False, rngs=rngs
        )

    def __call__(self, x: jax.Array, running: bool | None = None) -> jax.Array:
        """``(batch, height, width, inputs)`` to ``(batch, height, width, outputs)``.

        Args:
            x: features.
            running: whether the running moments normalise, so that an image does not depend on its batch; None for the
                mode of the module, which takes the moments of the batch in training.
        """
        return self.norm(self.conv(x), use_running_average=running)
