"""Conjugate gradients against dense solves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.errors import InputError
from jfusion.operators import SpatialResponse
from jfusion.solvers import conjugate_gradient

SHAPE = (4, 3, 2)


def dense(seed=0, size=24, condition=10.0):
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.standard_normal((size, size)))
    return q * np.geomspace(1, condition, size) @ q.T


def as_operator(matrix):
    matrix = jnp.asarray(matrix)
    return lambda x: (x.reshape(*x.shape[:-3], -1) @ matrix.astype(x.dtype).T).reshape(x.shape)


def test_equals_dense_solve_and_reports_true_residuals():
    matrix = dense()
    rhs = np.random.default_rng(1).standard_normal(SHAPE)
    with jax.enable_x64(True):
        operator = as_operator(matrix)
        x, info = conjugate_gradient(operator, jnp.asarray(rhs), steps=60, tolerance=1e-12)
        np.testing.assert_allclose(x.ravel(), np.linalg.solve(matrix, rhs.ravel()), rtol=1e-10)
        residual = float(jnp.linalg.norm((rhs - operator(x)).ravel())) / np.linalg.norm(rhs)
    residuals = np.asarray(info.residuals)
    assert residuals.shape == (61,)
    assert residuals[0] == pytest.approx(1)
    assert residuals[-1] == pytest.approx(residual, abs=1e-13)
    assert residuals[-1] <= 1e-12
    assert 1 < info.steps < 60


def test_is_exact_after_as_many_steps_as_distinct_eigenvalues():
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((24, 24)))
    matrix = q * np.repeat([1.0, 2.0, 5.0, 9.0], 6) @ q.T
    rhs = np.random.default_rng(1).standard_normal(SHAPE)
    with jax.enable_x64(True):
        _, info = conjugate_gradient(as_operator(matrix), jnp.asarray(rhs), steps=10, tolerance=1e-12)
    assert info.steps == 4
    assert np.asarray(info.residuals)[3] > 1e-3


def test_each_image_of_a_batch_stops_by_itself():
    operator = as_operator(dense(condition=30))
    rhs = jnp.asarray(np.random.default_rng(1).standard_normal((3, *SHAPE)), jnp.float32)
    rhs = rhs.at[1].set(0).at[2].set(operator(operator(rhs[2])))
    solve = jax.jit(lambda b: conjugate_gradient(operator, b, steps=40, tolerance=1e-4))
    x, info = solve(rhs)
    assert x.shape == rhs.shape
    assert info.steps.shape == (3,)
    assert info.residuals.shape == (41, 3)
    assert info.steps[1] == 0
    assert not np.any(x[1])
    for i in range(3):
        alone, single = solve(rhs[i])
        np.testing.assert_allclose(x[i], alone, atol=1e-3)
        assert info.steps[i] == single.steps
    assert info.steps[0] != info.steps[2]


def test_a_good_start_saves_steps_and_does_not_change_the_solution():
    matrix = dense(condition=30)
    operator = as_operator(matrix)
    rhs = jnp.asarray(np.random.default_rng(1).standard_normal(SHAPE), jnp.float32)
    cold, info = conjugate_gradient(operator, rhs, tolerance=1e-5)
    warm, again = conjugate_gradient(operator, rhs, cold, tolerance=1e-4)
    assert again.steps == 0
    assert again.residuals[0] < 1e-4
    assert info.steps > 5
    np.testing.assert_array_equal(warm, cold)


def test_derivative_is_that_of_the_exact_solution():
    with jax.enable_x64(True):
        rng = np.random.default_rng(2)
        rhs, probe, start = (jnp.asarray(rng.standard_normal(SHAPE)) for _ in range(3))
        psf = jnp.asarray(rng.random((3, 3))) / 4.5

        def loss(psf, mu, rhs):
            response = SpatialResponse(psf, 1, (0, 0), "circular")
            x, _ = conjugate_gradient(
                lambda x: response.T(response(x)) + mu * x, rhs, start, steps=100, tolerance=1e-13
            )
            return jnp.sum(probe * x)

        arguments = (psf, jnp.asarray(0.5), rhs)
        gradients = jax.jit(jax.grad(loss, (0, 1, 2)))(*arguments)
        loss = jax.jit(loss)
        for k, gradient in enumerate(gradients):
            direction = jnp.asarray(rng.standard_normal(gradient.shape))
            shifted = [[*arguments[:k], arguments[k] + s * 1e-5 * direction, *arguments[k + 1 :]] for s in (1, -1)]
            slope = (loss(*shifted[0]) - loss(*shifted[1])) / 2e-5
            assert float(jnp.sum(gradient * direction)) == pytest.approx(float(slope), rel=1e-6)


def test_tangents_stop_by_their_own_scale():
    operator = as_operator(dense(condition=30))
    rhs, way = (jnp.asarray(np.random.default_rng(k).standard_normal(SHAPE), jnp.float32) for k in (3, 4))
    solve = jax.jit(lambda b: conjugate_gradient(operator, b, tolerance=1e-4)[0])
    tangents = [jax.jvp(solve, (rhs,), (s * way,))[1] / s for s in (1.0, 1e-4, 1e4)]
    for tangent in tangents:
        np.testing.assert_allclose(operator(tangent), way, atol=1e-3)


def test_a_singular_system_out_of_range_gives_the_iterate_of_the_least_residual():
    keep = jnp.asarray(np.random.default_rng(5).uniform(0.1, 1, SHAPE), jnp.float32).at[0].set(0)
    rhs = keep + 1e-3 * (keep == 0)
    x, info = conjugate_gradient(lambda x: keep * x, rhs, steps=200, tolerance=1e-6)
    assert info.residuals[-1] > 1
    np.testing.assert_allclose(jnp.where(keep > 0, x, 1), 1, atol=0.02)
    assert jnp.abs(x).max() < 2


def test_what_is_not_finite_is_told_and_kept_to_its_system():
    operator = as_operator(dense(condition=30))
    rhs = jnp.ones((2, *SHAPE)).at[1, 0, 0, 0].set(jnp.nan)
    x, _ = jax.jit(lambda b: conjugate_gradient(operator, b))(rhs)
    assert np.isfinite(x[0]).all()
    assert np.isnan(x[1]).all()


@pytest.mark.parametrize(
    ("wrong", "said"), [({"tolerance": 0.0}, "tolerance"), ({"tolerance": -1.0}, "tolerance"), ({"steps": 0}, "step")]
)
def test_refuses_senseless_settings(wrong, said):
    with pytest.raises(InputError, match=said):
        conjugate_gradient(lambda x: x, jnp.ones(SHAPE), **wrong)
