"""The residual block without normalisation that several networks are made of."""

from flax import nnx
from jax import Array

from jfusion.layers.conv import Conv
from jfusion.layers.init import tf_variance_scaling


class ResidualBlock(nnx.Module):
    """Two 3x3 convolutions around a ReLU, plus the identity: ``(batch, height, width, width)`` to the same."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.first = Conv(width, width, 3, kernel_init=tf_variance_scaling, rngs=rngs)
        self.second = Conv(width, width, 3, kernel_init=tf_variance_scaling, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return x + self.second(nnx.relu(self.first(x)))
