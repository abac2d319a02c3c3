"""The skip network of Ulyanov, Vedaldi and Lempitsky, "Deep Image Prior", CVPR 2018: an hourglass with thin skips.

Many untrained generators are one, with other widths.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jfusion.layers.untrained import MirroredConv, Norm, NormedConv, activate, enlarge


class _Scale(nnx.Module):
    """What goes down from one scale to the next, what goes across, and how both are joined on the way up."""

    def __init__(
        self, inputs: int, width: int, skip: int, window: int, stride: int, pointwise: bool, *, rngs: nnx.Rngs
    ) -> None:
        self.stride = stride
        self.across = NormedConv(inputs, skip, 1, rngs=rngs)
        self.down = NormedConv(inputs, width, window, stride, rngs=rngs)
        self.deeper = NormedConv(width, width, window, rngs=rngs)
        self.joined = Norm(skip + width)
        self.up = NormedConv(skip + width, width, window, rngs=rngs)
        self.pointwise = NormedConv(width, width, 1, rngs=rngs) if pointwise else None

    def descend(self, x: Array) -> Array:
        return activate(self.deeper(activate(self.down(x))))

    def ascend(self, across: Array, below: Array) -> Array:
        below = below if self.stride == 1 else enlarge(below, across.shape[1:3])
        x = activate(self.up(self.joined(jnp.concatenate([across, below], -1))))
        return x if self.pointwise is None else activate(self.pointwise(x))


class Skip(nnx.Module):
    """The network, of images of any size.

    Each scale halves the image by a convolution of stride 2 and one of stride 1, and on the way up a convolution joins
    the interpolated result of the scale below with a 1x1 convolution of the scale's input. Every convolution is
    normalised by the moments of the image, and so is what is joined.

    Args:
        inputs, outputs: channels.
        width: channels of each scale.
        scales: how often the network goes deeper.
        skip: channels that go across at each scale.
        window: side of the convolutions.
        stride: from one scale to the next; 1 leaves all of them at the image's own size, without an interpolation, for
            images that are too small to be halved.
        pointwise: whether a 1x1 convolution follows on each scale's way up.
        bounded: whether the last layer is followed by a sigmoid, so that the result lies between 0 and 1.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int = 128,
        scales: int = 5,
        skip: int = 4,
        window: int = 3,
        stride: Literal[1, 2] = 2,
        pointwise: bool = True,
        bounded: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        self.scales = nnx.List(
            [_Scale(width if k else inputs, width, skip, window, stride, pointwise, rngs=rngs) for k in range(scales)]
        )
        self.output = MirroredConv(width, outputs, 1, rngs=rngs)
        self.bounded = bounded

    def __call__(self, x: Array) -> Array:
        """``(batch, height, width, inputs)`` to ``(batch, height, width, outputs)``, of any height and width."""
        passed = []
        for scale in self.scales:
            passed.append(activate(scale.across(x)))
            x = scale.descend(x)
        for scale, across in zip(reversed(list(self.scales)), reversed(passed), strict=True):
            x = scale.ascend(across, x)
        x = self.output(x)
        return jax.nn.sigmoid(x) if self.bounded else x
