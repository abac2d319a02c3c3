"""Puts the arrays of a checkpoint of another framework into a module of jfusion."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count, takewhile

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jfusion.catalogue import Layout, Table
from jfusion.errors import InputError


def load_original(module: nnx.Module, arrays: Mapping[str, np.ndarray], table: Table) -> None:
    """Sets every parameter and running moment of `module`, in its own dtype, or none if anything does not fit.

    Args:
        arrays: of the original, see `read_arrays`; without what is not of the network, such as an optimiser's state,
            and without second names of the same array.
        table: an entry for every parameter, or one for each of its parts.

    Raises:
        InputError: with all that is missing, left over or of another shape.
    """
    variables = {
        "/".join(map(str, path)): variable
        for path, variable in nnx.to_flat_state(nnx.state(module, nnx.Any(nnx.Param, nnx.BatchStat)))
    }
    names = {name for name, _ in table.values()}
    places = {path: _places(path, table) for path in variables}
    known = {place for found in places.values() for place in found}
    missing = [*(path for path in sorted(variables) if not places[path]), *sorted(names - arrays.keys())]
    left = [*sorted(table.keys() - known), *sorted(arrays.keys() - names)]
    parts = {path: [table[place] for place in found] for path, found in places.items() if found}
    whole = {path: found for path, found in parts.items() if all(name in arrays for name, _ in found)}
    values = {path: _joined([(arrays[name], layout) for name, layout in found]) for path, found in whole.items()}
    other = [
        f"{path} {variables[path].shape} from {' and '.join(f'{name} {arrays[name].shape}' for name, _ in found)}"
        for path, found in whole.items()
        if (value := values[path]) is None or value.shape != variables[path].shape
    ]
    if missing or left or other:
        lists = {"missing": missing, "left over": left, "of another shape": other}
        found = "; ".join(f"{what}: {', '.join(items)}" for what, items in lists.items() if items)
        raise InputError(
            f"the original does not fit the network, whose every parameter must be met once ({found}); check the bands "
            f"and sizes of the network, and the table."
        )
    for path, value in values.items():
        variables[path][...] = jnp.asarray(value, variables[path].dtype)


def _places(path: str, table: Table) -> list[str]:
    """Where the table has a parameter: under its own path, or in parts."""
    return [path] if path in table else list(takewhile(table.__contains__, (f"{path}/{k}" for k in count())))


def _joined(parts: list[tuple[np.ndarray, Layout]]) -> np.ndarray | None:
    """None if an array has not the axes that its layout moves, or the parts do not fit each other."""
    try:
        values = [layout(array) for array, layout in parts]
        return np.concatenate(values) if len(values) > 1 else values[0]
    except ValueError:
        return None
