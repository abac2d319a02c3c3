"""How far a fitted product may be off: the spread of an ensemble, made an interval on the pair one ratio lower.

An ensemble over seeds says where a product is uncertain, and not by how much: its members share what the pair does not
tell. How much is measured where the truth is known. By Wald's protocol both images are degraded once more by the pair's
own model, the same ensemble is fitted to them, and its mean is compared with the low-resolution image as it came. Split
conformal prediction with normalised scores (Lei et al., "Distribution-Free Predictive Inference for Regression", 2018,
section 5.2) makes the interval: the scores of a band are ``|y - mean| / scale``, ``scale`` is the members' standard
deviation with a floor, and the half width in a pixel of the product is the quantile of the scores times the scale
there.

The guarantee of conformal prediction needs scores that are exchangeable. Those of one ratio lower and those of the
product are not by any theorem: what is assumed is that the error in units of the spread has the same distribution at
both scales. What noise the low-resolution image has counts as an error of the product, which widens the interval.
Neighbouring pixels go together, so that the level is one of the whole scene and not of each of its parts.
`experiments.uncertainty` measures on scenes with truth how far all this holds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jfusion.catalogue import Fit, System
from jfusion.data.geotiff import HALF_WIDTH
from jfusion.data.scene import Scene
from jfusion.data.simulate import reduce
from jfusion.errors import InputError
from jfusion.inference.fits import Course, check_fitted, fit
from jfusion.inference.pair import in_blocks
from jfusion.operators import Observation, ObservationModel
from jfusion.progress import Progress, silent

MEMBERS = 4
"""Of an ensemble."""

FLOOR = 0.1
"""Of the scale of a pixel, in root mean squares over the pixels of the band: members may agree by chance."""


def scale(members: Array) -> Array:
    """The members' standard deviation with a floor, in the unit of the images.

    Args:
        members: ``(members, batch, height, width, band)``.

    Returns:
        ``(batch, height, width, band)``.
    """
    variance = jnp.var(members, axis=0, ddof=1)
    return jnp.sqrt(variance + FLOOR**2 * variance.mean((-3, -2), keepdims=True))


def rank(pixels: int, level: float) -> int:
    """The place of the score, in rising order and from 1, that bounds the share ``level`` of new ones.

    Raises:
        InputError: no level of an interval, or more than so many pixels can tell.
    """
    if not 0 < level < 1:
        raise InputError(f"the level of an interval must lie between 0 and 1, but is {level:g}; say 0.9.")
    place = math.ceil(round((pixels + 1) * level, 9))
    if place > pixels:
        least = math.ceil(round(level / (1 - level), 6))
        raise InputError(
            f"an interval of level {level:g} needs {least} pixels one ratio lower, but there are {pixels}; lower the "
            "level or give a larger pair."
        )
    return place


def quantiles(members: Array, truth: Array, level: float, valid: Array | None = None) -> Array:
    """The conformal quantile of ``|truth - mean| / scale`` in each band.

    Args:
        members: ``(members, batch, height, width, band)``.
        truth: ``(batch, height, width, band)``.
        level: share of the pixels whose truth the interval is to hold.
        valid: ``(height, width)``, which pixels have a score; all by default.

    Returns:
        ``(band,)``.

    Raises:
        InputError: see `rank`.
    """
    least = jnp.finfo(members.dtype).tiny
    scores = jnp.abs(truth - members.mean(0)) / jnp.maximum(scale(members), least)
    scores = (scores if valid is None else scores[:, valid]).reshape(-1, scores.shape[-1])
    return jnp.sort(scores, axis=0)[rank(len(scores), level) - 1]


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """An ensemble and what it was measured by.

    Attributes:
        fit: product and learned operators are the members' means.
        course: of the fit of the members.
        members: ``(members, batch, height, width, band)``.
        lower: the members one ratio lower, likewise.
        truth: of these, ``(batch, height, width, band)``.
        valid: which of its pixels tell, ``(height, width)``; None where all do.
    """

    fit: Fit
    course: Course
    members: Array
    lower: Array
    truth: Array
    valid: Array | None = None

    def half_width(self, level: float) -> Array:
        """Half the width of the interval about the product, ``(batch, height, width, band)``; see `quantiles`."""
        return quantiles(self.lower, self.truth, level, self.valid) * scale(self.members)


def calibrated(
    system: System,
    observation: Observation,
    model: ObservationModel,
    seed: int = 0,
    *,
    effort: float = 1.0,
    budget: float | None = None,
    progress: Progress = silent,
    sizes: Mapping[str, Any] | None = None,
    valid: Mapping[str, np.ndarray] | None = None,
    folder: Path | None = None,
    resume: bool = True,
) -> Calibrated:
    """Fits an ensemble to a pair and, with as many steps, to the pair one ratio lower.

    Args:
        system, observation, model: see `jfusion.inference.fits.fit`.
        seed: of the members.
        effort, progress, sizes, folder, resume: likewise.
        budget: seconds for both; the pair itself may take half of them.
        valid: likewise; the pixels of `lr` that are valid calibrate.

    Raises:
        InputError: the pair is too small to be degraded once more, or see `jfusion.inference.fits.fit`.
        RunError: see there.
    """
    keys, half = jax.random.split(jax.random.key(seed), MEMBERS), None if budget is None else budget / 2
    lower = reduce(observation, model)
    told = {key: None if model.operators[key] is None else operator for key, operator in lower.model.operators.items()}
    valid_below = {
        name: in_blocks(mask, model.ratio)[tuple(map(slice, lower.observation[name].shape[1:3]))]
        for name, mask in (valid or {}).items()
    }

    def members(name: str, observation: Observation, model: ObservationModel, **settings: Any) -> tuple[Fit, Course]:
        return fit(
            system, observation, model, keys, budget=half, progress=progress, sizes=sizes,
            folder=folder and folder / name, resume=resume, **settings,
        )  # fmt: skip

    whole, course = members("product", observation, model, effort=effort, valid=valid)
    below, _ = members(
        "one_ratio_lower",
        lower.observation,
        lower.model.replace(operators=told),
        effort=effort * course.share,
        valid=valid_below,
    )
    mean = Fit(whole.product.mean(0), _mean(whole.model, model), whole.losses)
    counts = None if valid is None else jnp.asarray(valid["lr"])[: lower.target.shape[1], : lower.target.shape[2]]
    return Calibrated(mean, course, whole.product, below.product, lower.target, counts)


def _mean(found: ObservationModel, given: ObservationModel) -> ObservationModel:
    """The model with the means over members of the operators that were found."""
    operators = {
        key: operator if operator is given.operators[key] else jax.tree.map(lambda x: x.mean(0), operator)
        for key, operator in found.operators.items()
    }
    return given.replace(operators=operators)


def check_interval(system: System, size: tuple[int, ...], ratio: int, level: float, valid: Array | None = None) -> None:
    """Raises InputError unless the system is fitted and the pair can have an interval of that level.

    Args:
        system: a row of the catalogue.
        size: height and width of the low-resolution image.
        ratio: of the pair.
        level: of the interval.
        valid: ``(height, width)``, which pixels calibrate; all by default.
    """
    check_fitted(system)
    height, width = (n // ratio * ratio for n in size)
    rank(height * width if valid is None else int(jnp.sum(valid[:height, :width])), level)


def with_half_width(outline: Scene, level: float) -> Scene:
    """The outline of a product with one more band, for the half width of its interval; its image is zero.

    The band has the product's data type and, so that its numbers are in the unit of the product's, the smallest of its
    scales and no offset.
    """
    bands, spectral = outline.bands, (outline.wavelengths, outline.fwhm)
    names = outline.band_names or tuple(f"band {k}" for k in range(1, bands + 1))
    scales, offsets = (np.broadcast_to(value, bands) for value in (outline.scale, outline.offset))
    wavelengths, fwhm = (None if values is None else np.append(values, np.nan) for values in spectral)
    return dataclasses.replace(
        outline,
        image=np.broadcast_to(np.zeros((), outline.image.dtype), (outline.height, outline.width, bands + 1)),
        band_names=(*names, f"{HALF_WIDTH} {100 * level:g} % interval, mean over bands"),
        colours=None if outline.colours is None else (*outline.colours, "undefined"),
        wavelengths=wavelengths,
        fwhm=fwhm,
        scale=np.append(scales, scales.min()),
        offset=np.append(offsets, 0.0),
    )


def as_numbers(half_width: np.ndarray, unit: float, dtype: np.dtype) -> np.ndarray:
    """Half widths in numbers of that unit, rounded up where the type is an integer: no interval is stored narrower."""
    numbers = half_width / unit
    return np.ceil(numbers) if dtype.kind in "iu" else numbers
