"""Half-quadratic splitting: a data step and a denoiser take turns while the penalty that ties them grows."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import Array

from jfusion.errors import InputError

Step = Callable[[Array, Array], Array]
"""``step(image, penalty)``; the data step and the prior step have this form."""


def half_quadratic_splitting(data: Step, prior: Step, start: Array, penalties: Array) -> Array:
    """Minimises ``f(x) + g(x)`` through ``f(x) + g(z) + penalty / 2 * |x - z|^2`` with a growing penalty.

    Args:
        data: ``argmin_x f(x) + penalty / 2 * |x - z|^2`` from ``(z, penalty)``, such as `fuse_closed_form` with
            ``mu = penalty / 2``.
        prior: ``argmin_z g(z) + penalty / 2 * |z - x|^2`` from ``(x, penalty)``: a prox with step ``1 / penalty``, or
            any denoiser for noise of variance ``weight / penalty`` (plug and play).
        start: first z.
        penalties: one a step ``(steps,)``, usually ``jnp.geomspace(first, last, steps)``.

    Returns:
        The result of the last data step.

    Geman, Yang, "Nonlinear image recovery with half-quadratic regularization", TIP 4(7), 1995; Zhang et al.,
    "Plug-and-play image restoration with deep denoiser prior", TPAMI 44(10), 2022.
    """
    if penalties.ndim != 1 or penalties.shape[0] < 1:
        raise InputError(f"penalties must hold one penalty a step, (steps,), but have shape {penalties.shape}.")
    z = jax.lax.scan(lambda z, penalty: (prior(data(z, penalty), penalty), None), start, penalties[:-1])[0]
    return data(z, penalties[-1])
