"""Interpolation of ``lr`` alone: what every fusion has to beat."""

from __future__ import annotations

from jax import Array

from jfusion.catalogue import Classical, Paper, System
from jfusion.operators import Observation, ObservationModel, upsample
from jfusion.tasks import SPATIOSPECTRAL


def cubic(observation: Observation, model: ObservationModel) -> Array:
    """Cubic convolution of ``lr`` with a = -1/2 (Keys, TASSP 29(6), 1981); the guide is not used."""
    return upsample(observation["lr"], model.grid, "cubic")


def interp23(observation: Observation, model: ObservationModel) -> Array:
    """The 23-tap half-band polynomial applied to ``lr`` octave by octave, the toolboxes' "EXP"; no guide is used.

    Aiazzi et al., TGRS 40(10), 2002.
    """
    return upsample(observation["lr"], model.grid, "interp23")


CUBIC = System(
    name="cubic",
    title="Cubic convolution",
    family="classical",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        "Keys",
        1981,
        "Cubic convolution interpolation for digital image processing",
        "IEEE Transactions on Acoustics, Speech, and Signal Processing 29(6)",
        "10.1109/TASSP.1981.1163711",
    ),
    summary="Interpolates the low-resolution image; the trivial baseline.",
    method=Classical(cubic),
    local=2,
)

INTERP23 = System(
    name="interp23",
    title="EXP: 23-tap half-band interpolation",
    family="classical",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        "Aiazzi, Alparone, Baronti, Garzelli",
        2002,
        "Context-driven fusion of high spatial and spectral resolution images based on oversampled multiresolution "
        "analysis",
        "IEEE Transactions on Geoscience and Remote Sensing 40(10)",
        "10.1109/TGRS.2002.803623",
    ),
    summary="Interpolates the low-resolution image with the filter on which the toolboxes' other methods build.",
    method=Classical(interp23),
    differences="Edges are repeated where the toolboxes wrap around; phases and ratios are those of the grid.",
    local=12,
)
