"""How an observation is inverted: pure functions over operators and callables."""

from jfusion.solvers.admm import Gaps, Term, admm, least_squares_update
from jfusion.solvers.cg import Convergence, conjugate_gradient
from jfusion.solvers.gradient import gradient_descent, proximal_gradient
from jfusion.solvers.hqs import half_quadratic_splitting
from jfusion.solvers.prox import group_soft_threshold, project_box, project_simplex, soft_threshold
from jfusion.solvers.sylvester import fuse_closed_form

__all__ = [
    "Convergence",
    "Gaps",
    "Term",
    "admm",
    "conjugate_gradient",
    "fuse_closed_form",
    "gradient_descent",
    "group_soft_threshold",
    "half_quadratic_splitting",
    "least_squares_update",
    "project_box",
    "project_simplex",
    "proximal_gradient",
    "soft_threshold",
]
