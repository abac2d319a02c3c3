"""Component substitution: the guide takes the place of the intensity that it shows.

An intensity ``I`` with the guide's spectral response is made from the bands of the interpolated ``M``; what the guide
``P`` has beyond it is the detail. Brovey multiplies by ``P / I``, Gram-Schmidt adds a multiple of ``P - I``.
"""

from __future__ import annotations

from jax import Array

from jfusion.catalogue import Classical, Paper, System
from jfusion.classical.hypersharpening import degrade, select
from jfusion.classical.pixels import band_mean, mix, ratio_or_one, regress
from jfusion.operators import Observation, ObservationModel, upsample
from jfusion.tasks import SPATIOSPECTRAL


def brovey(observation: Observation, model: ObservationModel) -> Array:
    """Weighted Brovey transform: ``X_k = M_k P / I`` with ``I = R M``.

    ``M`` is the cubic interpolation of ``lr`` and ``R`` the spectral response of the guide, so nothing but the
    neighbourhood of a pixel enters and no histogram is matched: guide and ``lr`` have to be in the same units. With
    several guide bands, band k takes the ratio of the guide band that is spectrally nearest (`select`). Where the
    intensity is not positive the ratio is 1. After Gillespie et al., RSE 22(3), 1987.

    Raises:
        InputError: the spectral response of the guide is not known.
    """
    expanded = upsample(observation["lr"], model.grid, "cubic")
    gain = ratio_or_one(observation["guide"], model["guide"](expanded))
    return expanded * select(gain, model)


def gsa(observation: Observation, model: ObservationModel) -> Array:
    """Gram-Schmidt adaptive: ``X_k = M_k + sum_j g_jk (P_j - mean P_j - I_j + mean I_j)``.

    The weights of the intensity ``I_j = sum_b w_bj M_b + c_j`` come from the least-squares regression of the degraded
    guide on ``lr``, and ``g`` from the regression of ``M`` on the intensities: for one guide band
    ``g_k = cov(I, M_k) / var(I)``. The guide is degraded by the response of ``lr``, or the Gaussian with an MTF of 0.30
    at the Nyquist frequency where that is not known. Aiazzi et al., TGRS 45(10), 2007.
    """
    lr, guide = observation["lr"], observation["guide"]
    expanded = upsample(lr, model.grid, "interp23")
    intensity = regress(degrade(guide, model), on=lr)(expanded)
    gain = regress(expanded, on=intensity).matrix
    detail = guide - intensity
    return expanded + mix(detail - band_mean(detail), gain)


BROVEY = System(
    name="brovey",
    title="Weighted Brovey transform",
    family="classical",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        "Gillespie, Kahle, Walker",
        1987,
        "Color enhancement of highly correlated images. II. Channel ratio and 'chromaticity' transformation techniques",
        "Remote Sensing of Environment 22(3)",
        "10.1016/0034-4257(87)90088-5",
    ),
    summary="Multiplies every interpolated band by the guide over the intensity that the spectral response predicts.",
    method=Classical(brovey),
    differences="As GDAL's pansharpening with the sensor's spectral response for weights; toolboxes weigh all bands "
    "alike and match the guide's mean and standard deviation, which makes a pixel depend on the whole image.",
    needs_model=True,
    local=2,
)

GSA = System(
    name="gsa",
    title="Gram-Schmidt adaptive (GSA)",
    family="classical",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        "Aiazzi, Baronti, Selva",
        2007,
        "Improving component substitution pansharpening through multivariate regression of MS+Pan data",
        "IEEE Transactions on Geoscience and Remote Sensing 45(10)",
        "10.1109/TGRS.2007.901007",
    ),
    summary="Adds what the guide has beyond a regressed intensity, by a gain per band.",
    method=Classical(gsa),
    differences="The guide is degraded by the sensor's own response where toolboxes use an a-trous low-pass; several "
    "guide bands enter by a multivariate gain where the hyperspectral toolbox groups the bands by correlation.",
)
