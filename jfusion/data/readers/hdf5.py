"""HDF5: an array by its path in the file, and NEON's airborne reflectance, which is known by its layout."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jfusion.data.readers.checks import as_cube, check_kind, check_size, choose, finish, guard, native, require_valid
from jfusion.data.readers.envi import map_transform
from jfusion.data.scene import Scene

NEON = "Reflectance/Reflectance_Data"


def read(path: Path, key: str | None = None, nodata: float | None = None) -> Scene:
    """One array (height, width, band); raises InputError as `jfusion.data.readers.read` says.

    The attributes _FillValue, scale_factor and add_offset (CF conventions) are honoured.
    """
    with guard(path, "HDF5"), h5py.File(path, "r") as file:
        found = datasets(file)
        neon = [name for name in found if name.endswith(NEON)]
        if key is None and len(neon) == 1:
            key = neon[0]
        shapes = {name: item.shape for name, item in found.items()}
        key = choose(path, shapes, {name for name, item in found.items() if item.dtype.kind in "iuf"}, key)
        item = found[key]
        check_dataset(path, item)
        scene = Scene(native(as_cube(item[()])), name=f"{path.stem}_{key.rpartition('/')[2]}")
        scene = _with_neon(scene, item) if key.endswith(NEON) else _with_cf(scene, item)
    return require_valid(path, finish(path, scene, nodata))


def datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """All arrays in the file by path; links to other files are not followed."""
    found: dict[str, h5py.Dataset] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            found[name] = item

    file.visititems(visit)
    return found


def check_dataset(path: Path, item: h5py.Dataset) -> None:
    """Refuse an array without real numbers or too large for its file, before it is read.

    Raises:
        InputError: see `check_kind` and `check_size`.
    """
    check_kind(path, item.dtype)
    check_size(path, item.shape, item.dtype.itemsize)
    if item.chunks is not None:
        check_size(path, item.chunks, item.dtype.itemsize)


def _with_cf(scene: Scene, item: h5py.Dataset) -> Scene:
    fill = _attribute(item, "_FillValue")
    scale, offset = _attribute(item, "scale_factor"), _attribute(item, "add_offset")
    return replace(scene, nodata=fill, scale=1.0 if scale is None else scale, offset=0.0 if offset is None else offset)


def _with_neon(scene: Scene, item: h5py.Dataset) -> Scene:
    metadata = item.parent["Metadata"]
    spectral, place = metadata["Spectral_Data"], metadata["Coordinate_System"]
    factor = _attribute(item, "Scale_Factor")
    code = _text(place["EPSG Code"]) if "EPSG Code" in place else ""
    return replace(
        scene,
        wavelengths=_vector(spectral, "Wavelength"),
        fwhm=_vector(spectral, "FWHM"),
        transform=map_transform(_text(place["Map_Info"])),
        crs=f"EPSG:{int(code)}" if code else None,
        nodata=_attribute(item, "Data_Ignore_Value"),
        scale=1 / factor if factor else 1.0,
    )


def _attribute(item: h5py.Dataset, name: str) -> float | None:
    return float(np.ravel(item.attrs[name])[0]) if name in item.attrs else None


def _vector(group: h5py.Group, name: str) -> np.ndarray | None:
    return np.asarray(group[name][()], dtype=np.float64).ravel() if name in group else None


def _text(item: h5py.Dataset) -> str:
    value = np.ravel(item[()])[0]
    return value.decode() if isinstance(value, bytes) else str(value)
