"""The residual block without normalisation that several networks are made of."""

from flax import nnx
from jax import Array

from jfusion.catalogue import Table
from jfusion.layers.conv import Conv
from jfusion.layers.init import tf_variance_scaling
from jfusion.layers.layouts import torch_layer


class ResidualBlock(nnx.Module):
    """Two 3x3 convolutions around a ReLU, plus the identity: ``(batch, height, width, width)`` to the same."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.first = Conv(width, width, 3, kernel_init=tf_variance_scaling, rngs=rngs)
        self.second = Conv(width, width, 3, kernel_init=tf_variance_scaling, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return x + self.second(nnx.relu(self.first(x)))


def dlpan_layers(blocks: int) -> Table:
    """What the DLPan toolbox calls a convolution ("head"), so many `ResidualBlock`s and a convolution ("tail")."""
    table = torch_layer("head", "conv1") | torch_layer("tail", "conv3")
    for k in range(blocks):
        table |= torch_layer(f"blocks/{k}/first", f"res{k + 1}.conv20")
        table |= torch_layer(f"blocks/{k}/second", f"res{k + 1}.conv21")
    return table


DLPAN_UNUSED = r"backbone\..*"
"""Second names of the blocks' arrays there."""
