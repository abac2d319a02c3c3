"""Alternating direction method of multipliers for one quadratic and several simple terms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jfusion.operators import LinearOperator
from jfusion.solvers.cg import conjugate_gradient
from jfusion.solvers.gradient import check_steps

Update = Callable[[Array, list[Array]], Array]
"""``update(x, targets) = argmin_x f(x) + penalty / 2 * sum_i |K_i x - targets[i]|^2``, given the previous x."""


class Term(NamedTuple):
    """A term ``g(K x)``, known by its prox.

    Attributes:
        operator: K.
        prox: ``prox(v, t) = argmin_z g(z) + |z - v|^2 / (2 t)``.
    """

    operator: LinearOperator
    prox: Callable[[Array, Array | float], Array]


class Gaps(NamedTuple):
    """How far from a solution every step was, each ``(steps,)``.

    Attributes:
        primal: ``|K x - z|`` over all terms.
        dual: ``penalty * |K' (z - z_before)|`` over all terms.
    """

    primal: Array
    dual: Array


def _sum(parts: Iterable[Array]) -> Array:
    return reduce(jnp.add, parts)


def _norm(parts: Iterable[Array]) -> Array:
    return jnp.sqrt(_sum(jnp.sum(part**2) for part in parts))


def admm(update: Update, terms: Sequence[Term], start: Array, penalty: Array | float, steps: int) -> tuple[Array, Gaps]:
    """Minimises ``f(x) + sum_i g_i(K_i x)`` in the scaled form with one split a term.

    Args:
        update: the x-step, exact or inexact; `least_squares_update` makes one for a sum of squares.
        terms: the g_i and K_i.
        start: first x.
        penalty: of the augmented Lagrangian, positive.
        steps: number of steps.

    Returns:
        The last x and the `Gaps` of every step.

    Boyd et al., "Distributed optimization and statistical learning via ADMM", 2011, section 3; with several terms and
    a quadratic f it is SALSA: Afonso, Bioucas-Dias, Figueiredo, TIP 19(9), 2010.
    """
    check_steps(steps)

    def iterate(state: tuple[Array, list[Array], list[Array]], _: None) -> tuple[tuple, Gaps]:
        x, splits, duals = state
        x = update(x, [z - u for z, u in zip(splits, duals, strict=True)])
        images = [term.operator(x) for term in terms]
        new = [t.prox(v + u, 1 / penalty) for t, v, u in zip(terms, images, duals, strict=True)]
        gaps = [v - z for v, z in zip(images, new, strict=True)]
        moved = _sum(t.operator.T(z - old) for t, z, old in zip(terms, new, splits, strict=True))
        duals = [u + gap for u, gap in zip(duals, gaps, strict=True)]
        return (x, new, duals), Gaps(_norm(gaps), penalty * _norm([moved]))

    splits = [term.operator(start) for term in terms]
    (x, _, _), gaps = jax.lax.scan(iterate, (start, splits, [jnp.zeros_like(z) for z in splits]), length=steps)
    return x, gaps


def least_squares_update(
    data: Sequence[tuple[LinearOperator, Array]],
    terms: Sequence[Term],
    penalty: Array | float,
    *,
    steps: int = 30,
    tolerance: float = 1e-6,
) -> Update:
    """The x-step for ``f(x) = 1/2 sum_k |A_k x - y_k|^2``, by conjugate gradients from the previous x.

    Args:
        data: pairs (A_k, y_k).
        terms: as given to `admm`.
        penalty: as given to `admm`.
        steps: most steps of conjugate gradients in one update.
        tolerance: of conjugate gradients.
    """
    gradient = _sum(operator.T(y) for operator, y in data)

    def normal(x: Array) -> Array:
        fit = _sum(operator.T(operator(x)) for operator, _ in data)
        return fit + penalty * _sum(term.operator.T(term.operator(x)) for term in terms)

    def update(x: Array, targets: list[Array]) -> Array:
        pull = _sum(term.operator.T(v) for term, v in zip(terms, targets, strict=True))
        return conjugate_gradient(normal, gradient + penalty * pull, x, steps=steps, tolerance=tolerance)[0]

    return update
