"""The skip network: its sizes in the papers that use it, and images of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.inference.run import count_parameters
from priors.skip import Skip

TINY = {"width": 4, "scales": 2, "skip": 2}


@pytest.mark.parametrize(
    ("channels", "sizes", "count"),
    [
        ((32, 3), {}, 2_217_831),  # deep image prior, super-resolution
        ((191, 191), {"pointwise": False}, 2_342_047),  # deep hyperspectral prior, denoising
        ((31, 31), {"width": 256, "scales": 2, "skip": 1, "window": 5}, 8_549_704),  # DBSR, generator
    ],
)
def test_size_is_the_papers(channels, sizes, count):
    assert count_parameters(nnx.eval_shape(lambda: Skip(*channels, rngs=nnx.Rngs(0), **sizes))) == count


@pytest.mark.parametrize("size", [(32, 64), (25, 34), (3, 2)])
def test_network_takes_any_size(size):
    def run() -> jax.Array:
        return Skip(5, 7, width=4, rngs=nnx.Rngs(0))(jnp.ones((1, *size, 5)))

    assert jax.eval_shape(run).shape == (1, *size, 7)


def test_no_scale_magnifies_where_none_is_halved():
    """A pixel reaches as far as the convolutions go, in every direction alike."""
    network = Skip(2, 3, **TINY, stride=1, rngs=nnx.Rngs(0))
    x = jax.random.uniform(jax.random.key(0), (1, 9, 9, 2))
    turned = network(x[:, ::-1])
    for path, value in nnx.to_flat_state(nnx.state(network, nnx.Param)):
        if path[-1] == "kernel":
            value[...] = value[...][::-1]
    np.testing.assert_allclose(network(x)[:, ::-1], turned, atol=1e-4)


def test_a_bounded_network_lies_between_zero_and_one():
    x = 100 * jax.random.normal(jax.random.key(0), (1, 6, 5, 3))
    linear, bounded = (Skip(3, 2, **TINY, bounded=b, rngs=nnx.Rngs(0))(x) for b in (False, True))
    assert float(linear.min()) < 0
    np.testing.assert_array_equal(bounded, jax.nn.sigmoid(linear))


def test_image_comes_from_all_scales():
    network = Skip(3, 2, **TINY, rngs=nnx.Rngs(0))
    x = jax.random.uniform(jax.random.key(0), (1, 12, 12, 3))
    whole = network(x)
    for scale in network.scales:
        for part in ("across", "deeper"):
            layer = getattr(scale, part).norm
            kept = layer.scale[...]
            layer.scale[...] = jnp.zeros_like(kept)
            assert float(jnp.abs(network(x) - whole).max()) > 1e-3
            layer.scale[...] = kept
    np.testing.assert_array_equal(network(x), whole)
