"""Writing scenes as (cloud-optimised) GeoTIFF, whole or window by window.

The file appears under its name when it is complete, or not at all.
"""

import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from jfusion import __version__
from jfusion.data.scene import Scene
from jfusion.errors import InputError, RunError
from jfusion.files import check_output

BLOCK_BYTES = 16 * 2**20
BLOCK_ROWS = 32
CACHE_MIB = 128
LEVEL = 1
"""Of deflate, 1 to 9: much faster than the usual 6, at nearly the same size."""

SUFFIXES = (".tif", ".tiff")

BESIDE = (".aux.xml", ".ovr", ".msk")
"""Files that GDAL leaves beside a raster, with its statistics, overviews and mask; a new raster outdates them."""

USELESS = 0.99
"""Share of clipped samples above which a file says nothing."""

BLURRED = 0.5
"""Error of rounding above which integers say nothing, by the standard deviation of the numbers."""

HALF_WIDTH = "half width of the"
"""Begins the description of a band that says how far the others may be off; it is no band of the image."""


@dataclass
class WindowedWriter:
    """An open GeoTIFF that is filled window by window.

    Attributes:
        path: of the file, as it will be called.
        dtype, nodata: of the file.
        masked: the file has a mask band, because nodata is None.
        samples, clipped: so far, of valid pixels: how many, and how many did not fit into the data type.
    """

    path: Path
    dtype: np.dtype
    nodata: float | None
    masked: bool
    _dataset: Any
    samples: int = field(default=0)
    clipped: int = field(default=0)

    @property
    def remark(self) -> str:
        """How many samples were clipped; empty where none was."""
        share = 100 * self.clipped / max(self.samples, 1)
        return f"{self.clipped} samples ({share:.2g} %) were clipped to {self.dtype}" if self.clipped else ""

    def check(self, image: np.ndarray, valid: np.ndarray) -> None:
        """Refuses, before there is anything to write, a data type that cannot hold numbers like these.

        Args:
            image: `(height, width, band)`.
            valid: `(height, width)`, pixels that count.

        Raises:
            InputError: nearly all would be clipped, or little would be left of them once they are rounded.
        """
        numbers = image[valid]
        self._check_clipped(encode(image, valid, self.dtype, None)[1], numbers.size)
        if self.dtype.kind in "iu" and numbers.dtype.kind == "f":
            error = np.sqrt(np.mean((np.rint(numbers) - numbers) ** 2))
            if error > BLURRED * numbers.std():
                raise InputError(
                    f"numbers from {numbers.min():.4g} to {numbers.max():.4g} are lost when they are rounded to "
                    f"{self.dtype}, so {self.path} is not written; choose another data type, such as float32."
                )

    def tag(self, **texts: str) -> None:
        """Adds to the file's metadata."""
        self._dataset.update_tags(**texts)

    def _check_clipped(self, clipped: int, samples: int) -> None:
        if clipped > USELESS * samples:
            raise InputError(
                f"{100 * clipped / samples:.1f} % of the samples do not fit into {self.dtype}, so {self.path} is not "
                "written; choose another data type, such as float32."
            )

    def write(self, row: int, col: int, image: np.ndarray, mask: np.ndarray | None = None) -> None:
        """Put `(height, width, band)` numbers at that corner; pixels where `mask` is False become nodata.

        Raises:
            InputError: a window outside the raster, another band count, or values that are not finite.
            RunError: the disk does not take it.
        """
        if image.ndim != 3 or image.shape[2] != self._dataset.count:
            raise InputError(f"Expected (height, width, {self._dataset.count}) numbers, but got shape {image.shape}.")
        height, width = image.shape[:2]
        if row < 0 or col < 0 or row + height > self._dataset.height or col + width > self._dataset.width:
            raise InputError(
                f"The window of {height} x {width} at ({row}, {col}) leaves the raster of "
                f"{self._dataset.height} x {self._dataset.width}."
            )
        valid = np.ones((height, width), dtype=bool) if mask is None else mask
        if self.nodata is None and not self.masked and not valid.all():
            raise InputError(
                "The window has invalid pixels, but the raster has neither nodata nor a mask; declare one."
            )
        stored, clipped = encode(image, valid, self.dtype, self.nodata)
        window = rasterio.windows.Window(col, row, width, height)
        with _written(self.path):
            self._dataset.write(np.moveaxis(stored, -1, 0), window=window)
            if self.masked:
                self._dataset.write_mask(valid, window=window)
        self.samples += int(np.count_nonzero(valid)) * image.shape[2]
        self.clipped += clipped


