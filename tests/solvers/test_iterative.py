"""Gradient methods, ADMM and half-quadratic splitting against dense and independent solvers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize, nnls

from jfusion.errors import InputError
from jfusion.operators import Grid, Identity, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from jfusion.solvers import (
    Term,
    admm,
    fuse_closed_form,
    gradient_descent,
    half_quadratic_splitting,
    least_squares_update,
    proximal_gradient,
    soft_threshold,
)

RNG = np.random.default_rng(0)
MATRIX = RNG.standard_normal((12, 8)) + np.eye(12, 8) * 3
Y = RNG.standard_normal(12)
MIX = SpectralResponse(jnp.asarray(MATRIX, jnp.float32))
DATA = jnp.asarray(Y, jnp.float32).reshape(1, 1, 12)
ZERO = jnp.zeros((1, 1, 8))
STEP = float(1 / np.linalg.norm(MATRIX, 2) ** 2)
WEIGHT = 2.0


def gradient(x):
    return MIX.T(MIX(x) - DATA)


def lasso(x):
    return 0.5 * jnp.sum((MIX(x) - DATA) ** 2) + WEIGHT * jnp.sum(jnp.abs(x))


def lasso_solution():
    # split into positive and negative parts: a smooth problem with bounds
    def value(z):
        x = z[:8] - z[8:]
        slope = MATRIX.T @ (MATRIX @ x - Y)
        return 0.5 * np.sum((MATRIX @ x - Y) ** 2) + WEIGHT * z.sum(), np.concatenate([slope, -slope]) + WEIGHT

    found = minimize(value, np.zeros(16), jac=True, bounds=[(0, None)] * 16, options={"ftol": 1e-15, "gtol": 1e-9})
    return found.x[:8] - found.x[8:]


def l1(x, t):
    return soft_threshold(x, WEIGHT * t)


def nonnegative(x, t):
    return jnp.maximum(x, 0)


def test_gradient_descent_reaches_least_squares():
    x = gradient_descent(gradient, ZERO, STEP, 2000)
    np.testing.assert_allclose(x.ravel(), np.linalg.lstsq(MATRIX, Y, rcond=None)[0], atol=1e-4)


def test_ista_never_goes_up_and_fista_is_faster():
    plain, slow = proximal_gradient(gradient, l1, ZERO, STEP, 60, accelerate=False, objective=lasso)
    _, fast = proximal_gradient(gradient, l1, ZERO, STEP, 60, objective=lasso)
    assert np.all(np.diff(slow) <= 1e-5)
    best = lasso(jnp.asarray(lasso_solution(), jnp.float32))
    assert abs(fast[30] - best) < abs(slow[30] - best)
    assert lasso(plain) == pytest.approx(float(slow[-1]), rel=1e-6)


@pytest.mark.parametrize("accelerate", [False, True])
def test_proximal_gradient_solves_lasso(accelerate):
    solve = jax.jit(partial(proximal_gradient, gradient, l1, step=STEP, steps=1500, accelerate=accelerate))
    x, moves = solve(start=ZERO)
    expected = lasso_solution()
    np.testing.assert_allclose(x.ravel(), expected, atol=1e-4)
    assert np.any(expected == 0) or np.any(np.abs(expected) < 1e-6)
    assert moves.shape == (1500,)
    assert moves[-1] < 1e-3 * moves[0]


def test_proximal_gradient_solves_nonnegative_least_squares():
    x, _ = proximal_gradient(gradient, nonnegative, ZERO, STEP, 1500)
    np.testing.assert_allclose(x.ravel(), nnls(MATRIX, Y)[0], atol=1e-4)


def test_admm_solves_lasso_with_a_constraint_on_a_mixture():
    rows = np.abs(RNG.standard_normal((3, 8)))
    terms = [Term(Identity(), l1), Term(SpectralResponse(jnp.asarray(rows, jnp.float32)), nonnegative)]
    update = least_squares_update([(MIX, DATA)], terms, 3.0)
    x, gaps = jax.jit(lambda start: admm(update, terms, start, 3.0, 300))(ZERO)

    def value(z):
        return 0.5 * np.sum((MATRIX @ (z[:8] - z[8:]) - Y) ** 2) + WEIGHT * z.sum()

    constraint = {"type": "ineq", "fun": lambda z: rows @ (z[:8] - z[8:])}
    found = minimize(
        value,
        np.full(16, 0.1),
        bounds=[(0, None)] * 16,
        constraints=constraint,
        options={"ftol": 1e-12, "maxiter": 999},
    )
    np.testing.assert_allclose(x.ravel(), found.x[:8] - found.x[8:], atol=2e-3)
    assert gaps.primal.shape == gaps.dual.shape == (300,)
    assert gaps.primal[-1] < 1e-3 * gaps.primal[0]
    assert gaps.dual[-1] < 1e-3 * gaps.dual[0]


def fusion():
    grid = Grid.nested(2)
    spatial = SpatialResponse(gaussian_psf(0.9, grid), 2, grid.phase, "circular")
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(jnp.asarray([[0.2, 0.5, 0.3]]))}, grid)
    scene = jax.random.uniform(jax.random.key(0), (1, 8, 6, 3))
    return scene, model(scene), model


def test_half_quadratic_splitting_with_a_quadratic_prior_finds_the_ridge_solution():
    _, observation, model = fusion()
    shrink = 0.1

    def data(z, penalty):
        return fuse_closed_form(observation, model, z, penalty / 2)

    def prior(x, penalty):  # of shrink * |z|^2
        return x * penalty / (penalty + 2 * shrink)

    solve = jax.jit(lambda penalties: half_quadratic_splitting(data, prior, jnp.zeros((1, 8, 6, 3)), penalties))
    ridge = fuse_closed_form(observation, model, jnp.zeros((1, 8, 6, 3)), shrink)
    x = solve(jnp.geomspace(0.1, 300, 400))
    np.testing.assert_allclose(x, ridge, atol=5e-3)
    assert jnp.abs(solve(jnp.full(400, 0.1)) - ridge).max() > 2e-2


def test_steps_and_penalties_are_checked():
    with pytest.raises(InputError, match="at least 1 step"):
        gradient_descent(gradient, ZERO, STEP, 0)
    with pytest.raises(InputError, match="at least 1 step"):
        proximal_gradient(gradient, l1, ZERO, STEP, 0)
    with pytest.raises(InputError, match="penalties"):
        half_quadratic_splitting(lambda z, p: z, lambda x, p: x, ZERO, jnp.ones((2, 2)))
