"""Multiresolution analysis: the guide's detail is what the low-resolution sensor would have lost of it.

``M`` is the interpolated ``lr``, ``P_k`` the guide as band k wants it (`jfusion.classical.hypersharpening`) and
``low(P_k)`` its low-pass version.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from jfusion.catalogue import Classical, Paper, System
from jfusion.classical.hypersharpening import guide_per_band, lr_response, select, synthesise
from jfusion.classical.pixels import band_mean, band_std, ratio_or_one
from jfusion.operators import Blur, Grid, Observation, ObservationModel, box_psf, upsample
from jfusion.tasks import SPATIOSPECTRAL


def _low(guide: Array, model: ObservationModel) -> Array:
    """What is left of an image with the bands of ``lr`` once its sensor has seen it, interpolated back."""
    return upsample(lr_response(model)(guide), model.grid, "interp23")


def _matched(observation: Observation, model: ObservationModel) -> tuple[Array, Array, Array]:
    """``M``, ``P'`` and ``low(P')``: ``P'_k`` has the mean and standard deviation, at low resolution, of ``M_k``."""
    expanded = upsample(observation["lr"], model.grid, "interp23")
    guide = guide_per_band(observation, model)
    low = _low(guide, model)
    spread, centre, level = band_std(low), band_mean(low), band_mean(expanded)
    gain = jnp.where(spread > 0, band_std(expanded) / jnp.where(spread > 0, spread, 1), 0)
    return expanded, (guide - centre) * gain + level, (low - centre) * gain + level


def _modulation(guide: Array, low: Array, ratio: int) -> Array:
    """``guide / low`` within [0, ratio^2], the range of a non-negative image over its mean of ratio^2 pixels.

    1 where ``low`` is not positive.
    """
    return jnp.clip(ratio_or_one(guide, low), 0, ratio**2)


def mtf_glp(observation: Observation, model: ObservationModel) -> Array:
    """Generalised Laplacian pyramid with MTF-matched filter: ``X_k = M_k + P'_k - low(P'_k)``.

    ``P'_k = (P_k - mean P_k) std(M_k) / std(low(P_k)) + mean M_k``. ``low`` degrades by the response of ``lr`` and
    interpolates back; where the response is not known it is the Gaussian with an MTF of 0.30 at the Nyquist frequency.
    A guide that does not correlate with a band hurts it: see `mtf_glp_cbd`. Aiazzi et al., PE&RS 72(5), 2006.
    """
    expanded, guide, low = _matched(observation, model)
    return expanded + guide - low


def mtf_glp_cbd(observation: Observation, model: ObservationModel) -> Array:
    """MTF-GLP with regression-based injection: ``X_k = M_k + sum_j g_jk (P_j - low(P_j))``.

    The gains are those of the least-squares regression of ``lr`` on the degraded guide; for one guide band
    ``g_k = cov(Y_k, D P) / var(D P)``. ``low`` as in `mtf_glp`. Alparone et al., TGRS 45(10), 2007.
    """
    guide = synthesise(observation, model)
    return upsample(observation["lr"], model.grid, "interp23") + guide - _low(guide, model)


def mtf_glp_hpm(observation: Observation, model: ObservationModel) -> Array:
    """MTF-GLP with high-pass modulation: ``X_k = M_k P'_k / low(P'_k)``, with ``P'`` and ``low`` as in `mtf_glp`.

    The ratio is held within [0, ratio^2] and is 1 where ``low(P'_k)`` is not positive. Aiazzi et al., GRSS/ISPRS Joint
    Workshop on Urban Areas, 2003.
    """
    expanded, guide, low = _matched(observation, model)
    return expanded * _modulation(guide, low, model.ratio)


def sfim(observation: Observation, model: ObservationModel) -> Array:
    """Smoothing filter-based intensity modulation: ``X_k = M_k P / mean(P)``.

    ``mean`` is the mean over ``ratio`` x ``ratio`` pixels around each pixel (half weight on the edge taps where the
    ratio is even). Nothing is matched: only ratios of the guide enter, so its units do not matter, and only the
    neighbourhood of a pixel. With several guide bands, band k takes the ratio of the one that is spectrally nearest
    (`select`). The ratio is held within [0, ratio^2] and is 1 where the mean is not positive.
    Liu, IJRS 21(18), 2000.

    Raises:
        InputError: the guide has several bands and their spectral response is not known.
    """
    guide = observation["guide"]
    smooth = Blur(box_psf(Grid(model.ratio, (0, 0))))(guide)
    return upsample(observation["lr"], model.grid, "cubic") * select(_modulation(guide, smooth, model.ratio), model)


MTF_GLP = System(
    name="mtf_glp",
    title="MTF-matched generalised Laplacian pyramid (MTF-GLP)",
    family="classical",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        "Aiazzi, Alparone, Baronti, Garzelli, Selva",
        2006,
        "MTF-tailored multiscale fusion of high-resolution MS and Pan imagery",
        "Photogrammetric Engineering & Remote Sensing 72(5)",
        "10.14358/PERS.72.5.591",
    ),
    summary="Adds the guide's detail beyond the sensor's MTF, scaled to the spread of each band.",
    method=Classical(mtf_glp),
    differences="Filter and decimation are the sensor's own response, with its phase and boundary; P's spread is taken "
    "after that same filter where toolboxes use one of gain 0.30; several guide bands by hypersharpening.",
)

MTF_GLP_CBD = System(
    name="mtf_glp_cbd",
    title="MTF-GLP with regression-based injection (MTF-GLP-CBD)",
    family="classical",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        "Alparone, Wald, Chanussot, Thomas, Gamba, Bruce",
        2007,
        "Comparison of pansharpening algorithms: outcome of the 2006 GRS-S data-fusion contest",
        "IEEE Transactions on Geoscience and Remote Sensing 45(10)",
        "10.1109/TGRS.2007.904923",
    ),
    summary="Adds the guide's detail beyond the sensor's MTF by regressed gains, which may be small or negative.",
    method=Classical(mtf_glp_cbd),
    differences="One context, the whole image. The gains are regressed at low resolution where toolboxes regress the "
    "interpolated images; filter and several guide bands as in mtf_glp.",
)

MTF_GLP_HPM = System(
    name="mtf_glp_hpm",
    title="MTF-GLP with high-pass modulation (MTF-GLP-HPM)",
    family="classical",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        "Aiazzi, Alparone, Baronti, Garzelli, Selva",
        2003,
        "An MTF-based spectral distortion minimizing model for pan-sharpening of very high resolution multispectral "
        "images of urban areas",
        "2nd GRSS/ISPRS Joint Workshop on Remote Sensing and Data Fusion over Urban Areas",
        "10.1109/DFUA.2003.1219964",
    ),
    summary="Multiplies each band by the matched guide over its low-pass version.",
    method=Classical(mtf_glp_hpm),
    differences="As mtf_glp; the ratio is bounded.",
)

SFIM = System(
    name="sfim",
    title="Smoothing filter-based intensity modulation (SFIM)",
    family="classical",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        "Liu",
        2000,
        "Smoothing Filter-based Intensity Modulation: a spectral preserve image fusion technique for improving spatial "
        "details",
        "International Journal of Remote Sensing 21(18)",
        "10.1080/014311600750037499",
    ),
    summary="Multiplies each interpolated band by the guide over its local mean.",
    method=Classical(sfim),
    differences="No histogram is matched, as in the paper; toolboxes match the guide to each band first. The mean has "
    "the width of the ratio where toolboxes take ratio + 1 taps for an even one.",
    needs_model=True,
    local=2,
)