def encode(image: np.ndarray, valid: np.ndarray, dtype: np.dtype, nodata: float | None) -> tuple[np.ndarray, int]:
    """Numbers as they are stored: rounded and clipped to an integer type, nodata where not valid.

    A valid sample that equals nodata moves by one step, so that it stays valid.

    Returns:
        the stored `(height, width, band)` numbers and how many were clipped.

    Raises:
        InputError: a valid sample is NaN or infinite.
    """
    stored, clipped = np.empty(image.shape, dtype), 0
    for top in range(0, len(image), BLOCK_ROWS):  # a block stays in the processor's cache
        rows = slice(top, top + BLOCK_ROWS)
        stored[rows], outside = _encode_block(image[rows], valid[rows], dtype, nodata)
        clipped += outside
    return stored, clipped


def _encode_block(
    image: np.ndarray, valid: np.ndarray, dtype: np.dtype, nodata: float | None
) -> tuple[np.ndarray, int]:
    whole = bool(valid.all())
    if not np.isfinite(image if whole else image[valid]).all():
        raise InputError("Expected finite samples to write, but valid ones are NaN or infinite; mask them.")
    if not whole:
        image = np.where(valid[..., None], image, np.zeros((), image.dtype))
    clipped = 0
    if dtype.kind == "f":
        low, high = np.finfo(dtype).min, np.finfo(dtype).max
    else:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    if not np.can_cast(image.dtype, dtype, "safe"):
        if dtype.kind in "iu" and image.dtype.kind == "f":
            exact = image.dtype if dtype.itemsize <= 2 else np.dtype(np.float64)
            values = np.rint(image.astype(exact, copy=False))
            above = values >= float(int(high) + 1)
        else:
            values = image
            above = values > high
        below = values < low
        clipped = int(np.count_nonzero(below)) + int(np.count_nonzero(above))
        with np.errstate(invalid="ignore"):
            image = values.astype(dtype)
        if clipped:
            image[below], image[above] = low, high
    stored = image.astype(dtype, copy=False)
    if nodata is not None:
        stored = np.where(stored == nodata, _neighbour(nodata, dtype), stored)
        if not whole:
            stored[~valid] = nodata
    return stored, clipped


def write(path: str | Path, scene: Scene, *, dtype: Any = None, cog: bool = True, overwrite: bool = False) -> int:
    """Write a scene with all its metadata.

    Args:
        dtype: of the file; the image's own by default.
        cog: cloud-optimised layout with averaged overviews, else a plain tiled GeoTIFF.
        overwrite: replace an existing file, which stays until the new one is complete.

    Returns:
        the number of samples that were clipped to the data type.

    Raises:
        InputError: see `open_writer` and `encode`.
        RunError: the file could not be completed, such as for want of space.
    """
    with open_writer(path, scene, dtype=dtype, cog=cog, overwrite=overwrite) as writer:
        writer.write(0, 0, scene.image, scene.mask)
    return writer.clipped


