"""The guide as the low-resolution sensor sees it, and as each band of the product wants it.

Selva et al., "Hyper-sharpening: a first approach on SIM-GA data", IEEE JSTARS 8(6), 2015,
doi:10.1109/JSTARS.2015.2440092. A guide of several bands becomes one guide band for each band of the product, either
synthesised by least squares or picked. A guide of one band stays what it is, so that a method built on
`guide_per_band` or `select` is its published pansharpening formula there.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from jfusion.classical.pixels import regress
from jfusion.errors import InputError
from jfusion.operators import (
    BlockAverage,
    Grid,
    Observation,
    ObservationModel,
    SpatialResponse,
    SpectralResponse,
    box_psf,
    mtf_response,
    one_psf,
)
from jfusion.sensors import MTF_FALLBACK


def known_response(model: ObservationModel) -> SpatialResponse:
    """The spatial response of ``lr``.

    Raises:
        InputError: it is not known, or something else than a blur and decimation.
    """
    operator = model["lr"]
    if isinstance(operator, BlockAverage):
        return SpatialResponse(box_psf(Grid.nested(operator.ratio)), operator.ratio, Grid.nested(operator.ratio).phase)
    if not isinstance(operator, SpatialResponse):
        raise InputError(
            f"the operator of 'lr' must be a SpatialResponse or a BlockAverage, but is a {type(operator).__name__}; an "
            "image that is displaced is put in its place by jfusion.operators.registration.aligned."
        )
    return operator


def lr_response(model: ObservationModel) -> SpatialResponse:
    """The spatial response of ``lr``, or where it is not known the Gaussian of `sensors.MTF_FALLBACK`."""
    if model.operators.get("lr") is None:
        return mtf_response(MTF_FALLBACK["ms"], model.grid)
    return known_response(model)


def degrade(image: Array, model: ObservationModel) -> Array:
    """An image of any number of bands, ``(batch, height, width, band)``, as the sensor of ``lr`` would see it."""
    return one_psf(lr_response(model))(image)


def synthesise(observation: Observation, model: ObservationModel) -> Array:
    """One guide band for each band of ``lr`` (HySharp), ``(batch, height, width, band)``.

    The least-squares regression, with intercept, of ``lr`` on the degraded guide, applied to the guide.
    """
    lr, guide = observation["lr"], observation["guide"]
    return regress(lr, on=degrade(guide, model))(guide)


def guide_per_band(observation: Observation, model: ObservationModel) -> Array:
    """A guide of one band as it is, repeated for each band of ``lr``; of several bands `synthesise`."""
    lr, guide = observation["lr"], observation["guide"]
    if guide.shape[-1] == 1:
        return jnp.broadcast_to(guide, (*guide.shape[:-1], lr.shape[-1]))
    return synthesise(observation, model)


def srf(model: ObservationModel) -> Array:
    """The spectral response of the guide, ``(guide band, band)``.

    Raises:
        InputError: it is not known, or more than a spectral response.
    """
    response = model["guide"]
    if not isinstance(response, SpectralResponse):
        raise InputError(f"the operator of 'guide' must be a SpectralResponse, but is a {type(response).__name__}.")
    return response.srf


def select(guide: Array, model: ObservationModel) -> Array:
    """For each band of ``lr`` the guide band that is spectrally nearest, ``(batch, height, width, band)``.

    Nearest by band number: the centre of a guide band is the median number of the ``lr`` bands that it covers, weighted
    by its spectral response; one that covers none is nearest to none. The sensors alone decide, so a scene may be cut
    into tiles. A guide of one band is returned as it is.

    Raises:
        InputError: there are several guide bands and their spectral response is not known.
    """
    if guide.shape[-1] == 1:
        return guide
    weights = srf(model)
    number = jnp.arange(weights.shape[1])
    return jnp.take(guide, jnp.argmin(jnp.abs(number[:, None] - medians(weights)), axis=1), axis=-1)


def medians(weights: Array) -> Array:
    """The weighted median of the numbers of the columns, by row; infinite where a row has no weight.

    A number stands for all within half of it, so that it lies between two columns of equal weight.
    """
    covered, half = jnp.cumsum(weights, 1), weights.sum(1, keepdims=True) / 2
    middle = (covered < half).sum(1, keepdims=True)
    weight, upto = (jnp.take_along_axis(x, middle, 1) for x in (weights, covered))
    centre = middle + 0.5 - (upto - half) / jnp.where(weight > 0, weight, 1)
    return jnp.where(half > 0, centre, jnp.inf)[:, 0]
