"""FFDNet, a denoiser that is told how much noise there is.

Zhang, Zuo, Zhang, "FFDNet: Toward a Fast and Flexible Solution for CNN-Based Image Denoising", TIP 27(9), 2018,
doi:10.1109/TIP.2018.2839891; code: github.com/cszn/FFDNet, whose weights are those of networks with batch normalisation
that has been merged into the convolutions.
"""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn.initializers import orthogonal

from jfusion.catalogue import Table
from jfusion.layers.conv import Conv
from jfusion.layers.layouts import matlab_kernel, matlab_vector

LARGEST_NOISE = 75 / 255
"""Standard deviation up to which FFDNet is trained."""


class FFDNet(nnx.Module):
    """The network for images of one band.

    Every 2 x 2 pixels become channels, beside which lies the noise's standard deviation, and pixels again at the end.

    Args:
        width: channels of the convolutions.
        depth: number of the convolutions.
    """

    def __init__(self, *, width: int = 64, depth: int = 15, rngs: nnx.Rngs) -> None:
        sizes = [5, *[width] * (depth - 1), 4]
        self.convs = nnx.List([Conv(i, o, 3, kernel_init=orthogonal(), rngs=rngs) for i, o in pairwise(sizes)])

    def __call__(self, image: Array, deviation: Array) -> Array:
        """The image without its noise.

        Args:
            image: ``(..., height, width)``, values from 0 to 1; its last row and column are repeated to make their
                numbers even.
            deviation: of the noise, ``(...)``.
        """
        lead, (height, width) = image.shape[:-2], image.shape[-2:]
        x = image.reshape(-1, height, width)
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2)), "edge")
        rows, columns = x.shape[1] // 2, x.shape[2] // 2
        x = x.reshape(-1, rows, 2, columns, 2).transpose(0, 1, 3, 4, 2).reshape(-1, rows, columns, 4)
        noise = jnp.broadcast_to(deviation, lead).reshape(-1, 1, 1, 1)
        x = jnp.concatenate([x, jnp.broadcast_to(noise, (*x.shape[:3], 1))], -1)
        for conv in self.convs[:-1]:
            x = jax.nn.relu(conv(x))
        x = self.convs[-1](x).reshape(-1, rows, columns, 2, 2).transpose(0, 1, 4, 2, 3)
        return x.reshape(-1, 2 * rows, 2 * columns)[:, :height, :width].reshape(*lead, height, width)


def published_names(network: FFDNet) -> Table:
    """Every second layer of the published MatConvNet files is a convolution, from the third on."""
    table: Table = {}
    for k in range(len(network.convs)):
        weights = f"layers/{2 * k + 2}/weights"
        kernel, bias = (f"{weights}/0", matlab_kernel), (f"{weights}/1", matlab_vector)
        table |= {f"convs/{k}/kernel": kernel, f"convs/{k}/bias": bias}
    return table
