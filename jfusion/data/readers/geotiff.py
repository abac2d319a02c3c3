"""GeoTIFF, the other single-file images that GDAL decodes (JPEG 2000, Erdas Imagine, PNG, JPEG), and stacks (VRT).

An alpha band, which is a mask, and the half widths that `jfusion fuse --uncertainty` writes beside a product, are no
bands of the image.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, compress
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from jfusion import sensors
from jfusion.data.geotiff import HALF_WIDTH, holds
from jfusion.data.readers.checks import (
    check_kind,
    check_size,
    existing_file,
    finish,
    guard,
    head,
    native,
    require_valid,
)
from jfusion.data.scene import Scene
from jfusion.errors import InputError

DRIVERS = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP  ": "JP2OpenJPEG",
    b"\xffO\xffQ": "JP2OpenJPEG",
    b"EHFA_HEADER_TAG": "HFA",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"<VRTDataset": "VRT",
}
READING = {"GDAL_CACHEMAX": 64, "GDAL_VRT_ENABLE_PYTHON": "NO"}
"""Settings of GDAL: MiB of its cache, and that no code runs which a VRT holds."""
ALPHA_SAMPLE = 64
"""Rows and columns, evenly spread, that tell an alpha band from a spectral one."""
OPAQUE = 0.75
"""Share of an alpha band's samples above zero from which on they are of one value."""

SHOWN = {c: c.name for c in ColorInterp if c not in (ColorInterp.gray, ColorInterp.palette, ColorInterp.alpha)}
"""What GDAL says that a band of an image shows; by default it says grey of the first one."""

SATELLITES = {
    "QB02": "quickbird",
    "IK01": "ikonos",
    "GE01": "geoeye1",
    "WV02": "worldview2",
    "WV03": "worldview3",
    "WV04": "worldview4",
    "PHR1A": "pleiades1a",
    "PHR1B": "pleiades1b",
}


