"""Spectral response: each band of the guide is a weighted mean of the scene's bands."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from jfusion.errors import InputError
from jfusion.operators.linear import LinearOperator, floating, pytree


@pytree
class SpectralResponse(LinearOperator):
    """Mixes the bands of every pixel: ``y = R x``.

    Attributes:
        srf: ``(bands out, bands in)``; the rows of a sensor's response sum to one. With a basis ``E`` of shape
            ``(band, component)`` the same operator turns subspace coefficients into spectra.
    """

    srf: Array

    def __call__(self, x: Array) -> Array:
        x = floating(x)
        if x.shape[-1] != self.srf.shape[1]:
            raise InputError(
                f"the spectral response takes {self.srf.shape[1]} bands, but the image has {x.shape[-1]}; "
                "resample the response to the image's wavelengths."
            )
        return jnp.matmul(x, self.srf.T.astype(x.dtype), precision="highest")

    def adjoint(self, y: Array) -> Array:
        return jnp.matmul(y, self.srf.astype(y.dtype), precision="highest")

    def input_shape(self, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*output_shape[:-1], self.srf.shape[1])