@contextmanager
def open_writer(
    path: str | Path,
    outline: Scene,
    *,
    dtype: Any = None,
    cog: bool = True,
    overwrite: bool = False,
) -> Iterator[WindowedWriter]:
    """A GeoTIFF to be filled window by window with the size and metadata of `outline`, whose image is not looked at.

    The windows go to a hidden folder beside `path`; on leaving the block the file is compressed (with bounded memory)
    and moved to `path`, or to where that leads if it is a link. If the block raises, nothing is left. Invalid pixels
    become nodata, or a mask band if the outline has a mask and no nodata.

    Args:
        dtype, cog, overwrite: see `write`.

    Raises:
        InputError: the file exists and is not to be replaced, its name does not end as a GeoTIFF's, its folder is
            missing or cannot be written, nodata does not fit the data type, or nearly no sample does.
        RunError: the file could not be completed.
    """
    path = Path(path)
    path = path.resolve() if path.is_symlink() else path
    kind = data_type(outline.image.dtype if dtype is None else dtype)
    check_output(path, overwrite)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"the output {path} becomes a GeoTIFF; let its name end in {' or '.join(SUFFIXES)}.")
    _check_nodata(path, kind, outline.nodata)
    _check_space(path, outline, kind)
    workplace = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    elsewhere: Exception | None = None
    try:
        plain = workplace / "plain.tif"
        with rasterio.Env(GDAL_CACHEMAX=CACHE_MIB, GDAL_TIFF_INTERNAL_MASK=True):
            with _open(plain, "w", **_profile(outline, kind)) as dataset:
                _describe(dataset, outline)
                masked = outline.nodata is None and outline.mask is not None
                writer = WindowedWriter(path, kind, outline.nodata, masked, dataset)
                try:
                    yield writer
                except Exception as error:
                    elsewhere = error
                    raise
                writer._check_clipped(writer.clipped, writer.samples)
                if cog:
                    # made before anything is compressed, which is faster than to leave them to the COG driver
                    dataset.build_overviews(_overviews(outline, dataset.block_shapes[0][0]), Resampling.average)
            finished = _compressed(plain, workplace / "compressed.tif", kind, cog)
            _check_complete(finished)
        _sync(finished)
        os.replace(finished, path)
        for suffix in BESIDE:
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except (OSError, RasterioError) as error:
        if error is elsewhere:
            raise
        raise _unwritten(path, error) from error
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RasterioError) as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: Exception) -> RunError:
    reason = " ".join(str(error).split())[:200]
    return RunError(f"{path} could not be written, check the space left on its disk ({reason}).")


def data_type(name: Any) -> np.dtype:
    """The data type of that name; raises InputError where there is none, or no GeoTIFF that is written here has it."""
    try:
        dtype = np.dtype(name).newbyteorder("=")
    except TypeError as error:
        raise InputError(f"there is no data type {name!r}; choose one such as uint16 or float32.") from error
    if dtype.kind not in "iuf" or dtype == np.float16:
        raise InputError(f"a GeoTIFF cannot hold {dtype}; choose an integer type, float32 or float64.")
    return dtype


def _open(path: Path, mode: str = "r", **profile: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path, mode, **profile)


def _check_space(path: Path, outline: Scene, dtype: np.dtype) -> None:
    """Raises InputError where the disk has less space than the file and its copy may take, uncompressed."""
    needed, free = 2 * outline.image.size * dtype.itemsize, shutil.disk_usage(path.parent).free
    if needed > free:
        raise InputError(
            f"{path} may need {needed / 2**20:.0f} MiB, but {free / 2**20:.0f} MiB of space are left on its disk; free "
            "some or choose another disk."
        )


def _check_nodata(path: Path, dtype: np.dtype, nodata: float | None) -> None:
    if nodata is not None and not holds(dtype, nodata):
        raise InputError(
            f"{path} marks invalid pixels by {nodata:g}, which {dtype} cannot hold; choose a data type that can."
        )


