"""Each classical system against the equation that is its own."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.classical.bdsd import bdsd, gains
from jfusion.classical.component_substitution import brovey, gsa
from jfusion.classical.hypersharpening import degrade
from jfusion.classical.interpolation import cubic, interp23
from jfusion.classical.multiresolution import mtf_glp, mtf_glp_cbd, mtf_glp_hpm, sfim
from jfusion.classical.subspace import fuse, noise_variance, posterior_mean
from jfusion.classical.variational import GUIDE_WEIGHT, TV_WEIGHT, abundances, differences
from jfusion.operators import (
    Grid,
    SpatialResponse,
    SpectralResponse,
    gaussian_psf,
    mtf_psf,
    upsample,
)

jitted = cache(jax.jit)

PAN = (4, 1, Grid(4, (1.0, 2.0)))


@pytest.mark.parametrize("interpolate", [cubic, interp23])
def test_interpolation_passes_through_the_samples(interpolate, simulate):
    _, observation, model = simulate(*PAN)
    product = jitted(interpolate)(observation, model)
    np.testing.assert_allclose(product[:, 1::4, 2::4], observation["lr"], atol=1e-5)


@pytest.mark.parametrize("system", [brovey, gsa, mtf_glp, mtf_glp_cbd, mtf_glp_hpm, fuse])
def test_a_guide_that_is_the_scene_gives_the_scene(system, simulate):
    """One band, and a guide that has seen that very band."""
    scene, _, model = simulate(*PAN)
    band = jnp.asarray(scene[..., :1])
    exact = model.replace(operators={"lr": model["lr"], "guide": SpectralResponse(jnp.ones((1, 1)))})
    product = jitted(system)(exact(band), exact)
    np.testing.assert_allclose(product, band, atol=2e-2 if system in (gsa, fuse) else 1e-4)


@pytest.mark.parametrize("system", [gsa, mtf_glp, mtf_glp_cbd, mtf_glp_hpm, sfim])
def test_units_of_the_guide_do_not_matter(system, simulate):
    _, observation, model = simulate(*PAN)
    offset = 0.0 if system is sfim else 300.0
    other = {**observation, "guide": 2000 * observation["guide"] + offset}
    np.testing.assert_allclose(jitted(system)(other, model), jitted(system)(observation, model), atol=1e-3)


@pytest.mark.parametrize("system", [gsa, mtf_glp, mtf_glp_cbd, mtf_glp_hpm])
def test_a_flat_guide_adds_nothing(system, simulate):
    _, observation, model = simulate(*PAN)
    flat = {**observation, "guide": jnp.full_like(observation["guide"], 0.4)}
    np.testing.assert_allclose(jitted(system)(flat, model), jitted(interp23)(observation, model), atol=1e-5)


def test_brovey_keeps_band_ratios_and_shows_the_guide(simulate):
    _, observation, model = simulate(*PAN)
    product, expanded = (jitted(f)(observation, model) for f in (brovey, cubic))
    np.testing.assert_allclose(product / product[..., :1], expanded / expanded[..., :1], rtol=1e-4)
    np.testing.assert_allclose(model["guide"](product), observation["guide"], atol=1e-5)


def test_sfim_multiplies_by_the_guide_over_its_block_mean(simulate):
    _, observation, model = simulate(*PAN)
    guide = np.asarray(observation["guide"])
    window = guide[0, 18:23, 28:33, 0]
    weights = np.outer([0.5, 1, 1, 1, 0.5], [0.5, 1, 1, 1, 0.5]) / 16
    expected = jitted(cubic)(observation, model)[0, 20, 30] * guide[0, 20, 30, 0] / (weights * window).sum()
    np.testing.assert_allclose(jitted(sfim)(observation, model)[0, 20, 30], expected, rtol=1e-5)


def test_gsa_product_shows_the_guide_at_the_mean_of_its_intensity(simulate):
    _, observation, model = simulate(*PAN)
    lr, low = (np.asarray(x[0], np.float64) for x in (observation["lr"], degrade(observation["guide"], model)))
    design = np.column_stack([lr.reshape(-1, 4), np.ones(lr.shape[0] * lr.shape[1])])
    weights = np.linalg.lstsq(design, low.ravel(), rcond=None)[0]
    intensity, expanded = (np.asarray(jitted(f)(observation, model)[0]) @ weights[:4] for f in (gsa, interp23))
    guide = np.asarray(observation["guide"][0, ..., 0])
    np.testing.assert_allclose(intensity - expanded.mean(), guide - guide.mean(), atol=2e-3)


def test_mtf_glp_gains_are_ratios_of_deviations(simulate):
    _, observation, model = simulate(*PAN)
    expanded, guide = (np.asarray(x) for x in (jitted(interp23)(observation, model), observation["guide"]))
    low = np.asarray(upsample(model["lr"](jnp.asarray(guide)), model.grid, "interp23"))
    gain = expanded.std((1, 2), keepdims=True) / low.std((1, 2), keepdims=True)
    np.testing.assert_allclose(jitted(mtf_glp)(observation, model), expanded + gain * (guide - low), atol=1e-4)
    matched = (
        (x - low.mean((1, 2), keepdims=True)) * gain + expanded.mean((1, 2), keepdims=True) for x in (guide, low)
    )
    np.testing.assert_allclose(
        jitted(mtf_glp_hpm)(observation, model), expanded * np.clip(np.divide(*matched), 0, 16), atol=1e-4
    )


def test_mtf_glp_filters_each_band_by_its_own_psf(simulate):
    bands, guide_bands, grid = PAN
    _, observation, model = simulate(bands, guide_bands, grid)
    expanded, low = jitted(interp23)(observation, model), []
    for gain in (0.2, 0.35):
        psf = mtf_psf(jnp.full(bands, gain), grid)
        seen = model.replace(operators={**model.operators, "lr": SpatialResponse(psf, grid.ratio, grid.phase)})
        low.append(jitted(mtf_glp)(observation, seen) - expanded)
    psf = mtf_psf(jnp.asarray([0.2, 0.35, 0.2, 0.35]), grid)
    seen = model.replace(operators={**model.operators, "lr": SpatialResponse(psf, grid.ratio, grid.phase)})
    product = jitted(mtf_glp)(observation, seen) - expanded
    np.testing.assert_allclose(product[..., ::2], low[0][..., ::2], atol=2e-4)
    np.testing.assert_allclose(product[..., 1::2], low[1][..., 1::2], atol=2e-4)
    assert float(jnp.abs(low[0] - low[1]).max()) > 1e-2


def test_bdsd_gains_solve_the_problem_one_scale_below(simulate):
    """With a Gaussian PSF the blur one scale below is that Gaussian in low-resolution pixels, and nothing is left
    that its predictors could explain."""
    bands, guide_bands, grid = PAN
    scene, _, model = simulate(bands, guide_bands, grid)
    noisy = jnp.asarray(scene + 0.02 * np.random.default_rng(0).standard_normal(scene.shape), jnp.float32)
    observation = model(noisy)
    lr, gamma = observation["lr"], jitted(gains)(observation, model)
    assert gamma.shape == (2, 5, 4)
    low = SpatialResponse(gaussian_psf(4 / 2.355, Grid(4, (0, 0))), 1)(lr)
    predictors = np.concatenate([low, degrade(observation["guide"], model)], -1).reshape(2, -1, 5)
    wanted = np.asarray(lr - low).reshape(2, -1, 4)
    for x, y, g in zip(predictors, wanted, np.asarray(gamma), strict=True):
        best = np.linalg.lstsq(x.astype(np.float64), y.astype(np.float64), rcond=None)[0]
        misfit, least = (np.linalg.norm(y - x @ c) for c in (g, best))
        assert misfit < 1.01 * least < 0.7 * np.linalg.norm(y)
    expanded = jitted(interp23)(observation, model)
    stack = np.concatenate([expanded, observation["guide"]], -1)
    expected = expanded + np.einsum("nhwi,nio->nhwo", stack, gamma)
    np.testing.assert_allclose(jitted(bdsd)(observation, model), expected, atol=1e-4)


def test_hysure_lowers_its_objective_to_a_minimum(simulate):
    _, observation, model = simulate(6, 2, Grid(3, (1.0, 0.5)), batch=1, size=24)
    scale = observation["lr"].max()
    lr, guide = (observation[key][0] / scale for key in ("lr", "guide"))
    spectra = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (4, 6)), jnp.float32)
    weights, response = model["guide"].srf, model["lr"]

    @jax.jit
    def objective(a: jax.Array) -> jax.Array:
        misfit = jnp.sum((lr - response(a @ spectra)) ** 2)
        misfit += GUIDE_WEIGHT * jnp.sum((guide - a @ spectra @ weights.T) ** 2)
        down, along = differences(a)
        return misfit / 2 + TV_WEIGHT * jnp.sum(jnp.sqrt(jnp.sum(down**2 + along**2, axis=-1)))

    solve = jax.jit(lambda steps: abundances(lr, guide, spectra, weights, response, steps))
    values = [float(objective(solve(steps))) for steps in (5, 20, 80, 400)]
    assert values == sorted(values, reverse=True)
    best = solve(1000)
    assert values[-1] < 1.1 * float(objective(best))
    for seed in range(3):
        step = jax.random.normal(jax.random.key(seed), best.shape)
        assert float(objective(best + 1e-2 * step)) > float(objective(best))


def dense(operator, shape: tuple[int, ...]) -> np.ndarray:
    size = int(np.prod(shape))
    basis = jnp.eye(size).reshape(size, *shape)
    return np.asarray(jax.vmap(operator)(basis).reshape(size, -1).T, np.float64)


def test_fuse_is_the_gaussian_posterior_mean():
    """Against the normal equations of its three terms, solved densely in float64."""
    rng = np.random.default_rng(0)
    grid = Grid(2, (0.5, 1.0))
    response = SpatialResponse(gaussian_psf(0.9, grid), 2, grid.phase, "circular")
    mixing, factor = rng.standard_normal((2, 3)), rng.standard_normal((3, 3))
    covariance, guide_variance, lr_variance = factor @ factor.T + 0.1 * np.eye(3), np.array([0.02, 0.05]), 0.01
    lr, guide, mean = (rng.standard_normal(shape) for shape in ((5, 6, 3), (10, 12, 2), (10, 12, 3)))

    spatial = dense(response, (10, 12, 3))
    spectral = np.kron(np.eye(120), mixing)
    precision = np.kron(np.eye(120), np.linalg.inv(covariance))
    weight = np.tile(1 / guide_variance, 120)
    normal = spatial.T @ spatial / lr_variance + spectral.T * weight @ spectral + precision
    right = spatial.T @ lr.ravel() / lr_variance + spectral.T @ (weight * guide.ravel()) + precision @ mean.ravel()
    expected = np.linalg.solve(normal, right).reshape(10, 12, 3)

    arrays = (jnp.asarray(x, jnp.float32) for x in (lr, guide, mean, covariance, mixing))
    noise = jnp.float32(lr_variance), jnp.asarray(guide_variance, jnp.float32)
    product = jax.jit(posterior_mean)(*arrays, response, *noise)
    assert np.abs(product - expected).max() < 2e-4 * np.abs(expected).max()


def test_noise_variance(simulate):
    _, observation, model = simulate(4, 2, Grid.nested(3))
    guide = observation["guide"]
    energy = np.mean(np.asarray(guide) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(noise_variance(observation, model, "guide"), np.outer(energy, [1e-4, 1e-4]), rtol=1e-5)
    known = model.replace(noise={"guide": jnp.asarray([0.1, 0.0])})
    expected = np.stack([[0.01, 0.01], 1e-7 * energy], axis=1)
    np.testing.assert_allclose(noise_variance(observation, known, "guide"), expected, rtol=1e-5)
