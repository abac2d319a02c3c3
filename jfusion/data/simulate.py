"""Wald's protocol as one object: two people who hold the same `Protocol` simulate the same arrays."""

from __future__ import annotations

import dataclasses
import json
import math
from types import UnionType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jfusion import sensors
from jfusion.errors import InputError
from jfusion.operators import (
    BlockAverage,
    Grid,
    Observation,
    ObservationModel,
    SpatialResponse,
    SpectralResponse,
    box_psf,
    gaussian_psf,
    mtf_response,
)
from jfusion.operators.psf import FWHM_PER_SIGMA, Profiles, gaussian_profile, mtf_sigma
from jfusion.operators.spatial import Boundary, check_boundary, psf_size

Kernel = Literal["gaussian", "mtf", "box"]

Region = tuple[int, int, int, int]
"""First row, end row, first column, end column, in pixels of the truth."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a pair with truth is made from one image.

    Attributes:
        ratio: high-resolution pixels per low-resolution pixel.
        kernel: "gaussian" with a full width at half maximum of `width` low-resolution pixels, "mtf" with a gain of
            `width` at the low-resolution Nyquist frequency, or "box" (`width` is not used).
        width: see `kernel`.
        taps: a side of a Gaussian or MTF kernel, cut off and made to sum to one; None for three standard deviations to
            each side. An even number is symmetric about centres between two pixels, an odd one about pixels.
        centre: of the first low-resolution pixel on the high-resolution grid; None for nested grids.
        boundary: of the blur, see `jfusion.operators.Blur`.
        guide_sensor: name in `jfusion.sensors` whose spectral response makes the guide.
        guide_bands: bands of that sensor, empty for all that its table has.
        lr_snr_db: signal to noise ratio of `lr` in each band, in dB; None for no noise.
        guide_snr_db: the same of `guide`.
        seed: of the noise.
        crop: of the image, None for all of it.
        data_range: value that counts as full scale in the metrics, in the image's units.
    """

    ratio: int
    kernel: Kernel = "gaussian"
    width: float = 1.0
    taps: int | None = None
    centre: tuple[float, float] | None = None
    boundary: Boundary = "circular"
    guide_sensor: str = "landsat8_oli"
    guide_bands: tuple[str, ...] = ()
    lr_snr_db: float | None = None
    guide_snr_db: float | None = None
    seed: int = 0
    crop: Region | None = None
    data_range: float = 1.0

    def __post_init__(self) -> None:
        if self.ratio < 1:
            raise InputError(f"the ratio of a simulation must be at least 1, but is {self.ratio}.")
        check_boundary(self.boundary)
        if self.boundary == "valid":
            raise InputError("the boundary of a simulation must be circular or reflect: 'valid' loses pixels.")
        if self.kernel not in get_args(Kernel):
            raise InputError(f"the kernel must be one of {', '.join(get_args(Kernel))}, but is {self.kernel!r}.")
        if self.kernel != "box" and not 0 < self.width < (1 if self.kernel == "mtf" else math.inf):
            raise InputError(
                f"the width of a {self.kernel} kernel must be positive (below 1 for an MTF gain), but is {self.width}."
            )
        if self.taps is not None and (self.taps < 1 or self.kernel == "box"):
            raise InputError(
                f"taps must be a positive number for a Gaussian or MTF kernel, but are {self.taps} for a {self.kernel} "
                "kernel; a box has as many as the ratio."
            )

    @property
    def grid(self) -> Grid:
        """Ratio and centre."""
        return Grid.nested(self.ratio) if self.centre is None else Grid(self.ratio, self.centre)

    @property
    def psf(self) -> Profiles:
        """The point spread function."""
        if self.kernel == "box":
            return box_psf(self.grid)
        gaussian = self.kernel == "gaussian"
        sigma = self.width * self.ratio / FWHM_PER_SIGMA if gaussian else mtf_sigma(self.width, self.ratio)
        if self.taps is None:
            return gaussian_psf(sigma, self.grid)
        down, across = (gaussian_profile(sigma, self.taps, shift) for shift in self.grid.shift)
        return down, across

    @property
    def spatial(self) -> SpatialResponse:
        """The operator that makes `lr`, without its noise."""
        return SpatialResponse(self.psf, self.ratio, self.grid.phase, self.boundary)

    def spectral(self, wavelengths: np.ndarray) -> SpectralResponse:
        """The operator that makes `guide`, without its noise, from bands at ``wavelengths`` (nm)."""
        sensor = sensors.get(self.guide_sensor)
        if self.guide_bands:
            sensor = sensor.select(list(self.guide_bands))
        return SpectralResponse(jnp.asarray(sensor.response(wavelengths)))

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Protocol:
        """Back from `to_dict`, also after a round trip through JSON.

        Raises:
            InputError: names that a protocol does not have, or values of another type than theirs.
        """
        known = get_type_hints(Protocol)
        if unknown := set(values) - set(known):
            raise InputError(f"a protocol has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}.")
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        for name, value in arguments.items():
            if not _is_of(value, known[name]):
                kind = Protocol.__annotations__[name]
                raise InputError(f"{name} of a protocol must be of the type {kind}, but is {values[name]!r}.")
        return Protocol(**arguments)

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(self.to_dict(), indent=2)


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of the type of a protocol's attribute; an integer is a number too."""
    parts = get_args(kind)
    if get_origin(kind) is UnionType:
        return any(_is_of(value, part) for part in parts)
    if get_origin(kind) is Literal:
        return isinstance(value, str)
    if get_origin(kind) is tuple:
        parts = parts[:1] * len(value) if isinstance(value, tuple) and Ellipsis in parts else parts
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(_is_of, value, parts))
    return isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)


