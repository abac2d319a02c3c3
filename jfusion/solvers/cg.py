"""Conjugate gradients for symmetric positive definite systems over images."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jfusion.errors import InputError
from jfusion.solvers.gradient import check_steps

DIVERGED = 100.0
"""Times its least value at which a residual counts as that of a singular system which no longer gets any better."""


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
    best: Array
    lowest: Array
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
        x = s.x + length * s.direction
        return _State(
            x,
            residual,
            jnp.where(active, residual + momentum * s.direction, s.direction),
            energy,
            jnp.where(energy < s.lowest, x, s.best),
            jnp.minimum(energy, s.lowest),
            jnp.where(jnp.arange(steps + 1).reshape(-1, *(1,) * rhs.ndim) > s.iteration, energy, s.history),
            s.taken + active,
            s.iteration + 1,
        )

    energy = _inner(rhs, rhs)
    history = jnp.broadcast_to(energy, (steps + 1, *energy.shape))
    zeros, taken = jnp.zeros_like(rhs), jnp.zeros(energy.shape, jnp.int32)
    start = _State(zeros, rhs, rhs, energy, zeros, energy, history, taken, jnp.asarray(0, jnp.int32))
    end = jax.lax.while_loop(running, step, start)
    x = jnp.where(end.energy > DIVERGED**2 * end.lowest, end.best, end.x)
    return jnp.where(jnp.isfinite(energy), x, jnp.nan), (end.history, end.taken)


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

    Of a singular ``A`` the solution is one that differs least from the start. Where ``rhs`` is not quite in its range,
    the iteration diverges in the end; what comes back is then the iterate of the least residual.

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
        The solution and its `Convergence`; nan for a system whose right-hand side or first guess is not finite.

    Raises:
        InputError: no step is allowed, or the tolerance is not positive.

    Hestenes, Stiefel, "Methods of conjugate gradients for solving linear systems", J. Res. NBS 49(6), 1952.
    """
    check_steps(steps)
    if not tolerance > 0:
        raise InputError(f"the tolerance must be positive, but is {tolerance}; use 1e-6 in float32, 1e-12 in float64.")
    # the scale travels beside the right-hand side, with zeros for tangents, so that these stop by a scale of their own
    scale = jax.lax.stop_gradient(_inner(rhs, rhs)) + 0 * _inner(rhs, rhs)

    def solve(_: object, b: tuple[Array, Array]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        rhs, scale = b
        x, aux = _iterate(operator, rhs, tolerance**2 * jnp.where(scale > 0, scale, _inner(rhs, rhs)), steps)
        return (x, scale), aux

    def solve_cotangent(_: object, b: tuple[Array, Array]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        rhs, scale = b
        goal = tolerance**2 * _inner(rhs, rhs)
        if shift is None:
            x, aux = _iterate(operator, rhs, goal, steps)
            return (x, scale), aux
        guess = rhs / shift
        correction, aux = _iterate(operator, rhs - operator(guess), goal, steps)
        return (guess + correction, scale), aux

    start = None if start is None else jax.lax.stop_gradient(start)
    residual = rhs if start is None else rhs - operator(start)
    (x, _), (history, taken) = jax.lax.custom_linear_solve(
        lambda x: (operator(x[0]), x[1]), (residual, scale), solve, solve_cotangent, symmetric=True, has_aux=True
    )
    residuals = jnp.sqrt(history / jnp.where(scale > 0, scale, 1))[..., 0, 0, 0]
    return x if start is None else start + x, Convergence(jax.lax.stop_gradient(residuals), taken[..., 0, 0, 0])
