"""Masks: which pixels a sensor saw."""

from __future__ import annotations

from jax import Array

from jfusion.errors import InputError
from jfusion.operators.linear import LinearOperator, as_image, pytree


@pytree
class Mask(LinearOperator):
    """Multiplies every band by a mask; it is its own adjoint.

    Attributes:
        mask: ``(height, width)``, 1 or True where the pixel was seen, 0 where it was not; weights are allowed.
    """

    mask: Array

    def __call__(self, x: Array) -> Array:
        x = as_image(x, "the image to mask")
        if x.shape[-3:-1] != self.mask.shape:
            raise InputError(
                f"the mask has shape {self.mask.shape}, but the image {x.shape[-3:-1]}; crop one to the other."
            )
        return x * self.mask[..., None].astype(x.dtype)

    def adjoint(self, y: Array) -> Array:
        return self(y)

    def input_shape(self, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        return output_shape
