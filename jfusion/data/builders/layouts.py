"""The forms in which benchmarks are published. Integers are stored as they are, other numbers in single precision."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from jfusion.data import readers, scenes
from jfusion.data.builders.dataset import Example, Files, Image, Part
from jfusion.data.builders.regions import Region
from jfusion.data.readers.checks import guard
from jfusion.data.readers.hdf5 import check_dataset
from jfusion.errors import InputError


@dataclass(frozen=True)
class Cube:
    """One scene in one file of any format that `jfusion.data.readers` knows, split by regions.

    Attributes:
        file: its name; of an ENVI pair the data file.
        shape: (height, width, band) as published: cut or turned copies are refused, whose regions would be others.
        dtype: number type that is stored.
        key: the array of a MATLAB file.
        header: name of the ENVI header.
        bands: how many bands from the first on are image, None for all.
    """

    file: str
    shape: tuple[int, int, int]
    dtype: str
    key: str | None = None
    header: str | None = None
    bands: int | None = None

    @property
    def images(self) -> Mapping[str, Image]:
        """One hyperspectral image."""
        return {"hsi": Image(self.bands or self.shape[2], self.dtype)}

    def files(self, part: Part) -> tuple[str, ...]:
        """The same for every region."""
        return (self.file,) if self.header is None else (self.file, self.header)

    def read(self, files: Files, parts: Sequence[Part]) -> Iterator[Example]:
        """One example a region; the whole scene is in memory."""
        path = files[self.file]
        image = readers.read(path, self.key).image
        if image.shape != self.shape:
            raise InputError(
                f"{path} holds an image of the shape {image.shape}, but {self.shape} (height, width, band) was "
                f"published; use the original file."
            )
        for part in parts:
            assert isinstance(part, Region)
            crop = image[part.top : part.bottom, part.left : part.right, : self.bands]
            yield str(part), {"hsi": stored(path, crop, self.dtype)}


@dataclass(frozen=True)
class BandFiles:
    """Scenes with a PNG file for each band, named `SCENE_01.png` onwards.

    An 8-bit file is brought to 16 bits by the factor 257, which loses nothing (255 becomes 65535). A file with colours
    becomes the mean of its three channels, rounded; its alpha channel is left out.
    """

    bands: int

    @property
    def images(self) -> Mapping[str, Image]:
        """One hyperspectral image of 16 bits."""
        return {"hsi": Image(self.bands, "uint16")}

    def files(self, part: Part) -> tuple[str, ...]:
        """One a band."""
        return tuple(f"{part}_{band:02d}.png" for band in range(1, self.bands + 1))

    def read(self, files: Files, parts: Sequence[Part]) -> Iterator[Example]:
        """One example a scene."""
        for part in parts:
            bands = [_grey(files[name]) for name in self.files(part)]
            if len({band.shape for band in bands}) > 1:
                raise InputError(f"The bands of {part} differ in size; unpack the original archive again.")
            yield str(part), {"hsi": np.stack(bands, axis=-1)}


def _grey(path: Path) -> np.ndarray:
    image = readers.read(path).image
    if image.dtype not in (np.uint8, np.uint16) or image.shape[2] not in (1, 3):
        raise InputError(f"{path} is no grey or colour image of 8 or 16 bits; unpack the original archive again.")
    factor = 257 if image.dtype == np.uint8 else 1
    return np.rint(image.mean(axis=-1, dtype=np.float64) * factor).astype(np.uint16)


@dataclass(frozen=True)
class SceneFiles:
    """Scenes with one MATLAB file each, `SCENE.mat`, whose array `key` has the given bands."""

    key: str
    bands: int
    dtype: str

    @property
    def images(self) -> Mapping[str, Image]:
        """One hyperspectral image."""
        return {"hsi": Image(self.bands, self.dtype)}

    def files(self, part: Part) -> tuple[str, ...]:
        """One a scene."""
        return (f"{part}.mat",)

    def read(self, files: Files, parts: Sequence[Part]) -> Iterator[Example]:
        """One example a scene."""
        for part in parts:
            path = files[f"{part}.mat"]
            image = readers.read(path, self.key).image
            if image.shape[2] != self.bands:
                raise InputError(
                    f"{self.key} in {path} has the shape {image.shape}, but {self.bands} bands were published, as the "
                    f"last axis; use the original file."
                )
            yield str(part), {"hsi": stored(path, image, self.dtype)}


@dataclass(frozen=True)
class PairFiles:
    """HDF5 files with many pairs each, as arrays (example, band, height, width) `ms`, `pan` and, with truth, `gt`.

    The array `lms`, which is `ms` interpolated to the size of `pan`, is left out.

    Attributes:
        bands: of `ms`.
        truth: whether there is `gt`.
        ratio: pixels of `pan` per pixel of `ms`.
    """

    bands: int
    truth: bool
    ratio: int = 4

    @property
    def images(self) -> Mapping[str, Image]:
        """Low-resolution multispectral image, panchromatic guide and, with truth, the target."""
        spectral, pan = Image(self.bands, "float32"), Image(1, "float32")
        return {"lr": spectral, "guide": pan} | ({"target": spectral} if self.truth else {})

    def files(self, part: Part) -> tuple[str, ...]:
        """The part is the file."""
        return (str(part),)

    def read(self, files: Files, parts: Sequence[Part]) -> Iterator[Example]:
        """One example a row; no more than one is in memory."""
        keys = {"lr": "ms", "guide": "pan", "target": "gt"}
        for part in parts:
            path = files[str(part)]
            with guard(path, "HDF5"), h5py.File(path, "r") as file:
                absent = [keys[role] for role in self.images if not isinstance(file.get(keys[role]), h5py.Dataset)]
                if absent:
                    raise InputError(f"{path} has no array {', '.join(absent)}; it has {', '.join(file)}.")
                arrays = {role: file[keys[role]] for role in self.images}
                self._check(path, arrays)
                for index in range(len(arrays["lr"])):
                    rows = {role: np.moveaxis(array[index], 0, -1) for role, array in arrays.items()}
                    if not all(np.all(np.isfinite(row)) for row in rows.values()):
                        raise InputError(f"Pair {index} in {path} has NaN or infinite values; download it again.")
                    yield f"{part}[{index}]", {role: stored(path, row, "float32") for role, row in rows.items()}

    def _check(self, path: Path, arrays: Mapping[str, h5py.Dataset]) -> None:
        for array in arrays.values():
            check_dataset(path, array)
        shapes = {role: array.shape for role, array in arrays.items()}
        fits = all(
            len(shape) == 4 and shape[1] == self.images[role].bands and shape[0] == shapes["lr"][0]
            for role, shape in shapes.items()
        )
        if fits:
            low, high = shapes["lr"][2:], shapes["guide"][2:]
            whole = high == (self.ratio * low[0], self.ratio * low[1])
            fits = whole and shapes.get("target", shapes["guide"])[2:] == high
        if not fits:
            raise InputError(
                f"{path} holds arrays of the shapes {shapes}, but (example, band, height, width) with {self.bands} "
                f"bands and a guide {self.ratio} times as high and wide was published; use the original file."
            )


@dataclass(frozen=True)
class Embedded:
    """The images of a scene that comes with jfusion, which needs no download."""

    scene: str

    @property
    def images(self) -> Mapping[str, Image]:
        """By the roles that the scene has: `hsi`, `msi`, `pan`."""
        return {role: Image(image.bands, str(image.image.dtype)) for role, image in scenes.load(self.scene).items()}

    def files(self, part: Part) -> tuple[str, ...]:
        """None to get by hand."""
        return ()

    def read(self, files: Files, parts: Sequence[Part]) -> Iterator[Example]:
        """The one example."""
        for part in parts:
            yield str(part), {role: image.image for role, image in scenes.load(str(part)).items()}


def stored(path: Path, image: np.ndarray, dtype: str) -> np.ndarray:
    """The image in the number type that is stored.

    Raises:
        InputError: the type is of integers and cannot hold the numbers, as in copies that somebody has scaled.
    """
    with np.errstate(invalid="ignore"):
        result = np.ascontiguousarray(image, dtype=dtype)
    if result.dtype.kind in "iu" and not np.array_equal(result, image):
        raise InputError(f"{path} holds numbers that are no {dtype}, but {dtype} was published; use the original file.")
    return result