class Simulation(NamedTuple):
    """A pair with truth: arrays with a batch axis of one, the model that made them, and the scene itself."""

    observation: Observation
    model: ObservationModel
    target: Array


def _noise(key: Array, image: Array, snr_db: float | Array | None) -> tuple[Array, Array]:
    """Noisy image and the standard deviation of the noise, the same signal to noise ratio in each band."""
    if snr_db is None:
        return image, jnp.zeros(image.shape[-1], image.dtype)
    deviation = jnp.sqrt(jnp.mean(image**2, (0, 1, 2))) * 10 ** (-snr_db / 20)
    return image + deviation * jax.random.normal(key, image.shape, image.dtype), deviation


def crop_to_multiple(image: np.ndarray, ratio: int) -> np.ndarray:
    """Drops rows and columns at the end so that height and width are multiples of ``ratio``.

    Raises:
        InputError: nothing would be left.
    """
    height, width = (n // ratio * ratio for n in image.shape[:2])
    if not height or not width:
        raise InputError(f"an image of {image.shape[0]} x {image.shape[1]} pixels is too small for the ratio {ratio}.")
    return image[:height, :width]


def cropped(image: np.ndarray, protocol: Protocol) -> np.ndarray:
    """The part of an image ``(height, width, ...)`` that a pair is made from: the crop, down to multiples of the ratio.

    Raises:
        InputError: the crop leaves the image, or nothing would be left.
    """
    if protocol.crop is not None:
        top, bottom, left, right = protocol.crop
        if not (0 <= top < bottom <= image.shape[0] and 0 <= left < right <= image.shape[1]):
            raise InputError(
                f"the crop {protocol.crop} must lie inside the image of {image.shape[0]} x {image.shape[1]} pixels."
            )
        image = image[top:bottom, left:right]
    return crop_to_multiple(image, protocol.ratio)


def simulate(image: np.ndarray, wavelengths: np.ndarray, protocol: Protocol) -> Simulation:
    """Makes a hyperspectral-multispectral (or -panchromatic) pair from one hyperspectral image.

    Args:
        image: ``(height, width, band)``, physical values; cropped by the protocol and then to multiples of the ratio.
        wavelengths: of its bands, nm.
        protocol: what to simulate.

    Raises:
        InputError: the crop leaves the image, or a guide band has no support in the wavelengths.
    """
    target = jnp.asarray(cropped(image, protocol), jnp.float32)[None]
    return observe(
        target, protocol.spatial, protocol.spectral(wavelengths), protocol.grid, protocol.lr_snr_db,
        protocol.guide_snr_db, jax.random.key(protocol.seed),
    )  # fmt: skip


def observe(
    target: Array,
    spatial: SpatialResponse,
    spectral: SpectralResponse,
    grid: Grid,
    lr_snr_db: float | Array | None,
    guide_snr_db: float | Array | None,
    key: Array,
) -> Simulation:
    """What two sensors see of a scene, with noise of one signal to noise ratio in all bands; jittable.

    Args:
        target: the scene ``(batch, height, width, band)``, height and width multiples of the ratio.
        spatial, spectral: the operators that make `lr` and `guide`.
        grid: of the pair.
        lr_snr_db, guide_snr_db: signal to noise ratio in dB, over all images of the batch; None for no noise.
        key: of the noise.
    """
    lr_key, guide_key = jax.random.split(key)
    lr, lr_noise = _noise(lr_key, spatial(target), lr_snr_db)
    guide, guide_noise = _noise(guide_key, spectral(target), guide_snr_db)
    model = ObservationModel({"lr": spatial, "guide": spectral}, grid, {"lr": lr_noise, "guide": guide_noise})
    return Simulation({"lr": lr, "guide": guide}, model, target)


def cut(data: Simulation, region: Region) -> Simulation:
    """A region of a pair with truth.

    Raises:
        InputError: the region leaves the image, or does not begin and end with low-resolution pixels.
    """
    top, bottom, left, right = region
    height, width = data.target.shape[1:3]
    if not (0 <= top < bottom <= height and 0 <= left < right <= width) or any(n % data.model.ratio for n in region):
        raise InputError(
            f"the region {region} must lie inside {height} x {width} pixels, in multiples of {data.model.ratio}."
        )

    def part(image: Array) -> Array:
        rows, columns = (np.array(image.shape[1:3]) / (height, width)).tolist()
        return image[:, round(top * rows) : round(bottom * rows), round(left * columns) : round(right * columns)]

    return data._replace(observation=jax.tree.map(part, data.observation), target=part(data.target))


def cut_off(data: Simulation, region: Region) -> Simulation:
    """A region of a pair with truth, seen as if there were nothing around it.

    What a low-resolution pixel at the border has seen from outside, no model of the region alone explains. Where the
    spatial response is known, and reaches no further than the region, it gives way to what the response makes of the
    region; noise is kept.

    Raises:
        InputError: see `cut`.
    """
    if not explains(data.model, (region[1] - region[0], region[3] - region[2])):
        return cut(data, region)
    part = cut(data._replace(observation={**data.observation, "lr": unexplained(data)}), region)
    lr = part.observation["lr"] + seen(part.model, part.target)
    return part._replace(observation={**part.observation, "lr": lr})


def explains(model: ObservationModel, sides: tuple[int, ...]) -> bool:
    """Whether the spatial response is known and reaches no further than an image of these sides."""
    spatial = model.operators.get("lr")
    return isinstance(spatial, SpatialResponse) and max(psf_size(spatial.psf)) // 2 < min(sides)


def unexplained(data: Simulation) -> Array:
    """What `lr` holds beyond what its sensor makes of the truth, such as noise; `lr` must be known."""
    return data.observation["lr"] - seen(data.model, data.target)


@jax.jit
def seen(model: ObservationModel, target: Array) -> Array:
    """What the low-resolution sensor makes of the truth, image by image to save memory."""
    return jax.lax.map(lambda image: model["lr"](image[None])[0], target)


def reduce(observation: Observation, model: ObservationModel) -> Simulation:
    """Wald's protocol on a pair without truth: both images one ratio lower, so that `lr` becomes the truth.

    `lr` is degraded by the model's own spatial response (or, where it is unknown or goes through a warp or a mask of
    the scene, by an MTF-matched Gaussian), the guide by an MTF-matched Gaussian, both of the gains in
    `sensors.MTF_FALLBACK`, where a guide of several bands counts as multispectral; the guide keeps its place on the
    grid of `lr`, or where the PSF of `lr` shifts it. Noise levels are not told one ratio lower.

    Raises:
        InputError: `lr` is too small to be degraded once more.
    """
    ratio, grid = model.ratio, model.grid
    lr, guide = observation["lr"], observation["guide"]
    height, width = (n // ratio * ratio for n in lr.shape[-3:-1])
    if min(height, width) < 2 * ratio:
        raise InputError(
            f"the low-resolution image has {lr.shape[-3]} x {lr.shape[-2]} pixels, but at least {2 * ratio} x "
            f"{2 * ratio} are needed to degrade it once more; give a larger pair or a system that needs no training."
        )
    target = lr[..., :height, :width, :]
    guide = guide[..., : height * ratio, : width * ratio, :]
    spatial = model.operators["lr"]
    if not isinstance(spatial, SpatialResponse | BlockAverage):
        spatial = mtf_response(sensors.MTF_FALLBACK["ms"], grid)
    if isinstance(spatial, SpatialResponse):
        spatial = dataclasses.replace(spatial, boundary="reflect")
    kind = "pan" if guide.shape[-1] == 1 else "ms"
    onto_lr = mtf_response(sensors.MTF_FALLBACK[kind], grid, spatial)
    reduced = model.replace(operators={**model.operators, "lr": spatial}, noise={})
    return Simulation({"lr": spatial(target), "guide": onto_lr(guide)}, reduced, target)
