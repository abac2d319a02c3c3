"""Conjugate gradients for symmetric positive definite systems over images."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jfusion.errors import InputError
from jfusion.solvers.gradient import check_steps


class Convergence(NamedTuple):
    """How a solve went, for every system of the batch.

    Attributes:
        residuals: ``|rhs - A x| / |rhs|`` before the first step and after each, ``(steps + 1, ...)``; after a system
            has stopped its last value is repeated.
        steps: number of steps that each system took, ``(...)``.
    """

    residuals: Array
    steps: Array


class _State(NamedTuple):
    x: Array
    residual: Array
    direction: Array
    energy: Array
    history: Array
    taken: Array
    iteration: Array


def _inner(a: Array, b: Array) -> Array:
    return jnp.sum(a * b, (-3, -2, -1), keepdims=True)


def _iterate(
    operator: Callable[[Array], Array], rhs: Array, goal: Array, steps: int
) -> tuple[Array, tuple[Array, Array]]:
    def running(s: _State) -> Array:
        return (s.iteration < steps) & jnp.any(s.energy > goal)

    def step(s: _State) -> _State:
        image = operator(s.direction)
        curvature = _inner(s.direction, image)
        active = (s.energy > goal) & (curvature > 0)
        length = jnp.where(active, s.energy / jnp.where(active, curvature, 1), 0)
        residual = s.residual - length * image
        energy = jnp.where(active, _inner(residual, residual), s.energy)
        momentum = energy / jnp.where(active, s.energy, 1)
        return _State(
            s.x + length * s.direction,
            residual,
            jnp.where(active, residual + momentum * s.direction, s.direction),
            energy,
            jnp.where(jnp.arange(steps + 1).reshape(-1, *(1,) * rhs.ndim) > s.iteration, energy, s.history),
            s.taken + active,
            s.iteration + 1,
        )

    energy = _inner(rhs, rhs)
    history = jnp.broadcast_to(energy, (steps + 1, *energy.shape))
    start = _State(
        jnp.zeros_like(rhs), rhs, rhs, energy, history, jnp.zeros(energy.shape, jnp.int32), jnp.asarray(0, jnp.int32)
    )
    end = jax.lax.while_loop(running, step, start)
    return end.x, (end.history, end.taken)


def conjugate_gradient(
    operator: Callable[[Array], Array],
    rhs: Array,
    start: Array | None = None,
    *,
    shift: Array | float | None = None,
    steps: int = 100,
    tolerance: float = 1e-6,
) -> tuple[Array, Convergence]:
    """Solves ``A x = rhs`` for a symmetric positive definite ``A``, each leading axis a system of its own.

    Differentiable in both modes in ``rhs`` and in whatever ``operator`` closes over: the derivative solves the same
    system once more, as far as the steps and the tolerance allow.

    Args:
        operator: applies ``A`` to ``(..., height, width, band)``, such as ``lambda x: H.T(H(x)) + mu * x``.
        rhs: right-hand side ``(..., height, width, band)``.
        start: first guess, of no effect on the derivative; zero where it is None.
        shift: m where ``A = B + m`` and B is singular, as in a proximal step. Cotangents g are then solved for from
            ``g / m``, which is exact where B sees nothing, and in few steps they would else be far off.
        steps: most steps that are taken.
        tolerance: a system stops when ``|rhs - A x| <= tolerance |rhs|``.

    Returns:
        The solution and its `Convergence`.

    Raises:
        InputError: no step is allowed, or the tolerance is not positive.

    Hestenes, Stiefel, "Methods of conjugate gradients for solving linear systems", J. Res. NBS 49(6), 1952.
    """
    check_steps(steps)
    if not tolerance > 0:
        raise InputError(f"the tolerance must be positive, but is {tolerance}; use 1e-6 in float32, 1e-12 in float64.")
    scale = _inner(rhs, rhs)

    def solve(_: object, b: Array) -> tuple[Array, tuple[Array, Array]]:
        return _iterate(operator, b, tolerance**2 * jax.lax.stop_gradient(scale), steps)

    def solve_cotangent(_: object, b: Array) -> tuple[Array, tuple[Array, Array]]:
        goal = tolerance**2 * _inner(b, b)
        if shift is None:
            return _iterate(operator, b, goal, steps)
        guess = b / shift
        correction, aux = _iterate(operator, b - operator(guess), goal, steps)
        return guess + correction, aux

    start = None if start is None else jax.lax.stop_gradient(start)
    residual = rhs if start is None else rhs - operator(start)
    x, (history, taken) = jax.lax.custom_linear_solve(
        operator, residual, solve, solve_cotangent, symmetric=True, has_aux=True
    )
    residuals = jnp.sqrt(history / jnp.where(scale > 0, scale, 1))[..., 0, 0, 0]
    return x if start is None else start + x, Convergence(jax.lax.stop_gradient(residuals), taken[..., 0, 0, 0])
