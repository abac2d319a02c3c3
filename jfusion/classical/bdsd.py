"""Band-dependent spatial detail (BDSD): the injection gains that would have been best one scale below."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from jfusion.catalogue import Classical, Paper, System
from jfusion.classical.hypersharpening import degrade, lr_response
from jfusion.classical.pixels import least_squares, matmul, mix, subspace
from jfusion.operators import Blur, Observation, ObservationModel, SpatialResponse, upsample
from jfusion.operators.psf import gaussian_profile
from jfusion.tasks import SPATIOSPECTRAL

COMPONENTS = 10
"""Dimension of the spectral subspace in which gains are fitted; all there is for a multispectral image."""


def _centred(profile: Array, pixels: int) -> Array:
    """The Gaussian of a profile's variance, ``(taps,)`` or ``(taps, band)``, without its shift, within an image."""
    tap = jnp.arange(profile.shape[0]).reshape(-1, *(1,) * (profile.ndim - 1))
    profile = profile / profile.sum(0)
    variance = (profile * (tap - (profile * tap).sum(0)) ** 2).sum(0)
    taps = min(profile.shape[0] // 2, pixels - 1) * 2 + 1
    return gaussian_profile(jnp.sqrt(jnp.maximum(variance, 1e-2)), taps)


def _one_scale_below(response: SpatialResponse, lr: Array) -> Array:
    """``lr`` blurred as if its pixels were the scene's: the response's width in low-resolution pixels, no shift."""
    psf = response.psf
    profiles = psf if isinstance(psf, tuple) else (psf.sum(1), psf.sum(0))
    rows, columns = (_centred(profile, n) for profile, n in zip(profiles, lr.shape[-3:-1], strict=True))
    return Blur((rows, columns))(lr)


def gains(observation: Observation, model: ObservationModel) -> Array:
    """``gamma``, ``(batch, band + guide band, band)``: what `bdsd` multiplies M's and P's bands with."""
    lr, guide = observation["lr"], observation["guide"]
    low = _one_scale_below(lr_response(model), lr)
    basis = subspace(lr, COMPONENTS)
    gamma = least_squares(lr - low, on=jnp.concatenate([mix(low, basis), degrade(guide, model)], axis=-1))
    own, other = gamma[:, : basis.shape[-1]], gamma[:, basis.shape[-1] :]
    return jnp.concatenate([matmul(basis, own), other], axis=1)


def bdsd(observation: Observation, model: ObservationModel) -> Array:
    """Global BDSD: ``X_k = M_k + sum_b gamma_bk M_b + sum_j gamma_jk P_j``.

    ``M`` is the interpolated ``lr`` Y. The gains are the least-squares solution one scale below, where the answer is
    known: ``Y_k - low(Y_k) = sum_b gamma_bk low(Y_b) + sum_j gamma_jk D P_j``, with ``D`` the response of ``lr`` and
    ``low`` a Gaussian blur as wide in low-resolution pixels as that response is in the scene's. Where the response is
    not known it is the Gaussian with an MTF of 0.30 at the Nyquist frequency. Above ten bands, ``gamma`` acts on the
    ten strongest components of the spectra, since gains of a hundred collinear bands cannot be told apart.
    Garzelli et al., TGRS 46(1), 2008.
    """
    expanded = upsample(observation["lr"], model.grid, "interp23")
    return expanded + mix(jnp.concatenate([expanded, observation["guide"]], axis=-1), gains(observation, model))


BDSD = System(
    name="bdsd",
    title="Band-dependent spatial detail (BDSD)",
    family="classical",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        "Garzelli, Nencini, Capobianco",
        2008,
        "Optimal MMSE pan sharpening of very high resolution multispectral images",
        "IEEE Transactions on Geoscience and Remote Sensing 46(1)",
        "10.1109/TGRS.2007.907604",
    ),
    summary="Adds to each band a linear mix of all bands and the guide, fitted at reduced resolution.",
    method=Classical(bdsd),
    differences="One block, the whole image. The pair one scale below is Y itself and the guide degraded by lr's own "
    "response, where the toolbox shrinks the interpolated image and gives the guide a filter of its own; a spectral "
    "subspace for more than ten bands. Made for multispectral images: gains learnt one scale below need a guide that "
    "tells most of every band.",
)
