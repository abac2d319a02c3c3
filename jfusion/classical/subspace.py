"""FUSE: the Gaussian posterior mean of the scene in a spectral subspace, in closed form."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from jfusion.catalogue import Classical, Paper, System
from jfusion.classical.hypersharpening import known_response, srf
from jfusion.classical.pixels import matmul, subspace
from jfusion.operators import Displaced, Observation, ObservationModel, SpatialResponse, one_psf, upsample
from jfusion.operators.registration import in_place
from jfusion.solvers import conjugate_gradient
from jfusion.tasks import SPATIOSPECTRAL

COMPONENTS = 10
SNR_DB = 40.0
"""Signal-to-noise ratio of an image whose noise is not known."""

STEPS, TOLERANCE = 100, 1e-4
"""Of conjugate gradients."""


def noise_variance(observation: Observation, model: ObservationModel, key: str) -> Array:
    """Noise variance by image and band, ``(batch, band)``.

    From the model, `SNR_DB` below the image's energy where it does not say, and never more than 70 dB below, which
    float32 could not tell from none.
    """
    image = observation[key]
    energy = jnp.mean(image**2, axis=(1, 2, 3))[:, None]
    energy = jnp.where(energy > 0, energy, 1)
    known = model.noise.get(key)
    variance = energy * 10 ** (-SNR_DB / 10) if known is None else jnp.maximum(known**2, energy * 1e-7)
    return jnp.broadcast_to(variance, (image.shape[0], image.shape[-1]))


def posterior_mean(
    lr: Array,
    guide: Array,
    mean: Array,
    covariance: Array,
    mixing: Array,
    response: SpatialResponse | Displaced,
    lr_variance: Array,
    guide_variance: Array,
) -> Array:
    """Mean of the coefficients U of one scene given both images; see `fuse`.

    The guide updates the prior pixel by pixel, which leaves one covariance K for all pixels; ``lr`` updates the rest
    along each eigenvector of K: in the Fourier domain, where H H' is diagonal, or by conjugate gradients where ``lr``
    is displaced.

    Args:
        lr: coefficients ``(h, w, component)`` of the low-resolution image.
        guide: ``(H, W, guide band)``.
        mean: prior mean of U, ``(H, W, component)``.
        covariance: of U in each pixel, ``(component, component)``.
        mixing: what the guide sees of U, ``(guide band, component)``.
        response: H, one PSF for all bands.
        lr_variance: noise variance of ``lr``, a positive scalar.
        guide_variance: of each band of the guide, ``(guide band,)``, positive.
    """
    gain = jnp.linalg.solve(
        matmul(matmul(mixing, covariance), mixing.T) + jnp.diag(guide_variance), matmul(mixing, covariance)
    )
    mean = mean + matmul(guide - matmul(mean, mixing.T), gain)
    left = covariance - matmul(matmul(covariance, mixing.T), gain)
    variance, vectors = jnp.linalg.eigh((left + left.T) / 2)
    variance = jnp.maximum(variance, 0)

    misfit = matmul(lr - response(mean), vectors)
    if isinstance(response, Displaced):
        weight = response.on_scene(lr.shape[:2])[..., None].astype(lr.dtype)

        def normal(z: Array) -> Array:
            return variance * weight * response(response.T(weight * z)) + lr_variance * z

        step = conjugate_gradient(normal, weight * misfit, steps=STEPS, tolerance=TOLERANCE)[0]
        return mean + matmul(response.T(variance * weight * step), vectors.T)
    circular = dataclasses.replace(response, boundary="circular")
    impulse = jnp.zeros((*lr.shape[:2], 1), lr.dtype).at[0, 0, 0].set(1)
    spectrum = jnp.maximum(jnp.fft.rfft2(circular(circular.T(impulse)), axes=(0, 1)).real, 0)
    frequencies = jnp.fft.rfft2(misfit, axes=(0, 1))
    step = jnp.fft.irfft2(variance * frequencies / (variance * spectrum + lr_variance), s=lr.shape[:2], axes=(0, 1))
    return mean + matmul(circular.T(step), vectors.T)


def _response(model: ObservationModel) -> SpatialResponse | Displaced:
    """H, one PSF for all bands."""
    operator = model["lr"]
    if isinstance(operator, Displaced):
        return dataclasses.replace(operator, response=one_psf(operator.response))
    return one_psf(known_response(model))


def fuse(observation: Observation, model: ObservationModel) -> Array:
    """Fast fusion by a Sylvester equation: ``X = E U`` with U the minimiser of

        |Y - H E U|^2 / s_Y^2 + |Z - R E U|^2 / s_Z^2 + (U - m)' C^-1 (U - m).

    Y is ``lr`` with spatial response H, Z the guide with spectral response R, and ``s^2`` their noise variances (40 dB
    below the image where the model does not say). E spans the ten strongest components of Y's spectra, m is the cubic
    interpolation of Y's coefficients and C their covariance over the image. The misfit is measured with the model's
    boundary, the solution treats the image as periodic. An image Y that is displaced is put in its place for E, m and
    C, and taken as it is in the misfit, which is then solved for without periods. Wei et al., TIP 24(11), 2015.

    Raises:
        InputError: the spatial or spectral response is not known.
    """
    response, weights = _response(model), srf(model)
    lr_variance = noise_variance(observation, model, "lr").mean(1)
    guide_variance = noise_variance(observation, model, "guide")

    def one(lr: Array, straight: Array, guide: Array, lr_variance: Array, guide_variance: Array) -> Array:
        basis = subspace(straight[None], COMPONENTS)[0]
        coefficients = matmul(straight, basis)
        centred = (coefficients - coefficients.mean((0, 1))).reshape(-1, basis.shape[1])
        covariance = matmul(centred.T, centred) / centred.shape[0]
        mean = upsample(coefficients, model.grid, "cubic")
        mixing = matmul(weights, basis)
        seen = matmul(lr, basis)
        product = posterior_mean(seen, guide, mean, covariance, mixing, response, lr_variance, guide_variance)
        return matmul(product, basis.T)

    straight = in_place(observation, model)
    return jax.vmap(one)(observation["lr"], straight, observation["guide"], lr_variance, guide_variance)


FUSE = System(
    name="fuse",
    title="FUSE: fast fusion based on solving a Sylvester equation",
    family="classical",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        "Wei, Dobigeon, Tourneret",
        2015,
        "Fast fusion of multi-band images based on solving a Sylvester equation",
        "IEEE Transactions on Image Processing 24(11)",
        "10.1109/TIP.2015.2458572",
        code="qw245/BlindFuse",
    ),
    summary="Gaussian posterior mean in a spectral subspace: one solve by pixel, one by frequency, no iterations.",
    method=Classical(fuse),
    needs_model=True,
    displaced=True,
    differences="The prior has the covariance of the low-resolution spectra where the release takes a multiple of the "
    "identity; the equation is solved as two Gaussian updates, which divide by no small number; cubic interpolation "
    "in place of splines. A displaced low-resolution image is fused by conjugate gradients.",
)
