"""Warps with both borders: where they sample, that they are linear, and their derivative in the displacement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from jfusion.errors import InputError
from jfusion.operators import Warp, dot_test
from jfusion.operators.warp import warp

RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((2, 6, 7, 3)).astype(np.float32)
FIELD = jnp.asarray(RNG.uniform(-4, 4, (6, 7, 2)), jnp.float32)
MODES = {"edge": "nearest", "zero": "grid-constant"}


@pytest.mark.parametrize("border", MODES)
def test_warp_is_bilinear_sampling(border):
    position = np.moveaxis(np.asarray(FIELD) + np.stack(np.mgrid[:6, :7], -1), -1, 0)
    expected = [[map_coordinates(x[..., b], position, order=1, mode=MODES[border]) for b in range(3)] for x in IMAGE]
    np.testing.assert_allclose(warp(jnp.asarray(IMAGE), FIELD, border), np.moveaxis(expected, 1, -1), atol=1e-5)


@pytest.mark.parametrize("border", MODES)
def test_warp_has_an_adjoint(border):
    assert dot_test(Warp(FIELD, border), IMAGE.shape, jax.random.key(0)) < 1e-5


@pytest.mark.parametrize("border", MODES)
def test_a_ramp_tells_the_displacement(border):
    """Inside a ramp the derivative in the displacement is its slope."""
    ramp = jnp.broadcast_to(2.0 * jnp.arange(6)[:, None] - 3.0 * jnp.arange(7), (6, 7))[..., None]
    inner = np.s_[2:4, 2:5]
    gradient = jax.grad(lambda d: warp(ramp, d, border)[inner].sum())(0.3 * jnp.ones((6, 7, 2)))
    np.testing.assert_allclose(gradient[inner], np.broadcast_to([2.0, -3.0], (2, 3, 2)), atol=1e-5)
    assert float(jnp.abs(gradient).sum()) == pytest.approx(6 * 5, rel=1e-5)


def test_without_displacement_nothing_changes():
    for border in MODES:
        np.testing.assert_array_equal(warp(jnp.asarray(IMAGE), jnp.zeros((6, 7, 2)), border), IMAGE)


def test_far_outside_lie_zeros_or_the_edge():
    far = jnp.asarray([0.0, 100.0])
    assert float(jnp.abs(warp(jnp.asarray(IMAGE), far, "zero")).max()) == 0
    np.testing.assert_array_equal(warp(jnp.asarray(IMAGE), far)[:, :, 0], IMAGE[:, :, -1])


def test_mistakes_are_named():
    with pytest.raises(InputError, match="vmap over fields"):
        warp(jnp.asarray(IMAGE), jnp.zeros((2, 6, 7, 2)))
    with pytest.raises(InputError, match="edge, zero"):
        warp(jnp.asarray(IMAGE), FIELD, "mirror")
