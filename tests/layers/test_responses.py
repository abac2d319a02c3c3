"""Learned responses: what they start as, and that they stay where they must."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.layers.responses import LearnedPsf, LearnedSrf, Weights
from jfusion.operators import BlockAverage, Grid, SpatialResponse, box_psf

BANDS = Bands(9, 2, 4)
SUPPORT = np.arange(9)[None] // 5 == np.arange(2)[:, None]


def image(height: int, width: int, bands: int = 2) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).random((1, height, width, bands)), jnp.float32)


@pytest.mark.parametrize("constraint", ["softmax", "projected", "clipped", "detached"])
def test_rows_sum_to_one_and_keep_their_support(constraint):
    rng = np.random.default_rng(1)
    weights = Weights(jnp.full((2, 9), 1 / 9), constraint, jnp.asarray(SUPPORT))
    weights.weight[...] += jnp.asarray(0.3 * rng.standard_normal((2, 9)), jnp.float32)
    weights.project()
    np.testing.assert_allclose(weights().sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(weights())[~SUPPORT], 0)
    assert (float(weights().min()) < 0) == (constraint == "detached")


def test_a_row_that_was_clipped_away_becomes_flat():
    weights = Weights(jnp.full((1, 4), 0.25), "clipped")
    weights.weight[...] = -jnp.ones((1, 4))
    weights.project()
    np.testing.assert_allclose(weights(), 0.25)


def test_projection_is_the_nearest_point_of_the_simplex():
    """A step common to a row changes nothing; the known projection of (1, 0.5, -2) is (0.75, 0.25, 0)."""
    weights = Weights(jnp.full((2, 3), 1 / 3), "projected")
    weights.weight[...] = jnp.asarray([[0.5, 0.3, 0.2], [1.0, 0.5, -2.0]]) - 0.05
    weights.project()
    np.testing.assert_allclose(weights(), [[0.5, 0.3, 0.2], [0.75, 0.25, 0]], atol=1e-6)


def test_psf_of_another_size_is_padded_around_its_origin():
    x = image(16, 16)
    np.testing.assert_allclose(LearnedPsf(Grid.nested(4), "projected", size=9)()(x), BlockAverage(4)(x), atol=1e-6)


def test_no_gradient_flows_through_the_detached_sum():
    graph, params, rest = nnx.split(Weights(jnp.asarray([[0.5, 1.5]]), "detached"), nnx.Param, ...)
    gradient = jax.grad(lambda params: nnx.merge(graph, params, rest)()[0, 0])(params)
    np.testing.assert_allclose(jax.tree.leaves(gradient)[0], [[0.5, 0.0]])


def test_unknown_constraint_and_empty_support():
    with pytest.raises(InputError, match="softmax, projected"):
        Weights(jnp.ones((1, 2)), "sigmoid")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 empty rows"):
        LearnedSrf(BANDS, support=jnp.asarray(SUPPORT) & jnp.asarray([[True], [False]]))


@pytest.mark.parametrize("constraint", ["softmax", "projected", "free"])
@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
def test_psf_starts_as_the_mean_over_a_block(ratio, constraint):
    psf = LearnedPsf(Grid.nested(ratio), constraint)
    x = image(4 * ratio, 5 * ratio)
    assert psf.size == ratio
    np.testing.assert_allclose(psf()(x), BlockAverage(ratio)(x), atol=1e-6)


@pytest.mark.parametrize("centre", [(0.0, 0.0), (1.0, 0.25)])
def test_psf_starts_centred_on_any_grid(centre):
    grid = Grid(2, centre)
    x = image(12, 12)
    np.testing.assert_allclose(
        LearnedPsf(grid, "projected")()(x), SpatialResponse(box_psf(grid), 2, grid.phase)(x), atol=1e-6
    )


def test_taps_of_an_even_size_lie_evenly_around_a_phase_on_a_pixel():
    psf = LearnedPsf(Grid(2, (1.0, 0.0)), "free", size=4)
    kernel = psf().psf
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-6)
    assert LearnedPsf(Grid.nested(2), size=4).size == 4


def test_srf_starts_inside_its_support():
    support = jnp.asarray(SUPPORT)
    srf = np.asarray(LearnedSrf(BANDS, "softmax", support, middle=True)().srf)
    assert srf.argmax(1).tolist() == [2, 6]
    np.testing.assert_allclose(srf.sum(1), 1, rtol=1e-5)
    flat = support / support.sum(1, keepdims=True)
    np.testing.assert_allclose(LearnedSrf(BANDS, "softmax", support)().srf, flat, rtol=1e-5)
    np.testing.assert_allclose(LearnedSrf(BANDS)().srf, 1 / 9, rtol=1e-5)
