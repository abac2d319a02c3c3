"""Trained weights as safetensors files: arrays and a description, nothing that runs."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from jfusion import catalogue
from jfusion.catalogue import Bands, System
from jfusion.errors import InputError
from jfusion.files import replaced
from jfusion.training.loop import Network, build


def _flat(module: nnx.Module) -> dict[str, Any]:
    """What is learned or measured in training, by its path; random numbers are neither."""
    state = nnx.state(module, nnx.Not(nnx.RngState))
    return {"/".join(map(str, path)): value for path, value in nnx.to_flat_state(state)}


def save(path: str | os.PathLike[str], network: Network) -> None:
    """Writes a trained network; the file appears whole or not at all."""
    from safetensors.numpy import save as serialise

    description = {
        "system": network.system.name,
        "bands": dataclasses.asdict(network.bands),
        "sizes": network.sizes,
        "scale": network.scale,
    }
    arrays = {name: np.asarray(variable[...], order="C") for name, variable in _flat(network.module).items()}
    with replaced(Path(path)) as temporary:
        temporary.write_bytes(serialise(arrays, {"jfusion": json.dumps(description)}))


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Description and arrays of a file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            description = json.loads((file.metadata() or {})["jfusion"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return {
            "system": str(description["system"]),
            "bands": Bands(**description["bands"]),
            "sizes": description["sizes"],
            "scale": float(description["scale"]),
        }, arrays
    except FileNotFoundError:
        raise InputError(f"there is no weights file {path}; check the path.") from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a weights file of jfusion (safetensors written by training).") from error


def system_of(path: str | os.PathLike[str]) -> str:
    """The name of the system that a file has the weights of; raises InputError as `load` does."""
    return str(_read(path)[0]["system"])


def load(path: str | os.PathLike[str], system: System | None = None) -> Network:
    """Reads a trained network.

    Args:
        path: of the file.
        system: the network's row, where the catalogue does not have it.

    Raises:
        InputError: no such file, not a weights file of jfusion, the weights of another system, or arrays that do not
            fit the network.
    """
    description, arrays = _read(path)
    name, bands, sizes, scale = (description[key] for key in ("system", "bands", "sizes", "scale"))
    system = system or catalogue.systems().get(name)
    if system is None:
        raise InputError(f"{path} has the weights of {name}, which no catalogue has; give its row as second argument.")
    if system.name != name:
        raise InputError(f"{path} has the weights of {name}, but {system.name} was asked for; ask for {name}.")
    module = build(system, bands, sizes=sizes)
    variables = _flat(module)
    if wrong := [
        n
        for n in variables.keys() | arrays.keys()
        if n not in variables or n not in arrays or variables[n].shape != arrays[n].shape
    ]:
        raise InputError(f"{path} does not fit {system.name}: {len(wrong)} arrays differ, such as {sorted(wrong)[0]}.")
    for name, variable in variables.items():
        variable[...] = arrays[name]
    module.eval()
    return Network(system, bands, sizes, module, scale)
