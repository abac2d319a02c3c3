"""Two scenes become an observation and its model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jfusion import sensors
from jfusion.data.geometry import PairGeometry, pair_grid
from jfusion.data.geotiff import holds
from jfusion.data.scene import Scene, marked
from jfusion.errors import InputError
from jfusion.operators import Grid, Observation, ObservationModel, SpatialResponse, SpectralResponse, mtf_response
from jfusion.operators.registration import SAME_GROUND
from jfusion.sensors import Sensor
from jfusion.tasks import HYPERSPECTRAL_BANDS

GROUND = 4096
"""Low-resolution pixels, evenly spread, that tell whether both images show the same ground."""

PSF_REACH = 2
"""How far the PSF of a low-resolution pixel reaches, in such pixels; as far as `jfusion.operators.estimate` lets it."""

NAMED = 20
"""Bands of a sensor whose names a message holds; of more it has the first three."""

OTHER_SCALE = 1.5
"""Factor between a guide band and what the tables say of it from which on both images are taken to differ in scale."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """A low-resolution image and its guide, ready to be fused.

    Attributes:
        lr, guide: the scenes, cropped to what they share.
        geometry: how their grids lie on each other.
        model: what is known of the two sensors; None operators where nothing is.
        remark: on sensors that were named, but are not used; empty where there is nothing to say.
    """

    lr: Scene
    guide: Scene
    geometry: PairGeometry
    model: ObservationModel
    remark: str = ""

    @property
    def observation(self) -> Observation:
        """Both images in physical units with a batch axis of one; see `filled` for invalid pixels."""
        images = {"lr": self.lr.physical(), "guide": self.guide.physical()}
        return {key: jnp.asarray(image)[None] for key, image in filled(images, self.masks).items()}

    @property
    def valid(self) -> np.ndarray:
        """`(height, width)` of the guide: True where neither image misses a pixel that the product leans on."""
        return self.guide.valid & ~spread(~self.lr.valid, self.geometry.ratio)

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """The valid pixels of each image of the observation, `(height, width)`."""
        return {"lr": self.lr.valid, "guide": self.guide.valid}


def in_blocks(valid: np.ndarray, ratio: int) -> np.ndarray:
    """Which blocks of ``ratio`` x ``ratio`` pixels are wholly valid; an incomplete one at the end is left out."""
    height, width = (n // ratio for n in valid.shape)
    return np.all(valid[: height * ratio, : width * ratio].reshape(height, ratio, width, ratio), (1, 3))


def observed(valid: Mapping[str, np.ndarray], ratio: int) -> np.ndarray:
    """`(h, w)` of the low-resolution image: True where it is valid, and the guide too as far as its PSF reaches.

    Raises:
        InputError: not the masks of `lr` and `guide`, whose sides have this ratio.
    """
    shapes = {name: mask.shape for name, mask in valid.items()}
    if set(shapes) != {"lr", "guide"} or shapes["guide"] != tuple(ratio * n for n in shapes["lr"]):
        raise InputError(
            f"masks of valid pixels are those of lr, (h, w), and of guide, {ratio} times as high and wide, but came as "
            f"{shapes}."
        )
    return valid["lr"] & ~grown(~in_blocks(valid["guide"], ratio), PSF_REACH)


def grown(invalid: np.ndarray, pixels: int = 1) -> np.ndarray:
    """Invalid pixels, and all pixels as near to one."""
    if not invalid.any():
        return invalid
    from scipy.ndimage import binary_dilation

    return binary_dilation(invalid, np.ones((3, 3)), pixels)


def spread(invalid: np.ndarray, ratio: int) -> np.ndarray:
    """Invalid low-resolution pixels, grown by one, on the guide's grid."""
    return np.repeat(np.repeat(grown(invalid), ratio, 0), ratio, 1)


def as_input(scene: Scene) -> Array:
    """Physical values `(1, height, width, band)`; invalid pixels take their nearest valid neighbour's value."""
    return jnp.asarray(_nearest(scene.physical(), scene.valid))[None]


