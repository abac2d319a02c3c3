"""Puts the arrays of a checkpoint of another framework into a module of jfusion."""

from __future__ import annotations

from collections.abc import Mapping

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
        table: an entry for every parameter.

    Raises:
        InputError: with all that is missing, left over or of another shape.
    """
    variables = {
        "/".join(map(str, path)): variable
        for path, variable in nnx.to_flat_state(nnx.state(module, nnx.Any(nnx.Param, nnx.BatchStat)))
    }
    names = {name for name, _ in table.values()}
    missing = [*sorted(variables.keys() - table.keys()), *sorted(names - arrays.keys())]
    left = [*sorted(table.keys() - variables.keys()), *sorted(arrays.keys() - names)]
    pairs = {path: table[path] for path in variables if path in table and table[path][0] in arrays}
    values = {path: _laid_out(arrays[name], layout) for path, (name, layout) in pairs.items()}
    other = [
        f"{path} {variables[path].shape} from {name} {arrays[name].shape}"
        for path, (name, _) in pairs.items()
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


def _laid_out(array: np.ndarray, layout: Layout) -> np.ndarray | None:
    """None if the array has not the axes that `layout` moves."""
    try:
        return layout(array)
    except ValueError:
        return None
