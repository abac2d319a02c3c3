"""The closed form of the fusion problem against dense solves, in float32 and float64."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.errors import InputError
from jfusion.operators import (
    BlockAverage,
    Blur,
    Grid,
    ObservationModel,
    SpatialResponse,
    SpectralResponse,
    gaussian_psf,
    upsample,
)
from jfusion.solvers import conjugate_gradient, fuse_closed_form

RNG = np.random.default_rng(0)
KERNEL = RNG.random((2, 3)) / 3
PROFILES = (np.array([0.2, 0.5, 0.3]), np.array([0.1, 0.6, 0.2, 0.1]))


def response(psf, ratio, phase):
    return SpatialResponse(jax.tree.map(jnp.asarray, psf), ratio, phase, "circular")


# name: (H, low-resolution size, bands, guide bands, basis size, mu, weights)
CASES = {
    "pansharpening": (lambda: response(KERNEL, 2, (0, 0)), (3, 5), 4, 1, None, 0.1, (1.0, 1.0)),
    "rectangular, other phase": (lambda: response(KERNEL, 2, (1, 0)), (5, 3), 5, 3, None, 0.1, (1.0, 1.0)),
    "separable, ratio 3": (lambda: response(PROFILES, 3, (2, 1)), (2, 3), 4, 2, None, 0.1, (1.0, 1.0)),
    "weights": (lambda: response(KERNEL, 2, (1, 1)), (3, 3), 4, 2, None, 0.2, (3.0, np.array([0.5, 2.0]))),
    "basis that is not orthonormal": (lambda: response(KERNEL, 2, (0, 1)), (3, 4), 6, 2, 3, 0.1, (2.0, 1.0)),
    "more guide bands than components": (lambda: response(KERNEL, 2, (0, 1)), (3, 3), 6, 4, 2, 0.1, (1.0, 1.0)),
    "ratio 1": (lambda: response(KERNEL, 1, (0, 0)), (5, 6), 3, 2, None, 0.1, (1.0, 1.0)),
    "block average": (lambda: BlockAverage(2), (3, 3), 4, 2, None, 0.1, (1.0, 1.0)),
    "without guide": (lambda: response(KERNEL, 2, (1, 0)), (3, 4), 2, 0, None, 0.1, (1.0, 1.0)),
}


def dense(operator, shape):
    """Matrix of an operator on one band."""
    size = shape[0] * shape[1]
    basis = jnp.eye(size).reshape(size, *shape, 1)
    return np.asarray(operator(basis), np.float64).reshape(size, -1).T


def problem(name):
    make, size, bands, guide_bands, components, mu, weights = CASES[name]
    rng = np.random.default_rng(1)
    operator = make()
    height, width = (n * operator.ratio for n in size)
    srf = rng.random((guide_bands, bands))
    observation = {"lr": rng.random((2, *size, bands)), "guide": rng.random((2, height, width, guide_bands))}
    prior = rng.random((2, height, width, components or bands))
    basis = None if components is None else rng.standard_normal((bands, components))
    if not guide_bands:
        del observation["guide"]

    h, e = dense(operator, (height, width)), np.eye(bands) if basis is None else basis
    a, b = weights
    r, b = srf @ e, np.broadcast_to(b, guide_bands)
    pixels = np.eye(height * width)
    gram = e.T @ e
    matrix = a * np.kron(h.T @ h, gram) + np.kron(pixels, r.T @ (b[:, None] * r) + mu * gram)
    solutions = []
    for i in range(2):
        rhs = a * h.T @ observation["lr"][i].reshape(-1, bands) @ e + mu * prior[i].reshape(len(pixels), -1) @ gram
        if guide_bands:
            rhs += (observation["guide"][i].reshape(-1, guide_bands) * b) @ r
        solutions.append(np.linalg.solve(matrix, rhs.ravel()).reshape(prior[i].shape))

    model = ObservationModel({"lr": operator, "guide": SpectralResponse(jnp.asarray(srf))}, Grid.nested(operator.ratio))

    def solve(dtype):
        cast = partial(jax.tree.map, lambda v: jnp.asarray(v, dtype))
        x = jax.jit(fuse_closed_form)(
            cast(observation), cast(model), cast(prior), mu, basis=cast(basis), weights=cast(weights)
        )
        assert x.dtype == dtype
        return np.asarray(x)

    return solve, np.stack(solutions)


@pytest.mark.parametrize("name", CASES)
def test_equals_dense_solve(name):
    with jax.enable_x64(True):
        solve, expected = problem(name)
        assert np.linalg.norm(solve(jnp.float64) - expected) <= 1e-12 * np.linalg.norm(expected)
    if name in ("pansharpening", "basis that is not orthonormal"):
        assert np.linalg.norm(solve(jnp.float32) - expected) <= 1e-5 * np.linalg.norm(expected)


def pair(ratio=2, phase=(0, 1), boundary="circular", batch=2, size=(4, 5), bands=5, srf=None):
    key = jax.random.key(0)
    scene = jax.random.uniform(key, (batch, size[0] * ratio, size[1] * ratio, bands))
    srf = jnp.asarray(np.random.default_rng(3).dirichlet(np.ones(bands), 2), jnp.float32) if srf is None else srf
    grid = Grid(ratio, tuple(map(float, phase)))
    spatial = SpatialResponse(gaussian_psf(0.5 * ratio, grid), ratio, phase, boundary)
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(srf)}, grid)
    return scene, model(scene), model


@pytest.mark.parametrize("phase", [(0, 0), (1, 0), (1, 2)])
def test_normal_equations_hold_at_phases_of_ratio_3(phase):
    scene, observation, model = pair(3, phase, size=(3, 2))
    prior, mu = scene[::-1], 0.05

    @jax.jit
    def gradient(model):
        x = fuse_closed_form(observation, model, prior, mu)
        return mu * (x - prior) + sum(model[key].T(model[key](x) - y) for key, y in observation.items())

    assert jnp.linalg.norm(gradient(model).ravel()) < 1e-5 * jnp.linalg.norm((mu * prior).ravel())


def test_small_mu_costs_no_accuracy_in_float32():
    scene, observation, model = pair()
    solve = jax.jit(fuse_closed_form)
    single = solve(observation, model, scene[::-1], 1e-6)
    with jax.enable_x64(True):
        double = jax.tree.map(lambda v: v.astype(jnp.float64), (observation, model, scene[::-1]))
        exact = np.asarray(solve(*double, 1e-6))
    assert np.linalg.norm(single - exact) < 1e-5 * np.linalg.norm(exact)


def test_batch_equals_one_by_one_and_jit_equals_eager():
    scene, observation, model = pair()
    together = fuse_closed_form(observation, model, scene[::-1], 0.01)
    solve = jax.jit(fuse_closed_form)
    for i in range(2):
        alone = solve({k: v[i] for k, v in observation.items()}, model, scene[1 - i], 0.01)
        np.testing.assert_allclose(together[i], alone, atol=1e-6)
        # a scene that explains everything is its own solution
        same = solve({k: v[i] for k, v in observation.items()}, model, scene[i], 0.01)
        np.testing.assert_allclose(same, scene[i], atol=1e-6)


def test_derivatives_are_right_where_eigenvalues_coincide():
    # rows of equal length without overlap: R R' is a multiple of the identity
    srf = jnp.asarray([[0.5, 0.5, 0, 0, 0], [0, 0, 0.5, 0.5, 0]], jnp.float32)
    with jax.enable_x64(True):
        _, observation, model = pair(batch=1, size=(3, 2), srf=srf)
        observation, model = jax.tree.map(lambda v: v.astype(jnp.float64), (observation, model))
        prior = jax.random.uniform(jax.random.key(5), (1, 6, 4, 5), jnp.float64)
        probe = jax.random.normal(jax.random.key(6), prior.shape, jnp.float64)

        def loss(model, mu):
            return jnp.sum(probe * fuse_closed_form(observation, model, prior, mu) ** 2)

        arguments = (model, jnp.asarray(0.2))
        gradient = jax.jit(jax.grad(loss, (0, 1)))(*arguments)
        rng = np.random.default_rng(7)
        direction = jax.tree.map(lambda v: jnp.asarray(rng.standard_normal(v.shape)), arguments)
        loss = jax.jit(loss)
        step = 1e-6
        ahead, behind = (
            float(loss(*jax.tree.map(lambda v, d, s=s: v + s * step * d, arguments, direction))) for s in (1, -1)
        )
        slope = sum(float(jnp.vdot(g, d)) for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
        assert slope == pytest.approx((ahead - behind) / (2 * step), rel=1e-6)


def test_reflecting_boundary_costs_little_and_only_near_the_border():
    _, _, model = pair(2, (0, 0), "reflect")
    scene = upsample(jax.random.uniform(jax.random.key(1), (1, 6, 6, 5)), Grid.nested(4))
    observation = model(scene)
    prior, mu = upsample(observation["lr"], model.grid), 1e-2

    def normal(x):
        return sum(model[key].T(model[key](x)) for key in observation) + mu * x

    rhs = sum(model[key].T(y) for key, y in observation.items()) + mu * prior
    exact, info = conjugate_gradient(normal, rhs, prior, steps=200, tolerance=1e-6)
    assert info.residuals[-1, 0] < 1e-5
    solve = jax.jit(fuse_closed_form)
    error = jnp.abs(solve(observation, model, prior, mu) - exact)
    circular = dataclasses.replace(model["lr"], boundary="circular")
    wrapped = model.replace(operators={**model.operators, "lr": circular})
    wrapped = jnp.abs(solve(observation, wrapped, prior, mu) - exact)
    assert error[:, 8:-8, 8:-8].max() < 0.02 * jnp.abs(exact - prior).max()
    assert jnp.sum(error**2) < 0.1 * jnp.sum(wrapped**2)


def test_refuses_what_it_does_not_cover():
    scene, observation, model = pair(batch=1)

    def solve(prior=scene, guide=observation["guide"], basis=None, **operators):
        changed = model.replace(operators={**model.operators, **operators})
        return fuse_closed_form({**observation, "guide": guide}, changed, prior, 0.1, basis=basis)

    per_band = jnp.ones((3, 3, 5)) / 9
    with pytest.raises(InputError, match="one PSF for all bands"):
        solve(lr=SpatialResponse(per_band, 2, (0, 0), "circular"))
    with pytest.raises(InputError, match="one PSF for all bands"):
        solve(lr=SpatialResponse((per_band[0], per_band[1]), 2, (0, 0), "circular"))
    with pytest.raises(InputError, match="conjugate_gradient"):
        solve(lr=Blur(jnp.ones((3, 3)) / 9))
    with pytest.raises(InputError, match="conjugate_gradient"):
        solve(lr=SpatialResponse(jnp.ones((3, 3)) / 9, 2, (0, 0), "valid"))
    with pytest.raises(InputError, match="SpectralResponse"):
        fuse_closed_form(observation, model.replace(operators={**model.operators, "guide": Blur(per_band)}), scene, 0.1)
    with pytest.raises(InputError, match="the guide must have"):
        solve(guide=observation["guide"][..., :1])
    with pytest.raises(InputError, match="the basis must have 5 rows"):
        solve(basis=jnp.ones((4, 2)))
    with pytest.raises(InputError, match="the prior must have"):
        solve(prior=scene[:, ::2])
