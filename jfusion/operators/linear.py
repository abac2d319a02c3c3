"""The linear operator: what every sensor, and every part of a sensor, is made of."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jfusion.errors import InputError

C = TypeVar("C")
T = TypeVar("T")


def static_field(**kwargs: Any) -> Any:
    """A dataclass field that is part of the tree's structure: a shape, a ratio, a boundary."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, static_field))
def pytree(cls: type[C]) -> type[C]:
    """Makes a frozen dataclass and registers it with jax; fields made by `static_field` are not leaves."""
    jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))
    return cls


class LinearOperator:
    """A linear map between channel-last images ``(..., height, width, band)``.

    An operator is a frozen pytree: its arrays pass through ``jit``, ``vmap`` and ``grad`` like data, and it is not
    bound to an image size. ``op(x)`` applies it, ``op.T(y)`` applies its adjoint, ``a @ b`` is a after b.
    A subclass says `__call__` and `input_shape`; the adjoint follows from them.
    """

    def __call__(self, x: Array) -> Array:
        raise NotImplementedError

    def input_shape(self, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the x for which ``op(x)`` has ``output_shape``."""
        raise NotImplementedError

    def adjoint(self, y: Array) -> Array:
        """The adjoint applied to ``y``: ``<op(x), y> = <x, op.adjoint(y)>`` for every x."""
        x = jax.ShapeDtypeStruct(self.input_shape(y.shape), y.dtype)
        return jax.linear_transpose(self, x)(y)[0]

    @property
    def T(self) -> LinearOperator:
        """The adjoint as an operator."""
        return Adjoint(self)

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        return Composition(self, other)

    def norm(self, shape: tuple[int, ...], steps: int = 60) -> Array:
        """Largest singular value on inputs of ``shape`` (height, width, band), by power iteration from below."""
        x = jax.random.normal(jax.random.key(0), shape)

        def step(x: Array, _: None) -> tuple[Array, Array]:
            norm = jnp.linalg.norm(x.ravel())
            x = x / jnp.where(norm > 0, norm, 1)
            z = self.adjoint(self(x))
            return z, jnp.sqrt(jnp.linalg.norm(z.ravel()))

        return jax.lax.scan(step, x, length=steps)[1][-1]


@pytree
class Adjoint(LinearOperator):
    """The adjoint of an operator; its own adjoint is that operator."""

    operator: LinearOperator

    def __call__(self, x: Array) -> Array:
        return self.operator.adjoint(x)

    def adjoint(self, y: Array) -> Array:
        return self.operator(y)

    def input_shape(self, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        return jax.eval_shape(self.operator, jax.ShapeDtypeStruct(output_shape, jnp.float32)).shape

    @property
    def T(self) -> LinearOperator:
        return self.operator


@pytree
class Composition(LinearOperator):
    """``outer`` after ``inner``."""

    outer: LinearOperator
    inner: LinearOperator

    def __call__(self, x: Array) -> Array:
        return self.outer(self.inner(x))

    def adjoint(self, y: Array) -> Array:
        return self.inner.adjoint(self.outer.adjoint(y))

    def input_shape(self, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.inner.input_shape(self.outer.input_shape(output_shape))


@pytree
class Identity(LinearOperator):
    """Leaves the image as it is."""

    def __call__(self, x: Array) -> Array:
        return x

    def adjoint(self, y: Array) -> Array:
        return y

    def input_shape(self, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        return output_shape


def inner(a: Array, b: Array) -> Array:
    """Euclidean inner product of two arrays of one shape."""
    return jnp.vdot(a, b, precision="highest")


def dot_test(operator: LinearOperator, shape: tuple[int, ...], key: Array, dtype: jnp.dtype = jnp.float32) -> float:
    """How far ``operator.T`` is from the adjoint on one random pair: ``|<Ax,y> - <x,A'y>| / (|Ax| |y|)``.

    Args:
        operator: the operator to check.
        shape: shape of an input, ``(..., height, width, band)``.
        key: random key.
        dtype: float32 (expect below 1e-5) or float64 (below 1e-10).
    """
    kx, ky = jax.random.split(key)
    x = jax.random.normal(kx, shape, dtype)
    y = jax.random.normal(ky, jax.eval_shape(operator, x).shape, dtype)

    @jax.jit
    def mismatch(operator: LinearOperator) -> Array:
        ax = operator(x)
        scale = jnp.linalg.norm(ax.ravel()) * jnp.linalg.norm(y.ravel())
        return jnp.abs(inner(ax, y) - inner(x, operator.T(y))) / jnp.where(scale > 0, scale, 1)

    return float(mismatch(operator))


def single(tree: T) -> T:
    """Arrays in float32 at least, which Fourier transforms and decompositions need."""
    return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), tree)


@jax.jit
def all_finite(tree: Any) -> Array:
    """Whether no number in a pytree of arrays is nan or infinite."""
    return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]).all()


def floating(x: ArrayLike) -> Array:
    """``x`` as a jax array of floating numbers; integers, which weights below one would turn into 0, in float32."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)


def as_image(x: Array | np.ndarray, what: str) -> Array:
    """``x`` as an array of `floating` numbers.

    Raises:
        InputError: it is not an image ``(..., height, width, band)``, or an axis is empty.
    """
    if x.ndim < 3 or 0 in x.shape:
        raise InputError(
            f"{what} must have shape (..., height, width, band) with no empty axis, but its shape is {x.shape}; "
            "add the missing axes, for instance x[..., None] for one band."
        )
    return floating(x)
