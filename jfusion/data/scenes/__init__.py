"""Small real scenes that come with the package, with their licences and whom to cite (see README.md here).

| name | images |
|---|---|
| jasper_ridge | hsi 100 x 100 x 198 AVIRIS, with unmixing truth |
| paris_hs_pan | hsi 72 x 58 x 128 Hyperion, pan 216 x 174 ALI: a real pair of ratio 3 |
| paris_hs_ms | hsi 72 x 72 x 128 Hyperion, msi 72 x 72 x 9 ALI: a real pair of ratio 1 |
| landsat8_momotombo | msi 334 x 468 x 6, pan 668 x 935: one processing level, pixel centres coincide |
| landsat8_liverpool | msi 267 x 433 x 7 (surface), pan 534 x 867 (top of atmosphere): a radiometric mismatch |
| sentinel2_fields | msi 300 x 300 x 6 (20 m), guide 600 x 600 x 4 (10 m): one sensor, nested pixels |
| landsat8_tiny, landsat7_tiny | msi 41 x 41, pan 82 x 82: for tests of true geometry |
| aviris_california | hsi 50 x 50 x 194, rotated grid, wavelengths not monotonic |
| neon_sjer | hsi 30 x 30 x 426, 1 m |
"""

from importlib.resources import files
from pathlib import Path

import numpy as np

from jfusion.data import readers
from jfusion.data.scene import Scene
from jfusion.errors import InputError, unknown

_FOLDER = Path(str(files(__package__))) / "files"


def names() -> tuple[str, ...]:
    """Names of all scenes that come with the package."""
    return tuple(sorted(folder.name for folder in _FOLDER.iterdir() if folder.is_dir()))


def load(name: str) -> dict[str, Scene]:
    """The images of one place, by role: "hsi", "msi", "pan", or "guide" of several bands.

    Raises:
        InputError: no such scene; the message lists names that look alike.
    """
    return {file.stem: readers.read(file) for file in sorted(_folder(name).glob("*.tif"))}


def path(name: str, role: str) -> Path:
    """The GeoTIFF of one image, for programs that take files.

    Raises:
        InputError: no such scene, or it has no image of that role.
    """
    file = _folder(name) / f"{role}.tif"
    if not file.is_file():
        roles = ", ".join(sorted(item.stem for item in _folder(name).glob("*.tif")))
        raise InputError(f"Scene {name} has no image {role!r}; it has {roles}.")
    return file


def unmixing(name: str = "jasper_ridge") -> dict[str, np.ndarray]:
    """Reference unmixing of a hyperspectral scene: physical values are about abundances @ endmembers.T.

    Returns:
        "endmembers" `(band, material)` in the scene's physical unit, "abundances" `(height, width, material)`, which
        sum to one, and the names of the "materials".

    Raises:
        InputError: no such scene, or it has no unmixing truth.
    """
    file = _folder(name) / "unmixing.npz"
    if not file.is_file():
        raise InputError(f"Scene {name} has no unmixing truth; jasper_ridge has.")
    with np.load(file, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in ("endmembers", "abundances", "materials")}


def _folder(name: str) -> Path:
    if name not in names():
        raise unknown("scene", name, names())
    return _FOLDER / name