def filled(images: Mapping[str, np.ndarray], valid: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Both images with values in their invalid pixels, those of the nearest valid one.

    Where either image has a hole, out of sight of every pixel that counts, both show the ground of the nearest place
    that both have seen: one that copied what lies around the hole would contradict the other, which has the truth there
    or copied something else, and statistics of the whole scene would believe it.

    Args:
        images: ``lr`` and ``guide``, `(height, width, band)`.
        valid: their masks, `(height, width)`.
    """
    images = {key: _nearest(image, valid[key]) for key, image in images.items()}
    ratio = valid["guide"].shape[0] // valid["lr"].shape[0]
    seen = valid["lr"] & in_blocks(valid["guide"], ratio)
    hole = ~grown(valid["lr"] & ~in_blocks(~valid["guide"], ratio), PSF_REACH)
    if not (hole.any() and seen.any()):
        return images
    from scipy.ndimage import distance_transform_edt

    at = distance_transform_edt(~seen, return_distances=False, return_indices=True)
    offsets = np.indices(valid["guide"].shape) % ratio
    sources = {"lr": at, "guide": ratio * np.repeat(np.repeat(at, ratio, 1), ratio, 2) + offsets}
    holes = {"lr": hole, "guide": np.repeat(np.repeat(hole, ratio, 0), ratio, 1)}
    return {key: np.where(holes[key][..., None], image[tuple(sources[key])], image) for key, image in images.items()}


def _nearest(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    if valid.all():
        return image
    from scipy.ndimage import distance_transform_edt  # slow to import, and most pairs have no need of it

    return image[tuple(distance_transform_edt(~valid, return_distances=False, return_indices=True))]


def sensor_bands(scene: Scene, name: str) -> Sensor:
    """The bands of a sensor that a scene holds: those that ``name`` tells, else by their names, else by their number.

    Args:
        scene: an image.
        name: of a sensor, or of it and its bands in the order of the image, such as ``landsat8_oli:B4,B3,B2``.

    Raises:
        InputError: unknown sensor or band, or no set of its bands has the scene's number.
    """
    name, _, told = name.partition(":")
    sensor = sensors.get(name)
    if told:
        chosen = sensor.select([band.strip() for band in told.split(",")])
        if len(chosen.bands) != scene.bands:
            raise InputError(
                f"{scene.name} has {scene.bands} bands, but {name}:{told} names {len(chosen.bands)}; name one for each."
            )
        return chosen
    if scene.band_names is not None and set(scene.band_names) <= set(sensor.band_names):
        return sensor.select(list(scene.band_names))
    for part in (sensor.ms, sensor.pan, sensor):
        if len(part.bands) == scene.bands:
            return part
    names = sensor.band_names if len(sensor.bands) <= NAMED else (*sensor.band_names[:3], "...")
    raise InputError(
        f"{scene.name} has {scene.bands} bands, but {name} has {len(sensor.ms.bands)} multispectral and "
        f"{len(sensor.pan.bands)} panchromatic ones ({', '.join(names)}); name another sensor, give all "
        f"bands of one kind, or say which ones these are, in the order of the image, such as {name}:"
        f"{','.join(sensor.band_names[:2])}."
    )


def as_named(scene: Scene, name: str | None) -> Scene:
    """The scene with the names and wavelengths that its file lacks, of the sensor that the user named if any.

    Args:
        scene: an image.
        name: see `sensor_bands`.
    """
    if name is None:
        return scene
    sensor = sensor_bands(scene, name)
    told: dict[str, Any] = {}
    if scene.band_names is None:
        told["band_names"] = sensor.band_names
    if scene.wavelengths is None:
        told |= {"wavelengths": sensor.centres, "fwhm": sensor.fwhm}
    return dataclasses.replace(scene, **told)


def _known(scene: Scene, named: str | None) -> tuple[Sensor | None, str]:
    """The bands of the sensor that is ``named``, else of the one in the metadata; a remark where that is of no use."""
    if named is not None:
        return sensor_bands(scene, named), ""
    try:
        return (sensor_bands(scene, scene.sensor) if scene.sensor else None), ""
    except InputError:
        known = scene.sensor in sensors.names()
        reason = f"whose bands are not the {scene.bands} of the image" if known else "of which there is no table"
        return None, f"the sensor of {scene.name} counts as not known: its metadata say {scene.sensor}, {reason}"


def _spatial(grid: Grid, sensor: Sensor | None) -> SpatialResponse | None:
    if sensor is None:
        return None
    gains = sensor.mtf_gains
    gain = float(gains[0]) if np.ptp(gains) == 0 else jnp.asarray(gains, jnp.float32)
    return mtf_response(gain, grid)


def _spectral(lr: Scene, sensor: Sensor | None, named: bool) -> tuple[SpectralResponse | None, str]:
    """The response of the guide's sensor to the bands of ``lr``, and a remark where it was named and cannot be used."""
    if sensor is None:
        return None, ""
    if lr.wavelengths is None or lr.bands < HYPERSPECTRAL_BANDS:
        reason = f"fewer than {HYPERSPECTRAL_BANDS} bands" if lr.bands < HYPERSPECTRAL_BANDS else "no wavelengths"
        return None, f"the guide's sensor {sensor.name} is not used, since {lr.name} has {reason}" if named else ""
    try:
        return SpectralResponse(jnp.asarray(sensor.response(lr.wavelengths, lr.fwhm))), ""
    except InputError as error:
        if named:
            raise
        return None, f"the guide's sensor {sensor.name} is not used: {str(error).partition(';')[0]}"


def sensor_model(
    lr: Scene, guide: Scene, geometry: PairGeometry, lr_sensor: str | None = None, guide_sensor: str | None = None
) -> tuple[ObservationModel, str]:
    """What is known of the two sensors, and a remark on what was named but is not used.

    The PSF follows from the MTF gains of the low-resolution sensor, the SRF from the guide's response at the
    wavelengths of a hyperspectral image. What the sensors do not tell is None and can be estimated. A sensor in the
    metadata that has no table, or not the scene's bands, is not known.

    Args:
        lr, guide: the two scenes; only their metadata are used.
        geometry: how their grids lie on each other.
        lr_sensor, guide_sensor: see `sensor_bands`; in place of those in the scenes' metadata.

    Raises:
        InputError: a sensor that was named has no table, not the scene's bands, or bands that ``lr`` does not cover.
    """
    (lr_bands, of_lr), (guide_bands, of_guide) = _known(lr, lr_sensor), _known(guide, guide_sensor)
    grid = Grid(geometry.ratio, geometry.centre)
    spectral, unused = _spectral(lr, guide_bands, guide_sensor is not None)
    model = ObservationModel({"lr": _spatial(grid, lr_bands), "guide": spectral}, grid)
    return model, "; ".join(filter(None, (of_lr, of_guide, unused)))


def make_pair(lr: Scene, guide: Scene, lr_sensor: str | None = None, guide_sensor: str | None = None) -> Pair:
    """Checks two scenes against each other and says what is known of their sensors; see `sensor_model`.

    Raises:
        InputError: the scenes do not fit each other (see `jfusion.data.geometry.pair_grid`), a sensor that was named
            does not suit them, or no pixel is valid in both.
    """
    geometry = pair_grid(lr, guide)
    lr, guide = as_named(lr, lr_sensor), as_named(guide, guide_sensor)
    pair = Pair(*geometry.crop(lr, guide), geometry, *sensor_model(lr, guide, geometry, lr_sensor, guide_sensor))
    check_valid(pair)
    return pair


def check_nodata(nodata: float | None, *images: Scene) -> None:
    """Raises InputError where no image has a data type that can be ``nodata``."""
    types = [image.image.dtype for image in images]
    if nodata is not None and not any(holds(dtype, nodata) for dtype in types):
        came = ", ".join(dict.fromkeys(str(dtype) for dtype in types))
        raise InputError(f"no image has a pixel of value {nodata:g}, since they are {came}; correct --nodata.")


def check_valid(pair: Pair) -> None:
    """Raises InputError where no pixel is valid in both images."""
    for scene in (pair.lr, pair.guide):
        if not scene.valid.any():
            nothing = () if scene.nodata is None else marked(scene.image, scene.nodata).all((0, 1))
            empty = ", ".join(str(band + 1) for band in np.flatnonzero(nothing))
            advice = f"leave out its empty bands ({empty})" if empty else "check its nodata value"
            raise InputError(f"{scene.name} is nodata wherever both images overlap; {advice}.")
    if not pair.valid.any():
        raise InputError(f"{pair.lr.name} and {pair.guide.name} have no valid pixel in common; check their nodata.")


def scale_remark(pair: Pair) -> str:
    """A remark where a guide band is not on the scale that the sensors' tables give it; empty where all are, or none.

    Compared are the means over the ground that both images show.
    """
    spectral, ratio = pair.model.operators["guide"], pair.geometry.ratio
    seen = observed(pair.masks, ratio)
    if spectral is None or not seen.any():
        return ""
    fine = np.repeat(np.repeat(seen, ratio, 0), ratio, 1)
    guide, lr = (scene.physical()[part].mean(0) for scene, part in ((pair.guide, fine), (pair.lr, seen)))
    said = np.asarray(spectral(jnp.asarray(lr)[None, None, None]))[0, 0, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = guide / said
        off = np.abs(np.log(factor))
    worst = int(np.argmax(np.where(np.isfinite(off), off, -1)))
    if not off[worst] > np.log(OTHER_SCALE):
        return ""
    return (
        f"band {worst + 1} of the guide is {factor[worst]:.2g} times what the sensors' tables make of {pair.lr.name}; "
        "where the two images are not on one scale, say --estimate"
    )


def place_remark(pair: Pair) -> str:
    """A remark where the images hardly show the same ground; empty where they do, or too few pixels say so."""
    ratio, seen = pair.geometry.ratio, observed(pair.masks, pair.geometry.ratio)
    places = np.argwhere(seen)[:: max(1, int(seen.sum()) // GROUND)]
    if len(places) < 4 * (pair.lr.bands + 1):
        return ""
    rows, columns = places.T
    lr, guide = pair.lr.physical(), pair.guide.physical()
    blocks = guide.reshape(lr.shape[0], ratio, lr.shape[1], ratio, -1).swapaxes(1, 2)
    target, on = (x - x.mean(0) for x in (blocks[rows, columns].mean((1, 2)), lr[rows, columns]))
    left = target - on @ np.linalg.lstsq(on, target, rcond=1e-6)[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = float(np.nan_to_num(1 - (left**2).sum(0) / (target**2).sum(0)).max())
    if share >= SAME_GROUND:
        return ""
    return (
        f"{pair.lr.name} explains {share:.0%} of the guide at most, so that they may not show the same ground; where "
        "one is displaced against the other, say --register"
    )


def unused(dtype: np.dtype) -> float:
    """A number that images of this type hold least: nan, the lowest of signed integers, 0 of others."""
    if dtype.kind == "f":
        return math.nan
    return int(np.iinfo(dtype).min)


def product_outline(
    lr: Scene, guide: Scene, name: str = "product", masked: bool = False, dtype: np.dtype | None = None
) -> Scene:
    """The product's metadata: on the guide's grid, with the bands, numbers and data type of ``lr``; its image is zero.

    The nodata value is that of ``lr``, or an `unused` one of ``dtype``, that of ``lr`` by default, where it cannot hold
    that, or only the guide can have invalid pixels, or the product is ``masked`` otherwise, or none.
    """
    dtype = lr.image.dtype if dtype is None else dtype
    kept = lr.nodata is not None and holds(dtype, lr.nodata)
    masked = masked or any(value is not None for value in (lr.nodata, guide.nodata, guide.mask, lr.mask))
    return dataclasses.replace(
        lr,
        image=np.broadcast_to(np.zeros((), lr.image.dtype), (guide.height, guide.width, lr.bands)),
        name=name,
        mask=None,
        nodata=lr.nodata if kept else unused(dtype) if masked else None,
        transform=guide.transform,
        crs=guide.crs,
    )


def product_scene(pair: Pair, product: np.ndarray) -> Scene:
    """The product `(height, width, band)`, in physical units, as a scene in the numbers of ``lr``."""
    valid = pair.valid
    return dataclasses.replace(
        product_outline(pair.lr, pair.guide),
        image=np.where(valid[..., None], pair.lr.digital(product), 0),
        mask=None if valid.all() else valid,
    )