def holds(dtype: np.dtype, nodata: float) -> bool:
    """Whether a sample of that integer or floating type can be ``nodata``."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # the largest number in rounded decimals may be larger than it
            return not math.isfinite(nodata) or bool(np.isfinite(dtype.type(nodata)))
    limits = np.iinfo(dtype)
    return bool(np.isfinite(nodata) and nodata == int(nodata) and limits.min <= nodata <= limits.max)


def _block_size(bands: int, itemsize: int) -> int:
    """Side of a tile that stays below BLOCK_BYTES: 512 for a few bands, 128 for hundreds."""
    size = 512
    while size > 128 and size * size * bands * itemsize > BLOCK_BYTES:
        size //= 2
    return size


def _profile(outline: Scene, dtype: np.dtype) -> dict[str, Any]:
    size = _block_size(outline.bands, dtype.itemsize)
    return {
        "driver": "GTiff",
        "height": outline.height,
        "width": outline.width,
        "count": outline.bands,
        "dtype": dtype,
        "crs": outline.crs,
        "transform": outline.transform,
        "nodata": outline.nodata,
        "tiled": True,
        "blockxsize": size,
        "blockysize": size,
        "interleave": "band",
        "photometric": "minisblack",  # GDAL takes three bands of bytes for a picture, and a fourth for its alpha
        "bigtiff": "IF_SAFER",
    }


def _describe(dataset: Any, scene: Scene) -> None:
    dataset.scales = np.broadcast_to(scene.scale, scene.bands).tolist()
    dataset.offsets = np.broadcast_to(scene.offset, scene.bands).tolist()
    if scene.band_names is not None:
        dataset.descriptions = scene.band_names
    if scene.colours is not None:
        dataset.colorinterp = [ColorInterp[colour] for colour in scene.colours]
    for key, values in (("CENTRAL_WAVELENGTH_UM", scene.wavelengths), ("FWHM_UM", scene.fwhm)):
        for index, value in enumerate(() if values is None else values, start=1):
            if not np.isfinite(value):
                continue
            dataset.update_tags(index, ns="IMAGERY", **{key: repr(round(float(value) / 1000, 9))})
    texts = {"SENSOR": scene.sensor, "LICENCE": scene.licence, "CITATION": scene.citation, "NOTE": scene.note}
    texts |= {"NAME": scene.name, "TIFFTAG_DATETIME": scene.time, "TIFFTAG_SOFTWARE": f"jfusion {__version__}"}
    dataset.update_tags(**{key: text for key, text in texts.items() if text})


def _overviews(outline: Scene, size: int) -> list[int]:
    """Reductions by 2, 4, ... until the image fits into a block."""
    halvings = math.ceil(math.log2(max(outline.height, outline.width, size) / size))
    return [2**k for k in range(1, halvings + 1)]


def _compressed(plain: Path, path: Path, dtype: np.dtype, cog: bool) -> Path:
    """Windows are not compressed as they come: blocks that they share would be compressed again and again."""
    options: dict[str, Any] = {"compress": "deflate", "num_threads": "ALL_CPUS", "bigtiff": "IF_SAFER"}
    with _open(plain) as source:
        size, predictor = source.block_shapes[0][0], 3 if dtype.kind == "f" else 2
        if cog:
            options |= {"driver": "COG", "level": LEVEL, "predictor": "YES", "blocksize": size}
        else:
            options |= {"driver": "GTiff", "zlevel": LEVEL, "predictor": predictor, "interleave": "band"}
            options |= {"tiled": True, "blockxsize": size, "blockysize": size}
        rasterio.shutil.copy(source, path, **options)
    return path


def _check_complete(path: Path) -> None:
    """GDAL may report a full disk only to its log: read the last block back."""
    with _open(path) as dataset:
        last = rasterio.windows.Window(dataset.width - 1, dataset.height - 1, 1, 1)
        dataset.read(window=last)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _neighbour(nodata: float, dtype: np.dtype) -> Any:
    if dtype.kind == "f":
        return np.nextafter(dtype.type(nodata), dtype.type(0 if nodata else 1))
    return dtype.type(nodata + 1 if nodata < np.iinfo(dtype).max else nodata - 1)
