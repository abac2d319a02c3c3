"""TONWMD's own equations; what every network promises is in tests/test_catalogue.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import softmax

from jfusion.catalogue import Bands
from jfusion.metrics import ssim
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from unrolled.tonwmd import (
    TONWMD,
    Regions,
    optimised,
    spectral_angle,
    three_fold_loss,
)

GRID = Grid(2, (0.0, 1.0))
BANDS = Bands(4, 2, 2)
SRF = np.array([[0.5, 0.5, 0, 0], [0, 0, 0.3, 0.7]])


@pytest.fixture(scope="module")
def pair():
    """Observation, periodic model and target (2, 12, 16, 4) on a grid that is not nested."""
    target = jax.random.uniform(jax.random.key(0), (2, 12, 16, 4))
    spatial = SpatialResponse(gaussian_psf(0.8, GRID), 2, GRID.phase, "circular")
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(jnp.asarray(SRF, jnp.float32))}, GRID)
    return model(target), model, target


@pytest.mark.parametrize("rank", [None, 3])
def test_optimisation_solves_both_least_squares_problems(rank, pair) -> None:
    """Against the normal equations of the paper in float64, bands as rows."""
    observation, model, target = pair
    weight, x = 0.02, target + 0.2 * jnp.cos(jnp.arange(4.0))
    ours = jax.jit(optimised, static_argnames=("weight", "rank"))(x, observation, model, weight, rank)
    for image in range(2):
        X, Y, Z = (np.asarray(a[image], np.float64).reshape(-1, a.shape[-1]).T for a in (x, *observation.values()))
        P = np.linalg.svd(X.T, full_matrices=False)[2].T[:, :rank]
        RP = SRF @ P
        A = np.linalg.solve(RP.T @ RP + weight * P.T @ P, RP.T @ Z + weight * P.T @ X)
        seen = np.asarray(model["lr"](jnp.asarray(A.T.reshape(12, 16, -1), jnp.float32)), np.float64)
        AH = seen.reshape(-1, len(A)).T
        P = np.linalg.solve(AH @ AH.T + weight * A @ A.T, AH @ Y.T + weight * A @ X.T).T
        np.testing.assert_allclose(ours[image], (P @ A).T.reshape(12, 16, 4), atol=1e-4)


def test_attention_stays_within_its_region_and_is_not_scaled() -> None:
    regions = Regions(4, 3, nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (1, 7, 12, 4))
    y = regions(x)
    assert y.shape == x.shape
    for k, (rows, columns) in enumerate(((0, 0), (0, 3), (3, 0), (3, 3))):
        part = regions.parts[k]
        pixels = np.asarray(x[0, rows : rows + 3, columns : columns + 3]).reshape(9, 4)
        query, key, value, outer = (
            np.asarray(layer.kernel[0]) for layer in (part.query, part.key, part.value, part.outer)
        )
        drawn = softmax(pixels @ query @ (pixels @ key).T, -1) @ (pixels @ value) @ outer
        np.testing.assert_allclose(
            y[0, rows : rows + 3, columns : columns + 3].reshape(9, 4), pixels + drawn, atol=1e-5
        )
    np.testing.assert_allclose(regions(x[:, :6, 6:]), y[:, :6, 6:], atol=1e-5)


def test_angle_has_finite_slopes_where_spectra_agree_or_vanish() -> None:
    x = jnp.asarray([[0.0, 0.0], [3.0, 4.0], [30.0, 40.0], [1.0, 0.0]]).reshape(1, 2, 2, 2)
    turned = x.at[0, 1, 1].set(jnp.asarray([0.0, 1.0]))
    np.testing.assert_allclose(
        spectral_angle(turned, x),
        np.mean([np.pi / 2, np.arccos(25 / 25.001), np.arccos(1 - 1e-6), np.pi / 2]),
        rtol=1e-3,
    )
    assert bool(jnp.isfinite(jax.grad(spectral_angle)(x, x)).all())


@pytest.mark.parametrize("physics", ["exact", "learned"])
def test_loss_adds_all_terms(physics, pair) -> None:
    observation, model, target = pair
    network = TONWMD(BANDS, width=4, widths=(4, 3), region=4, physics=physics, rngs=nnx.Rngs(0))
    network.eval()
    graph, parameters, rest = nnx.split(network, nnx.Param, ...)

    @jax.jit
    def run(parameters):
        def loss(parameters):
            return three_fold_loss(nnx.merge(graph, parameters, rest, copy=True), observation, model, target)

        stages = nnx.merge(graph, parameters, rest, copy=True)(observation, model, stages=True)
        return stages, jax.value_and_grad(loss)(parameters)

    stages, (loss, gradient) = run(parameters)
    learned, last = stages.estimates[1:]
    kernels = [value[...] for path, value in nnx.to_flat_state(parameters) if path[-1] == "kernel"]
    skipped = {"first", "regions"}
    kept = [v[...] for p, v in nnx.to_flat_state(parameters) if p[-1] == "kernel" and not skipped & set(p)]
    assert (len(kernels), len(kept)) == (1 + 16 + 6, 6)
    expected = jnp.mean(jnp.abs(learned - target)) + 1e-3 * spectral_angle(learned, target)
    expected += 1e-3 * jnp.mean((1 - ssim(learned, target)) ** 2) + 5e-5 * sum(jnp.sum(k**2) for k in kept)
    np.testing.assert_allclose(loss, expected + network.sensors.misfit(observation, model, target), rtol=1e-4)
    assert all(bool(jnp.isfinite(leaf).all() & leaf.any()) for leaf in jax.tree.leaves(gradient))
    if physics == "exact":
        np.testing.assert_allclose(last, optimised(learned, observation, model, 2e-3), atol=1e-3)
        assert float(stages.residuals["guide"][0].max()) < float(stages.residuals["guide"][1].max())
