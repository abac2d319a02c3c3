"""From a file of published weights to a network of jfusion that is ready to work."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

import numpy as np

from jfusion import catalogue
from jfusion.catalogue import Bands, Original, System, Trained
from jfusion.errors import InputError
from jfusion.training.loop import Network, build
from jfusion.training.originals import read_arrays
from jfusion.training.originals.assign import load_original

TRAINING = r"(.*/)?(beta[12]_power|global_step)|.*/Adam(_1)?|.*\.num_batches_tracked"
"""Names that TensorFlow and PyTorch give to what only training needs."""


def published(
    system: System,
    path: str | os.PathLike[str],
    *,
    bands: Bands | None = None,
    scale: float | None = None,
) -> tuple[Network, Original]:
    """A network with the weights of a release's file, and what the catalogue says of the file.

    Args:
        system: a row of the catalogue with originals.
        path: see `jfusion.training.originals.read_arrays`.
        bands: of the network, those of the published one by default.
        scale: what images are divided by before they go in, the release's by default.

    Raises:
        InputError: the system has no originals, the file cannot be read or does not fit, or there is no scale.
    """
    originals = system.method.originals if isinstance(system.method, Trained) else ()
    if not originals:
        names = ", ".join(name for name, row in catalogue.systems().items() if has_originals(row))
        raise InputError(f"no published weights are known for {system.name}; they are for {names}.")
    arrays = read_arrays(path)
    fits = []
    for original in originals:
        module = build(system, bands or original.bands, sizes=original.sizes)
        table = original.table(module)
        own = arrays_of_network(arrays, {name for name, _ in table.values()}, original.unused)
        fits.append((sum(name in own for name, _ in table.values()), original, module, table, own))
    _, original, module, table, own = max(fits, key=lambda fit: fit[0])
    units = original.scale if scale is None else scale
    if units is None:
        raise InputError(
            f"the release of {system.name} has no one number that images are divided by; give one, such as their "
            f"maximum."
        )
    load_original(module, own, table)
    module.eval()
    return Network(system, bands or original.bands, dict(original.sizes), module, units), original


def has_originals(system: System) -> bool:
    """Whether published weights of a system are known."""
    return isinstance(system.method, Trained) and bool(system.method.originals)


def arrays_of_network(
    arrays: Mapping[str, np.ndarray], names: Iterable[str], unused: str = ""
) -> dict[str, np.ndarray]:
    """The arrays of the network by its own names, without optimisers' and unused ones.

    Args:
        arrays: of a file, all of the network's with the same text before their names, such as "state_dict/module.".
        names: some of the network's.
        unused: see `Original`.
    """
    names = sorted(names)
    starts = {found.removesuffix(name) for name in names[:1] for found in arrays if found.endswith(name)}
    start = max(sorted(starts), key=lambda start: sum(start + name in arrays for name in names), default="")
    own = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
    return {name: array for name, array in own.items() if not re.fullmatch(f"{TRAINING}|{unused or '(?!)'}", name)}
