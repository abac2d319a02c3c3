"""Proximal maps against their definition and against independent solvers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from jfusion.solvers import group_soft_threshold, project_box, project_simplex, soft_threshold

X = np.random.default_rng(0).standard_normal((3, 4, 6)).astype(np.float32)
PROXES = {
    "l1": (lambda x, t: soft_threshold(x, t), lambda z: np.abs(z).sum()),
    "group": (lambda x, t: group_soft_threshold(x, t), lambda z: np.linalg.norm(z, axis=-1).sum()),
}


@pytest.mark.parametrize("name", PROXES)
@pytest.mark.parametrize("t", [0.1, 0.7, 5.0])
def test_prox_minimises_its_objective(name, t):
    prox, penalty = PROXES[name]
    rng = np.random.default_rng(1)
    z = np.asarray(prox(jnp.asarray(X), t), np.float64)

    def objective(v):
        return t * penalty(v) + 0.5 * np.sum((v - X) ** 2)

    best = objective(z)
    for scale in (1e-3, 1e-2, 1e-1, 1):
        for _ in range(20):
            other = z + scale * rng.standard_normal(z.shape)
            # strongly convex with modulus one
            assert objective(other) >= best + 0.5 * np.sum((other - z) ** 2) - 1e-4


def test_thresholds_shrink_to_exact_zero():
    assert not np.any(soft_threshold(jnp.asarray(X), 10.0))
    assert not np.any(group_soft_threshold(jnp.asarray(X), 20.0))
    np.testing.assert_array_equal(soft_threshold(jnp.asarray(X), 0.0), X)
    np.testing.assert_array_equal(group_soft_threshold(jnp.asarray(X), 0.0), X)


def test_groups_of_one_entry_are_plain_soft_threshold():
    x = jnp.asarray(X)[..., None]
    np.testing.assert_allclose(group_soft_threshold(x, 0.4), soft_threshold(x, 0.4), atol=1e-6)


def test_group_axes_may_be_several():
    joint = group_soft_threshold(jnp.asarray(X), 0.4, axis=(0, 2))
    flat = group_soft_threshold(jnp.asarray(X).transpose(1, 0, 2).reshape(4, 18), 0.4)
    np.testing.assert_allclose(joint.transpose(1, 0, 2).reshape(4, 18), flat, atol=1e-6)


@pytest.mark.parametrize("total", [1.0, 3.0])
def test_simplex_projection_equals_quadratic_programme(total):
    x = X[0].astype(np.float64)
    projected = np.asarray(project_simplex(jnp.asarray(X[0]), total))
    for row, ours in zip(x, projected, strict=True):
        found = minimize(
            lambda z, row=row: np.sum((z - row) ** 2),
            np.full(6, total / 6),
            jac=lambda z, row=row: 2 * (z - row),
            bounds=[(0, None)] * 6,
            constraints={"type": "eq", "fun": lambda z: z.sum() - total, "jac": np.ones_like},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(ours, found.x, atol=1e-5)


def test_simplex_projection_leaves_its_points_and_takes_any_axis():
    inside = jnp.asarray(np.random.default_rng(2).dirichlet(np.ones(6), (3, 4)), jnp.float32)
    np.testing.assert_allclose(project_simplex(inside), inside, atol=1e-6)
    np.testing.assert_allclose(
        project_simplex(jnp.asarray(X), axis=1), jnp.swapaxes(project_simplex(jnp.swapaxes(X, 1, 2)), 1, 2), atol=1e-6
    )


def test_projections_are_differentiable_where_norms_vanish():
    zero = jnp.zeros((2, 3))
    assert np.all(np.isfinite(jax.grad(lambda x: group_soft_threshold(x, 0.5).sum())(zero)))
    assert np.all(np.isfinite(jax.grad(lambda x: project_simplex(x)[0, 0])(zero)))


def test_box():
    np.testing.assert_array_equal(project_box(jnp.array([-1.0, 0.5, 2.0])), jnp.array([0.0, 0.5, 1.0]))
    np.testing.assert_array_equal(project_box(jnp.array([-3.0, 3.0]), -2, 2.5), jnp.array([-2.0, 2.5]))


def test_simplex_projection_of_large_numbers():
    np.testing.assert_array_equal(project_simplex(jnp.array([3e7, 1.0, 2.0])), [1, 0, 0])
