"""HDF5 files of Keras, weights alone or whole models: every array by its path."""

from pathlib import Path

import h5py
import numpy as np

from jfusion.data.readers.checks import guard
from jfusion.data.readers.hdf5 import datasets


def read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of numbers, such as "model_weights/conv/conv/kernel:0"; raises InputError on a damaged file."""
    with guard(path, "a Keras file (HDF5)"), h5py.File(path, "r") as file:
        return {name: np.asarray(item[()]) for name, item in datasets(file).items() if item.dtype.kind in "biuf"}
