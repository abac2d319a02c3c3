"""Gradient descent and (accelerated) proximal gradients."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jfusion.errors import InputError


def check_steps(steps: int) -> None:
    """Raises InputError unless ``steps`` is at least 1."""
    if steps < 1:
        raise InputError(f"a solver needs at least 1 step, but steps is {steps}.")


def gradient_descent(gradient: Callable[[Array], Array], start: Array, step: Array | float, steps: int) -> Array:
    """``x <- x - step * gradient(x)``, ``steps`` times.

    Args:
        gradient: of the smooth function to minimise.
        start: first x.
        step: at most one over the Lipschitz constant of ``gradient``, which is the squared `norm` of the operator
            for ``|A x - y|^2 / 2``.
        steps: number of steps.
    """
    check_steps(steps)
    return jax.lax.scan(lambda x, _: (x - step * gradient(x), None), start, length=steps)[0]


def proximal_gradient(
    gradient: Callable[[Array], Array],
    prox: Callable[[Array, Array | float], Array],
    start: Array,
    step: Array | float,
    steps: int,
    *,
    accelerate: bool = True,
    objective: Callable[[Array], Array] | None = None,
) -> tuple[Array, Array]:
    """Minimises ``f(x) + g(x)``, f smooth and g simple: FISTA, or ISTA without acceleration.

    Args:
        gradient: of f.
        prox: ``prox(x, t) = argmin_z g(z) + |z - x|^2 / (2 t)``.
        start: first x.
        step: at most one over the Lipschitz constant of ``gradient``.
        steps: number of steps.
        accelerate: FISTA's momentum; ISTA, which never increases the objective, where it is False.
        objective: evaluated after each step, for the second result.

    Returns:
        The last x, and ``(steps, ...)`` values of ``objective`` or, without it, of ``|x_k - x_(k-1)| / step``.

    Beck, Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear inverse problems", SIAM J. Imaging
    Sciences 2(1), 2009, eq. 4.1-4.3.
    """
    check_steps(steps)

    def iterate(state: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], Array]:
        x, point, t = state
        new = prox(point - step * gradient(point), step)
        following = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        momentum = (t - 1) / following if accelerate else 0.0
        value = jnp.linalg.norm((new - x).ravel()) / step if objective is None else objective(new)
        return (new, new + momentum * (new - x), following), value

    (x, _, _), values = jax.lax.scan(iterate, (start, start, jnp.ones((), start.dtype)), length=steps)
    return x, values
