"""What sensors do to a scene: pure, jittable linear operators with adjoints."""

from jfusion.operators.grid import Grid
from jfusion.operators.linear import Adjoint, Composition, Identity, LinearOperator, dot_test
from jfusion.operators.mask import Mask
from jfusion.operators.observation import Observation, ObservationModel, check_pair, relative_residual, scaled
from jfusion.operators.psf import box_psf, gaussian_psf, mtf_psf, mtf_sigma
from jfusion.operators.resample import upsample
from jfusion.operators.spatial import (
    BlockAverage,
    Blur,
    Decimate,
    SpatialResponse,
    mtf_response,
    one_psf,
    otf,
    psf_kernel,
)
from jfusion.operators.spectral import SpectralResponse
from jfusion.operators.warp import Displaced, Warp

__all__ = [
    "Adjoint",
    "BlockAverage",
    "Blur",
    "Composition",
    "Decimate",
    "Displaced",
    "Grid",
    "Identity",
    "LinearOperator",
    "Mask",
    "Observation",
    "ObservationModel",
    "SpatialResponse",
    "SpectralResponse",
    "Warp",
    "box_psf",
    "check_pair",
    "dot_test",
    "gaussian_psf",
    "mtf_psf",
    "mtf_response",
    "mtf_sigma",
    "one_psf",
    "otf",
    "psf_kernel",
    "relative_residual",
    "scaled",
    "upsample",
]