@dataclass(frozen=True)
class WindowedReader:
    """An open raster that is read window by window.

    Attributes:
        outline: the scene's metadata at full size; its image is all zeros and takes no memory, and neither does its
            mask, which stands, all True, for a mask band or alpha band.
    """

    path: Path
    outline: Scene
    _dataset: Any
    _indexes: tuple[int, ...]
    _alpha: tuple[int, ...]
    _nodata: float | None

    @property
    def files(self) -> list[Path]:
        """All that the raster is made of: several where it is a stack."""
        return [Path(name) for name in self._dataset.files]

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(height, width, band)`."""
        return self.outline.height, self.outline.width, self.outline.bands

    def read(self, rows: slice, cols: slice) -> Scene:
        """The scene in that window; its mask may be False everywhere.

        Raises:
            InputError: an empty window, damaged data, or NaN outside nodata.
        """
        scene = self.outline.crop(rows, cols)
        (top, bottom, _), (left, right, _) = rows.indices(self.shape[0]), cols.indices(self.shape[1])
        window = Window(left, top, right - left, bottom - top)
        with guard(self.path, "a raster"), rasterio.Env(**READING):
            image = native(self._samples(window))
            flags = _mask_flags(self._dataset, self._indexes)
            by_alpha = MaskFlags.alpha in flags  # GDAL takes any band that is marked so
            complete = by_alpha or flags == {MaskFlags.all_valid}
            mask = None if complete else self._dataset.read_masks(self._indexes, window=window).all(axis=0)
            if self._alpha:
                opaque = (self._dataset.read(self._alpha, window=window) > 0).all(axis=0)
                mask = opaque if mask is None else mask & opaque
        return finish(self.path, replace(scene, image=image, mask=mask), self._nodata)

    def _samples(self, window: Window) -> np.ndarray:
        """The bands, of several types in one that holds all: rasterio reads but one type at once."""
        if len({self._dataset.dtypes[index - 1] for index in self._indexes}) == 1:
            return np.moveaxis(self._dataset.read(self._indexes, window=window), 0, -1)
        return np.stack([self._dataset.read(index, window=window) for index in self._indexes], -1)


@contextmanager
def open_windowed(path: str | Path, nodata: float | None = None) -> Iterator[WindowedReader]:
    """Open a raster of any size for reading by windows.

    Args:
        nodata: marks invalid samples besides the file's own value.

    Raises:
        InputError: no raster at that path, no real numbers, or a header that the file cannot keep.
    """
    path = existing_file(path)
    driver = driver_of(path)
    if driver is None:
        raise InputError(f"{path} is no raster that can be read by windows; convert it to GeoTIFF.")
    with guard(path, "a raster"), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = rasterio.open(path, driver=driver)
    with dataset:
        if missing := [name for name in dataset.files if not Path(name).is_file()]:
            raise InputError(f"{path} is made of {missing[0]}, which is no file here; make it anew where they lie.")
        with guard(path, "a raster"), rasterio.Env(**READING):
            outline, indexes, alpha = _outline(path, dataset)
        if outline.nodata is None and nodata is not None and holds(outline.image.dtype, nodata):
            outline = replace(outline, nodata=nodata)
        yield WindowedReader(path, outline, dataset, indexes, alpha, nodata)


def driver_of(path: Path) -> str | None:
    """GDAL's driver for the first bytes of a file, None if they are none of the raster formats read here."""
    start = head(path)
    return next((driver for magic, driver in DRIVERS.items() if start.startswith(magic)), None)


def read(path: Path, nodata: float | None = None) -> Scene:
    """The whole raster; raises InputError as `jfusion.data.readers.read` says."""
    with open_windowed(path, nodata) as reader:
        check_size(path, reader.shape, reader.outline.image.dtype.itemsize, reader.files)
        return require_valid(path, reader.read(slice(None), slice(None)))


def _outline(path: Path, dataset: Any) -> tuple[Scene, tuple[int, ...], tuple[int, ...]]:
    """The metadata, and the indexes of the image's bands and of those that mask it."""
    alpha = tuple(
        index
        for index, interpretation in zip(dataset.indexes, dataset.colorinterp, strict=True)
        if interpretation == ColorInterp.alpha and _is_alpha(path, dataset, index)
    )
    is_image = [
        index not in alpha and not (description or "").startswith(HALF_WIDTH)
        for index, description in zip(dataset.indexes, dataset.descriptions, strict=True)
    ]

    def of_image(values: Sequence[Any]) -> list[Any]:
        return list(compress(values, is_image))

    indexes = tuple(of_image(dataset.indexes))
    shape = (dataset.height, dataset.width, len(indexes))
    dtype = np.result_type(*set(of_image(dataset.dtypes))) if indexes else np.dtype(np.uint8)
    check_kind(path, dtype)
    if ColorInterp.palette in of_image(dataset.colorinterp):
        raise InputError(
            f"{path} holds numbers of a colour table, not of light; make its colours bands, such as with "
            "gdal_translate -expand rgb."
        )
    check_size(path, tuple(dataset.block_shapes[0]), dtype.itemsize)
    descriptions = of_image(dataset.descriptions)
    names = tuple(text or f"band {index}" for text, index in zip(descriptions, indexes, strict=True))
    tags = dataset.tags()
    sensor = tags.get("SENSOR") or SATELLITES.get(dataset.tags(ns="IMAGERY").get("SATELLITEID", ""))
    wavelengths, fwhm = _wavelengths(dataset, indexes)
    if wavelengths is None and sensor in sensors.names() and any(descriptions):
        known = sensors.get(sensor)
        if set(names) <= set(known.band_names):
            wavelengths, fwhm = known.select(names).centres, known.select(names).fwhm
    flags = _mask_flags(dataset, indexes)
    colours = tuple(SHOWN.get(colour, "undefined") for colour in of_image(dataset.colorinterp))
    mask_band = bool(alpha) or (MaskFlags.per_dataset in flags and not flags & {MaskFlags.alpha, MaskFlags.all_valid})
    placed = dataset.crs is not None or dataset.transform != Affine.identity()
    if not placed and (dataset.gcps[0] or dataset.rpcs):
        raise InputError(
            f"{path} is placed by {'ground control points' if dataset.gcps[0] else 'a camera model (RPC)'} and has no "
            f"grid of its own; warp it to one first, such as with gdalwarp{'' if dataset.gcps[0] else ' -rpc'}."
        )
    outline = Scene(
        image=np.broadcast_to(np.zeros((), dtype), shape),
        name=tags.get("NAME", path.stem),
        sensor=sensor,
        wavelengths=wavelengths,
        fwhm=fwhm,
        band_names=names if any(descriptions) else None,
        colours=colours if set(colours) - {"undefined"} else None,
        transform=dataset.transform if placed else None,
        crs=dataset.crs.to_string() if dataset.crs else None,
        mask=np.broadcast_to(np.True_, shape[:2]) if mask_band else None,
        nodata=next((value for value in dataset.nodatavals if value is not None), None),
        scale=_joined(of_image(dataset.scales)),
        offset=_joined(of_image(dataset.offsets)),
        time=tags.get("TIFFTAG_DATETIME"),
        licence=tags.get("LICENCE"),
        citation=tags.get("CITATION"),
        note=tags.get("NOTE"),
    )
    return outline, indexes, alpha


def _mask_flags(dataset: Any, indexes: tuple[int, ...]) -> set[MaskFlags]:
    return set(chain.from_iterable(dataset.mask_flag_enums[index - 1] for index in indexes))


def _is_alpha(path: Path, dataset: Any, index: int) -> bool:
    """Whether a band that is marked alpha is one: of a single value, but for soft edges, where it is not zero.

    Unless told otherwise, GDAL marks the fourth band of bytes so, whatever it holds.
    """
    check_size(path, tuple(dataset.block_shapes[index - 1]), np.dtype(dataset.dtypes[index - 1]).itemsize)
    sample = dataset.read(index, out_shape=tuple(min(size, ALPHA_SAMPLE) for size in dataset.shape))
    seen = sample[sample > 0]
    return seen.size == 0 or bool(np.mean(seen == seen.max()) > OPAQUE)


def _joined(values: list[float]) -> float | np.ndarray:
    return values[0] if len(set(values)) == 1 else np.array(values)


def _wavelengths(dataset: Any, indexes: tuple[int, ...]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Centres and widths in nm, from GDAL's IMAGERY domain or the tags that its ENVI driver leaves on a copy."""
    imagery = [dataset.tags(index, ns="IMAGERY") for index in indexes]
    centres = _numbers([tags.get("CENTRAL_WAVELENGTH_UM") for tags in imagery], 1000.0)
    if centres is None:
        plain = [dataset.tags(index) for index in indexes]
        micrometres = all("micro" in tags.get("wavelength_units", "").lower() for tags in plain)
        centres = _numbers([tags.get("wavelength") for tags in plain], 1000.0 if micrometres else 1.0)
    return centres, _numbers([tags.get("FWHM_UM") for tags in imagery], 1000.0)


def _numbers(texts: list[str | None], unit: float) -> np.ndarray | None:
    try:
        values = np.array([float(text) for text in texts if text is not None])
    except ValueError:
        return None
    complete = values.size == len(texts) and bool(np.all(np.isfinite(values) & (values > 0)))
    return np.round(values * unit, 6) if complete else None
