"""MATLAB files with a network of MatConvNet (Vedaldi and Lenc, 2015), SimpleNN or DagNN, in MATLAB's order of axes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jfusion.data.readers.checks import guard
from jfusion.data.readers.matlab import matlab_class
from jfusion.errors import InputError
from jfusion.training.originals import mat5


def read_v5(path: Path) -> dict[str, np.ndarray]:
    """The weights in a version 5 file; raises InputError if it is damaged or holds no network."""
    with guard(path, "a MATLAB file"):
        return _weights(path, dict(mat5.variables(memoryview(path.read_bytes()))))


def read_v73(path: Path) -> dict[str, np.ndarray]:
    """The weights in a version 7.3 file, their axes put back into MATLAB's order; raises as `read_v5`."""
    with guard(path, "a MATLAB 7.3 file"), h5py.File(path, "r") as file:
        return _weights(path, {name: _of_v73(file[name]) for name in ("net", "layers", "params") if name in file})


def _weights(path: Path, variables: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays by name in what `mat5.variables` or `_of_v73` made of `net`, or of the file where there is no `net`.

    Raises:
        InputError: it is no network.
    """
    net = variables.get("net", variables)
    if not isinstance(net, dict) or not net.keys() & {"layers", "params"}:
        raise InputError(f"{path} holds no network of MatConvNet: expected a struct net with layers or params.")
    return dict([*_of_layers(_listed(net.get("layers", []))), *_of_params(_listed(net.get("params", [])))])


def _of_layers(layers: list) -> Iterator[tuple[str, np.ndarray]]:
    for k, layer in enumerate(layers):
        weights = _listed(layer.get("weights", [])) if isinstance(layer, dict) else []
        for j, weight in enumerate(weights):
            if isinstance(weight, np.ndarray) and weight.size:
                yield f"layers/{k}/weights/{j}", weight


def _of_params(params: list) -> Iterator[tuple[str, np.ndarray]]:
    for param in params:
        if isinstance(param, dict) and isinstance(param.get("value"), np.ndarray):
            yield str(param["name"]), param["value"]


def _listed(value: Any) -> list:
    return value if isinstance(value, list) else [value]


# ----------------------------------------------------------------------------------------------------------------------
# Version 7.3, in the form of `mat5.variables`


def _of_v73(item: h5py.Group | h5py.Dataset) -> Any:
    if isinstance(item, h5py.Group):
        arrays = [name for name in item if _is_field_of_array(item[name])]
        if not arrays:
            return {name: _of_v73(item[name]) for name in item}
        columns = [_referred(item[name]) for name in arrays]
        return [dict(zip(arrays, values, strict=True)) for values in zip(*columns, strict=True)]
    kind = matlab_class(item)
    if "MATLAB_empty" in item.attrs:
        return [] if kind in ("cell", "struct") else np.zeros(tuple(item[()]))
    if item.dtype.kind == "O":
        return _referred(item)
    values = item[()]
    return "".join(map(chr, values.ravel())) if kind == "char" else values.T


def _referred(item: h5py.Dataset) -> list:
    """What a dataset of references points to; HDF5's order of it is MATLAB's, whose axes lie the other way round."""
    return [_of_v73(item.file[reference]) for reference in item[()].ravel()]


def _is_field_of_array(item: h5py.Group | h5py.Dataset) -> bool:
    """Whether it has a value for each element of a struct array: references that are no cell."""
    return isinstance(item, h5py.Dataset) and item.dtype.kind == "O" and matlab_class(item) != "cell"
