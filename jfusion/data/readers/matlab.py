"""MATLAB files of version 5 and 7.3 (HDF5, whose arrays lie transposed)."""

import mmap
from pathlib import Path

import h5py
import numpy as np

from jfusion.data.readers import mat5
from jfusion.data.readers.checks import as_cube, check_kind, check_size, choose, finish, guard, native, require_valid
from jfusion.data.readers.hdf5 import check_dataset, datasets
from jfusion.data.scene import Scene

NUMBERS = {"single", "double"} | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}


def read(path: Path, key: str | None = None, nodata: float | None = None) -> Scene:
    """One array of a version 5 file; raises InputError as `jfusion.data.readers.read` says."""
    with guard(path, "a MATLAB file"), path.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        found = {variable.name: variable for variable in mat5.variables(content)}
        shapes = {name: variable.shape for name, variable in found.items()}
        kinds = {name: variable.dtype for name, variable in found.items() if variable.dtype is not None}
        key = choose(path, shapes, set(kinds), key)
        check_kind(path, kinds[key])
        check_size(path, shapes[key], kinds[key].itemsize)
        image = found[key].read()
    return _finished(path, key, image, nodata)


def read_v73(path: Path, key: str | None = None, nodata: float | None = None) -> Scene:
    """One array of a version 7.3 file, its axes put back into MATLAB's order."""
    with guard(path, "a MATLAB 7.3 file"), h5py.File(path, "r") as file:
        found = {name: item for name, item in datasets(file).items() if not name.startswith("#")}
        numeric = {name for name, item in found.items() if matlab_class(item) in NUMBERS}
        key = choose(path, {name: item.shape[::-1] for name, item in found.items()}, numeric, key)
        check_dataset(path, found[key])
        image = found[key][()].T
    return _finished(path, key, image, nodata)


def matlab_class(item: h5py.Dataset) -> str:
    """MATLAB's name of the element type, of an item of a version 7.3 file."""
    name = item.attrs.get("MATLAB_class", b"")
    return name.decode() if isinstance(name, bytes) else str(name)


def _finished(path: Path, key: str, image: np.ndarray, nodata: float | None) -> Scene:
    scene = Scene(native(as_cube(image)), name=f"{path.stem}_{key.rpartition('/')[2]}")
    return require_valid(path, finish(path, scene, nodata))
