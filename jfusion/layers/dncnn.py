"""DnCNN, a plain network of convolutions that learns a residual.

Zhang, Zuo, Chen, Meng, Zhang, "Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image Denoising", TIP
26(7), 2017, doi:10.1109/TIP.2017.2662206; code: github.com/cszn/DnCNN.
"""

from __future__ import annotations

import jax
from flax import nnx
from jax import Array
from jax.nn.initializers import Initializer, ones

from jfusion.layers.batch_norm import ConvNorm
from jfusion.layers.conv import Conv


class DnCNN(nnx.Module):
    """Convolutions 3 x 3 with ReLU between them, batch normalisation in all but the first and the last.

    Args:
        channels: that come in and go out.
        width: channels inside.
        depth: convolutions, 2 at least.
        momentum, epsilon, scale_init: of the normalisation, see `jfusion.layers.batch_norm.ConvNorm`.
        kernel_init: of all kernels.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int,
        depth: int,
        momentum: float,
        epsilon: float,
        kernel_init: Initializer,
        scale_init: Initializer = ones,
        rngs: nnx.Rngs,
    ) -> None:
        def inner() -> ConvNorm:
            return ConvNorm(width, width, momentum=momentum, epsilon=epsilon, kernel_init=kernel_init,
                            scale_init=scale_init, rngs=rngs)  # fmt: skip

        self.first = Conv(channels, width, 3, kernel_init=kernel_init, rngs=rngs)
        self.inner = nnx.List([inner() for _ in range(depth - 2)])
        self.last = Conv(width, channels, 3, kernel_init=kernel_init, rngs=rngs)

    def __call__(self, x: Array, running: bool | None = None) -> Array:
        """The residual, of the shape of ``x``, ``(batch, height, width, channel)``; ``running`` as in `ConvNorm`."""
        x = jax.nn.relu(self.first(x))
        for layer in self.inner:
            x = jax.nn.relu(layer(x, running))
        return self.last(x)
