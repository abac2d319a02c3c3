"""Slopes of the negative half, shared or one a channel."""

import jax.numpy as jnp
import numpy as np

from jfusion.layers.prelu import PReLU


def test_slopes_are_for_the_negative_half() -> None:
    x = jnp.asarray([[-4.0, 2.0], [0.0, -8.0]])
    np.testing.assert_array_equal(PReLU()(x), [[-1, 2], [0, -2]])
    by_channel = PReLU(2, 0.5)
    by_channel.slope[...] = jnp.asarray([0.5, 2.0])
    np.testing.assert_array_equal(by_channel(x), [[-2, 2], [0, -16]])
