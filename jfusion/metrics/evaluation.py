"""The metrics of one product as a row of a table, each with its convention and source."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jfusion.errors import InputError
from jfusion.metrics.noreference import d_lambda, d_lambda_k, d_s, hqnr, low_resolution_mask, qnr
from jfusion.metrics.pixels import image_pair, pixel_mask
from jfusion.metrics.quality import q2n, ssim, uiqi
from jfusion.metrics.reference import cc, ergas, psnr, rmse, sam, scc


@dataclass(frozen=True)
class Metric:
    """A metric as a table shows it.

    Attributes:
        name: heading of its column.
        function: pure function to one number per image; an evaluation gives it those of its inputs that it names as
            arguments.
        convention: what exactly is computed, for the line under the table.
        source: the paper.
        best: whether the largest or the smallest value is best.
        unit: unit of the value; empty for a pure number.
    """

    name: str
    function: Callable[..., Array]
    convention: str
    source: str
    best: Literal["max", "min"]
    unit: str = ""


def _by_name(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


WITH_REFERENCE = _by_name(
    Metric("PSNR", psnr, "global: one MSE over all bands, peak is the data range", "by definition", "max", "dB"),
    Metric("SAM", sam, "mean angle over pixels with spectra that are not zero", "Yuhas et al., 1992", "min", "degree"),
    Metric("ERGAS", ergas, "wald: 100 / ratio, RMSE relative to the reference's mean per band", "Wald, 2000", "min"),
    Metric("SSIM", ssim, "wang: Gaussian 11 x 11 of sigma 1.5, mean over bands", "Wang et al., 2004", "max"),
    Metric("UIQI", uiqi, "sliding windows, mean over bands", "Wang and Bovik, 2002", "max"),
    Metric("Q2n", q2n, "distinct blocks, mirrored border, no rounding", "Garzelli and Nencini, 2009", "max"),
    Metric("CC", cc, "Pearson's coefficient, mean over bands", "by definition", "max"),
    Metric("RMSE", rmse, "over all bands", "by definition", "min", "as the images"),
    Metric("SCC", scc, "zhou: Pearson's coefficient of the Laplacian, mean over bands", "Zhou et al., 1998", "max"),
)
"""Metrics against a reference."""

WITHOUT_REFERENCE = _by_name(
    Metric("D_lambda", d_lambda, "mean over band pairs, distinct blocks", "Alparone et al., 2008", "min"),
    Metric("D_s", d_s, "mean over bands, distinct blocks", "Alparone et al., 2008", "min"),
    Metric("QNR", qnr, "(1 - D_lambda)(1 - D_s)", "Alparone et al., 2008", "max"),
    Metric("D_lambda_K", d_lambda_k, "1 - Q2n of the degraded product and lr", "Khan et al., 2009", "min"),
    Metric("HQNR", hqnr, "(1 - D_lambda_K)(1 - D_s)", "Aiazzi et al., 2014", "max"),
)
"""Metrics without a reference."""


def evaluate(
    product: ArrayLike,
    reference: ArrayLike,
    *,
    ratio: float,
    data_range: float,
    mask: ArrayLike | None = None,
    block: int = 32,
    metrics: Mapping[str, Metric] = WITH_REFERENCE,
) -> dict[str, float]:
    """The metrics of one product against its reference, by name, from one compiled function.

    A metric is nan only where its own page says so: no block or window is free of masked pixels, no spectrum is
    non-zero, no band varies.

    Args:
        product: ``(height, width, band)``.
        reference: of the same shape and units.
        ratio: high-resolution pixels per low-resolution pixel, at least 1.
        data_range: largest value that the data can have.
        mask: boolean ``(height, width)``, True where a pixel counts.
        block: side in pixels of the windows of UIQI and the blocks of Q2n.
        metrics: what to compute; another convention is a `Metric` of the function with ``convention`` bound.

    Raises:
        InputError: shapes, ratio or range do not fit, the mask is empty, or a valid pixel is not finite.
    """
    x, y, _ = image_pair(product, reference, None)
    _check_mask(mask, x.shape)
    _check_finite({"product": x, "reference": y}, mask)
    if ratio < 1 or not 0 < data_range < float("inf"):
        raise InputError(
            f"the ratio must be at least 1 and the data range positive and finite, but are {ratio} and {data_range}."
        )
    inputs = {"product": x, "reference": y, "mask": mask, "ratio": ratio, "data_range": data_range}
    return _measure_all(metrics, block, inputs)


def without_reference(
    product: ArrayLike,
    lr: ArrayLike,
    guide: ArrayLike,
    *,
    product_lr: ArrayLike,
    guide_lr: ArrayLike,
    mask: ArrayLike | None = None,
    block: int = 32,
    metrics: Mapping[str, Metric] = WITHOUT_REFERENCE,
) -> dict[str, float]:
    """The metrics of one product at full resolution, by name, from one compiled function.

    A metric is nan only where the mask leaves none of its blocks.

    Args:
        product: ``(height, width, band)``.
        lr: observed low-resolution image ``(h, w, band)``, at its own resolution or interpolated to the product's
            grid; the choice is part of the convention (see `jfusion.metrics.noreference`).
        guide: ``(height, width, guide band)``.
        product_lr: the product as the low-resolution sensor sees it, on the grid of ``lr``.
        guide_lr: the guide at the resolution and on the grid of ``lr``.
        mask: boolean ``(height, width)``, True where a pixel counts. The caller takes out what the blurs of
            ``product_lr`` and ``guide_lr`` have spread from pixels without data.
        block: side of the blocks in pixels, a multiple of the ratio of the two grids; for D_lambda_K on the grid of
            ``lr``.
        metrics: what to compute.

    Raises:
        InputError: shapes or block do not fit, the mask is empty, or a valid pixel is not finite.
    """
    images = {"product": product, "guide": guide}
    images_lr = {"lr": lr, "product_lr": product_lr, "guide_lr": guide_lr}
    shapes = {name: jnp.shape(image) for name, image in (images | images_lr).items()}
    if any(len(shape) != 3 for shape in shapes.values()):
        raise InputError(f"the images must be (height, width, band), but are {shapes}.")
    _check_mask(mask, shapes["product"])
    _check_finite(images, mask)
    _check_finite(images_lr, None if mask is None else low_resolution_mask(mask, shapes["lr"]))
    return _measure_all(metrics, block, images | images_lr | {"mask": mask})


def _measure_all(metrics: Mapping[str, Metric], block: int, inputs: dict[str, Any]) -> dict[str, float]:
    values = _measure(tuple(metric.function for metric in metrics.values()), block, inputs)
    return dict(zip(metrics, map(float, values), strict=True))


@partial(jax.jit, static_argnums=(0, 1))
def _measure(functions: tuple[Callable[..., Array], ...], block: int, inputs: dict[str, Any]) -> list[Array]:
    available = inputs | {"block": block}
    return [
        function(**{name: available[name] for name in inspect.signature(function).parameters if name in available})
        for function in functions
    ]


def _check_mask(mask: ArrayLike | None, shape: tuple[int, ...]) -> None:
    if len(shape) != 3:
        raise InputError(f"one image (height, width, band) is evaluated at a time, but the shape is {shape}.")
    if mask is not None and not pixel_mask(mask, shape).any():
        raise InputError("the mask has no valid pixel; True marks the pixels that count.")


def _check_finite(images: Mapping[str, ArrayLike], mask: ArrayLike | None) -> None:
    for name, image in images.items():
        bad = ~np.isfinite(image)
        if mask is not None:
            bad &= np.asarray(pixel_mask(mask, bad.shape))
        if bad.any():
            raise InputError(
                f"{name} must be finite in all valid pixels, but {bad.sum()} values are not; "
                "mark pixels without data in the mask."
            )
