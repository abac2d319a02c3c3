"""The fusion problem in closed form: least squares in both observations, with a prior mean.

Wei, Dobigeon, Tourneret, "Fast fusion of multi-band images based on solving a Sylvester equation", TIP 24(11), 2015,
and its robust form R-FUSE, SPL 23(11), 2016. The equation is solved here by two applications of the matrix inversion
lemma, in the spectral and in the spatial domain, which needs no division by a small ``mu`` and Fourier transforms of
the low-resolution size only.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from jfusion.errors import InputError
from jfusion.operators import BlockAverage, LinearOperator, Observation, ObservationModel, SpatialResponse
from jfusion.operators.linear import as_image, single
from jfusion.operators.spectral import SpectralResponse


def _name(operator: LinearOperator) -> str:
    return f"{type(operator).__name__} with boundary {getattr(operator, 'boundary', 'none')}"


def _circular(operator: LinearOperator) -> LinearOperator:
    if isinstance(operator, BlockAverage):
        return operator
    if not isinstance(operator, SpatialResponse) or operator.boundary == "valid":
        raise InputError(
            "the closed form needs an `lr` that is a blur and decimation of the scene (SpatialResponse with boundary "
            f"circular or reflect, or BlockAverage), but it is {_name(operator)}; use conjugate_gradient instead."
        )
    profiles = operator.psf if isinstance(operator.psf, tuple) else (operator.psf,)
    if any(p.ndim > (1 if len(profiles) == 2 else 2) for p in profiles):
        raise InputError(
            "the closed form needs one PSF for all bands, but the PSF has a band axis, with shapes "
            f"{[p.shape for p in profiles]}; take its mean over the bands or use conjugate_gradient."
        )
    return dataclasses.replace(operator, boundary="circular")


def _spectrum(operator: LinearOperator, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """Eigenvalues of ``H H'``, a circular convolution of the low-resolution grid: ``(h, w // 2 + 1, 1)``."""
    impulse = jnp.zeros((*shape, 1), dtype).at[0, 0, 0].set(1)
    return jnp.maximum(jnp.fft.rfft2(operator(operator.T(impulse)), axes=(0, 1)).real, 0)


def _product(x: Array, matrix: Array) -> Array:
    return jnp.matmul(x, matrix, precision="highest")


def _solve_shifted(matrix: Array, shift: Array | float, rhs: Array) -> Array:
    """``(matrix + shift I)^-1 rhs`` along the last axis for a symmetric matrix and a shift ``(..., 1)``.

    The derivative does not pass through the eigenvectors, so equal eigenvalues do it no harm.
    """

    def solve(_: object, b: Array) -> Array:
        values, vectors = jnp.linalg.eigh(matrix)
        return _product(_product(b, vectors) / (values + shift), vectors.T)

    return jax.lax.custom_linear_solve(lambda z: _product(z, matrix) + shift * z, rhs, solve, symmetric=True)


def _correct(response: LinearOperator, lr: Array, srf: Array, guide: Array, mu: Array | float) -> Array:
    """The solution of ``(H'H + R'R + mu) x = H' lr + R' guide``, in float32 at least."""
    lr, guide = single((lr, guide))
    gram = _product(srf, srf.T)
    detail = _solve_shifted(gram, mu, guide)
    misfit = lr - _product(response(detail), srf)
    spectrum = _spectrum(response, misfit.shape[-3:-1], misfit.dtype) + mu
    frequencies = jnp.fft.rfft2(misfit, axes=(-3, -2))
    explained = _product(_solve_shifted(gram, spectrum, _product(frequencies, srf.T)), srf)
    rest = jnp.fft.irfft2((frequencies - explained) / spectrum, s=misfit.shape[-3:-1], axes=(-3, -2))
    return _product(detail, srf) + response.T(rest)


def fuse_closed_form(
    observation: Observation,
    model: ObservationModel,
    prior: Array,
    mu: Array | float,
    *,
    basis: Array | None = None,
    weights: tuple[Array | float, Array | float] = (1.0, 1.0),
) -> Array:
    """The minimiser over X of ``a |lr - H X|^2 + b |guide - R X|^2 + mu |X - prior|^2``.

    ``H`` is taken with a circular boundary: with another boundary the result is exact inside, and within one PSF of
    the border it solves the circular problem for the correction to ``prior``, whose misfit is measured with the
    model's own ``H``. Differentiable in everything, ``mu`` and the operators' arrays included.

    Args:
        observation: ``lr`` (..., h, w, L) and ``guide`` (..., H, W, l); without ``guide`` its term is left out.
        model: ``lr`` is a `SpatialResponse` with one PSF for all bands, or a `BlockAverage`; ``guide`` is a
            `SpectralResponse`.
        prior: the prior mean of X, ``(..., H, W, L)``; with ``basis``, of the coefficients, ``(..., H, W, r)``.
        mu: weight of the prior, positive, a scalar.
        basis: ``(L, r)`` of full column rank; X is then ``basis @ U``, the prior mean ``basis @ prior``, and U is
            returned.
        weights: a, a scalar, and b, a scalar or one per guide band ``(l,)``; one over the noise variances makes this
            the Gaussian posterior mean.

    Returns:
        X ``(..., H, W, L)``, or the coefficients U ``(..., H, W, r)`` of X.

    Raises:
        InputError: an operator that the closed form does not cover, or shapes that do not fit.
    """
    observation, prior, basis = single((dict(observation), prior, basis))
    lr = as_image(observation["lr"], "lr")
    response = _circular(model["lr"])
    size = response.input_shape(lr.shape)[-3:-1]
    if "guide" in observation:
        guide, spectral = observation["guide"], model["guide"]
    else:
        guide, spectral = jnp.zeros((*size, 1), lr.dtype), SpectralResponse(jnp.zeros((1, lr.shape[-1]), lr.dtype))
    if not isinstance(spectral, SpectralResponse):
        raise InputError(f"the closed form needs a SpectralResponse for `guide`, but it is {_name(spectral)}.")
    if basis is not None and basis.shape[0] != lr.shape[-1]:
        raise InputError(f"the basis must have {lr.shape[-1]} rows, one a band of lr, but its shape is {basis.shape}.")
    bands = lr.shape[-1] if basis is None else basis.shape[1]
    for what, image, count in (("prior", prior, bands), ("guide", guide, spectral.srf.shape[0])):
        if image.shape[-3:] != (*size, count):
            raise InputError(
                f"the {what} must have {(*size, count)} (height, width, band), but has {image.shape[-3:]}; interpolate "
                "the prior with upsample and project it on the basis, and crop the guide to the extent of lr."
            )

    a, b = weights
    scale = jnp.sqrt(jnp.broadcast_to(jnp.asarray(b / a, lr.dtype), guide.shape[-1:]))
    srf, guide = spectral.srf.astype(lr.dtype) * scale[:, None], guide * scale
    if basis is not None:
        basis, mixing = jnp.linalg.qr(basis)
        lr, srf, prior = _product(lr, basis), _product(srf, basis), _product(prior, mixing.T)
    scene = prior + _correct(response, lr - model["lr"](prior), srf, guide - _product(prior, srf.T), mu / a)
    if basis is None:
        return scene
    return _product(scene, jax.scipy.linalg.solve_triangular(mixing, jnp.eye(bands, dtype=scene.dtype)).T)
