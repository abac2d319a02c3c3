"""Image quality with and without a reference: pure functions of channel-last images, each with named conventions."""

from jfusion.metrics.evaluation import WITH_REFERENCE, WITHOUT_REFERENCE, Metric, evaluate, without_reference
from jfusion.metrics.noreference import consistency, d_lambda, d_lambda_k, d_s, hqnr, qnr
from jfusion.metrics.quality import q2n, ssim, uiqi
from jfusion.metrics.reference import cc, ergas, psnr, rmse, sam, scc

__all__ = [
    "WITHOUT_REFERENCE",
    "WITH_REFERENCE",
    "Metric",
    "cc",
    "consistency",
    "d_lambda",
    "d_lambda_k",
    "d_s",
    "ergas",
    "evaluate",
    "hqnr",
    "psnr",
    "q2n",
    "qnr",
    "rmse",
    "sam",
    "scc",
    "ssim",
    "uiqi",
    "without_reference",
]
