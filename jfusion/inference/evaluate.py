"""How good a product is: against the truth where there is one, else against what the sensors gave."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jfusion import metrics
from jfusion.data import readers
from jfusion.data.geometry import MAX_DRIFT, MAX_RATIO_ERROR, pair_grid, same_crs
from jfusion.data.readers.checks import existing_file
from jfusion.data.scene import Scene
from jfusion.errors import InputError
from jfusion.inference.pair import Pair, as_input, check_nodata, in_blocks, make_pair, observed
from jfusion.operators import Displaced, Observation, ObservationModel, mtf_response
from jfusion.operators.registration import displaced, in_place, register, shown
from jfusion.sensors import MTF_FALLBACK

BLOCK = 32
"""Side of the blocks of UIQI, Q2n and the metrics without reference; less where an image is smaller."""

CONVENTIONS: dict[str, tuple[str, str]] = {
    **{
        m.name: (m.convention, m.source)
        for m in (*metrics.WITH_REFERENCE.values(), *metrics.WITHOUT_REFERENCE.values())
    },
    "residual lr": ("relative residual of the product seen by the low-resolution sensor", "|A x - y| / |y|"),
    "residual guide": ("relative residual of the product seen by the guide's sensor", "|A x - y| / |y|"),
    "PSF error": ("relative distance of the PSF that was found from the true one", "|B̂ - B| / |B|"),
    "SRF error": ("relative distance of the spectral response that was found from the true one", "|R̂ - R| / |R|"),
    "SRF error on lr": ("the same of what the spectral responses make of lr", "|R̂ y - R y| / |R y|"),
}
"""What each metric computes and where it comes from, by name."""

SSIM_WINDOW = 11
"""Side of the window of SSIM in the convention of the tables."""

PAIRS_OF_BANDS = ("D_lambda", "QNR")
"""Metrics that an image of one band does not have."""


@jax.jit
def _seen(operator: Callable[[Array], Any], image: Array) -> Any:
    return operator(image)


def _single(image: Array | np.ndarray) -> Array | np.ndarray:
    """An image without a leading axis of one."""
    return image[0] if image.ndim == 4 and len(image) == 1 else image


def against_reference(
    product: Array | np.ndarray,
    reference: Array | np.ndarray,
    *,
    ratio: int,
    data_range: float,
    mask: np.ndarray | None = None,
) -> dict[str, float]:
    """The metrics with reference of one product, see `jfusion.metrics.evaluate`.

    Product and reference are ``(height, width, band)``, or have a leading axis of one. A product that is smaller than
    the window of SSIM has none.
    """
    product, reference = _single(product), _single(reference)
    across = min(product.shape[:2])
    defined = {k: m for k, m in metrics.WITH_REFERENCE.items() if across >= SSIM_WINDOW or k != "SSIM"}
    return metrics.evaluate(
        product, reference, ratio=ratio, data_range=data_range, mask=mask, block=min(BLOCK, across), metrics=defined
    )


def without_reference(
    product: Array | np.ndarray, observation: Observation, model: ObservationModel, mask: np.ndarray | None = None
) -> dict[str, float]:
    """The metrics at full resolution of one product, ``(height, width, band)`` or with a leading axis of one, and its
    residuals.

    The product and the guide are degraded by the model's spatial response or, where it is not known, by MTF-matched
    Gaussians of the gains in `sensors.MTF_FALLBACK`; residuals are given for the sensors whose operators are known.
    A displaced `lr` is put in its place first; the mask leaves out what it does not show. Of what is masked, nothing
    counts that the PSF spreads it to. An image of one band has no `PAIRS_OF_BANDS`, and one of fewer than two ratios of
    low-resolution pixels a side, which no block fits into, has only the residuals.
    """
    product = jnp.asarray(_single(product))[None]
    ratio, grid, spatial = model.ratio, model.grid, model.operators["lr"]
    if isinstance(spatial, Displaced):
        observation, spatial = {**observation, "lr": in_place(observation, model)}, spatial.response
        model = model.replace(operators=model.operators | {"lr": spatial})
    spatial = spatial or mtf_response(MTF_FALLBACK["ms"], grid)
    onto_lr = mtf_response(MTF_FALLBACK["pan"], grid, spatial)
    product_lr, guide_lr = _seen(spatial, product), _seen(onto_lr, observation["guide"])
    given, predicted = observation, _seen(model, product)
    if mask is not None:
        unhurt = observed({"lr": in_blocks(mask, ratio), "guide": mask}, ratio)
        counts = {"lr": unhurt[..., None], "guide": mask[..., None]}
        given, predicted = ({k: image * counts[k] for k, image in images.items()} for images in (given, predicted))
        mask = np.repeat(np.repeat(unhurt, ratio, 0), ratio, 1)
    across = min(product_lr.shape[1:3]) // ratio
    defined = {k: m for k, m in metrics.WITHOUT_REFERENCE.items() if product.shape[-1] > 1 or k not in PAIRS_OF_BANDS}
    values = {} if across < 2 or (mask is not None and not mask.any()) else metrics.without_reference(
        product[0], observation["lr"][0], observation["guide"][0], product_lr=product_lr[0], guide_lr=guide_lr[0],
        mask=mask, block=min(max(math.ceil(BLOCK / ratio), 2), across) * ratio, metrics=defined,
    )  # fmt: skip
    residuals = metrics.consistency(given, predicted)
    return values | {f"residual {key}": float(value[0]) for key, value in residuals.items()}


def _matching(product: Scene, reference: Scene) -> tuple[Scene, Scene]:
    if not math.isclose(across := _pixel(product, reference), 1, rel_tol=MAX_RATIO_ERROR):
        raise InputError(
            f"the reference must have pixels of the product's size, but one of {reference.name} is {across:.3g} times "
            f"as wide as one of {product.name}; give the truth on the product's grid, or --lr and --guide in its place."
        )
    geometry = pair_grid(product, reference)
    corner = _corner(product, reference)
    _check_beside(product, reference, corner - np.round(corner))
    product, reference = geometry.crop(product, reference)
    if product.bands != reference.bands:
        raise InputError(
            f"{product.name} has {product.bands} bands and {reference.name} {reference.bands}; give the same bands."
        )
    return product, reference


def _pixel(product: Scene, reference: Scene) -> float:
    """Width of a pixel of the reference in pixels of the product; 1 where their places cannot be compared."""
    if product.transform is None and reference.transform is None:
        return product.width / reference.width
    if product.transform is None or reference.transform is None or not same_crs(product.crs, reference.crs):
        return 1.0
    return float(np.hypot(*reference.transform[0:4:3]) / np.hypot(*product.transform[0:4:3]))


def _corner(product: Scene, other: Scene) -> np.ndarray:
    """(row, column) of the product's corner on the other's grid; 0 where their places cannot be compared."""
    if product.transform is None or other.transform is None or not same_crs(product.crs, other.crs):
        return np.zeros(2)
    return np.array((~other.transform @ product.transform @ (0, 0))[::-1])


def _check_beside(product: Scene, other: Scene, pixels: np.ndarray) -> None:
    """Raises InputError where the product lies beside an image, by (row, column) in its pixels."""
    if (beside := float(np.abs(pixels).max())) > MAX_DRIFT:
        raise InputError(
            f"{product.name} lies {beside:.3g} pixels beside {other.name}; give what was made on that grid, or "
            "resample one of them onto the other's."
        )


def evaluate_files(
    product: Path,
    reference: Path | None = None,
    lr: Path | None = None,
    guide: Path | None = None,
    *,
    ratio: int | None = None,
    data_range: float | None = None,
    lr_sensor: str | None = None,
    guide_sensor: str | None = None,
    lr_key: str | None = None,
    guide_key: str | None = None,
    nodata: float | None = None,
    registering: bool = False,
) -> dict[str, tuple[float, str]]:
    """Value and convention of every metric of a product, in physical units.

    Args:
        product: the fused image.
        reference: the truth; without it ``lr`` and ``guide`` are needed.
        lr, guide: the pair that was fused.
        ratio: of the pair, needed by ERGAS where only the reference is given.
        data_range: full scale for PSNR and SSIM; the reference's maximum by default.
        lr_sensor, guide_sensor: see `jfusion.inference.pair.sensor_model`.
        lr_key, guide_key: which array of a MATLAB or HDF5 file.
        nodata: value of invalid pixels in any of the files, besides their own.
        registering: whether ``lr`` may be displaced against the guide, as it was when a product was made that way; only
            without a reference.

    Raises:
        InputError: files that do not fit each other.
        RunError: the images could not be registered.
    """
    for path in (product, reference, lr, guide):
        if path is not None:
            existing_file(path)
    paired = lr is not None and guide is not None
    if reference is None and not paired:
        raise InputError("give --reference FILE, or --lr FILE and --guide FILE of the pair without a reference.")
    if reference is not None and not paired and ratio is None:
        raise InputError("ERGAS needs the ratio of the pair; say --ratio N or give --lr and --guide.")
    if reference is not None and registering:
        raise InputError("registration is of lr and guide, for metrics without a reference; leave out --register.")
    image = readers.read(product, nodata=nodata)
    truth = None if reference is None else readers.read(reference, nodata=nodata)
    pair: Pair | None = None
    if lr is not None and guide is not None:
        images = readers.read(lr, lr_key, nodata), readers.read(guide, guide_key, nodata)
        pair = make_pair(*images, lr_sensor, guide_sensor)
    read = [image, *([] if truth is None else [truth]), *([] if pair is None else [pair.lr, pair.guide])]
    check_nodata(nodata, *read)
    ratio = ratio if pair is None else pair.geometry.ratio
    if truth is not None and ratio is not None:
        values = _with_truth(image, truth, ratio, data_range)
    elif pair is not None:
        values = _with_pair(image, pair, registering)
    return {name: (value, ": ".join(CONVENTIONS[name])) for name, value in values.items()}


def _with_truth(image: Scene, truth: Scene, ratio: int, data_range: float | None) -> dict[str, float]:
    image, truth = _matching(image, truth)
    valid = image.valid & truth.valid
    if not valid.any():
        raise InputError(f"{image.name} and the reference have no valid pixel in common; compare the same area.")
    peak = float(truth.physical()[truth.valid].max()) if data_range is None else data_range
    return against_reference(as_input(image), as_input(truth), ratio=ratio, data_range=peak, mask=valid)


def _with_pair(image: Scene, pair: Pair, registering: bool) -> dict[str, float]:
    if (image.height, image.width, image.bands) != (pair.guide.height, pair.guide.width, pair.lr.bands):
        raise InputError(
            f"{image.name} must have {pair.lr.bands} bands on the {pair.guide.height} x {pair.guide.width} pixels "
            f"that the pair shares, but has {image.bands} on {image.height} x {image.width}; fuse this pair."
        )
    _check_beside(image, pair.guide, _corner(image, pair.guide))
    valid, model, ratio = image.valid & pair.valid, pair.model, pair.geometry.ratio
    if registering:
        found = register(pair.observation, model, jnp.asarray(observed(pair.masks, ratio)))
        found.check()
        model = displaced(model, found.displacement)
        seen = np.asarray(shown(found.displacement, jnp.asarray(pair.lr.valid)))
        valid = image.valid & pair.guide.valid & np.repeat(np.repeat(seen, ratio, 0), ratio, 1)
    return without_reference(as_input(image), pair.observation, model, None if valid.all() else valid)
