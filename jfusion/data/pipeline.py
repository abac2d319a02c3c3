"""From a source of numbered records to batches: any batch can be the first, so a loader's position is one number."""

from __future__ import annotations

from collections.abc import Generator
from itertools import count
from typing import Any, Protocol, SupportsIndex

import numpy as np

from jfusion.data.patches import Record
from jfusion.errors import InputError


class Source(Protocol):
    """Records by number: crops, a list, or what TensorFlow Datasets' ``data_source`` returns."""

    def __len__(self) -> int: ...

    def __getitem__(self, k: SupportsIndex, /) -> Any: ...


def _check(batch: int, processes: int) -> None:
    if batch % processes:
        raise InputError(f"a batch of {batch} records cannot be shared by {processes} processes; choose a multiple.")


def stacked(source: Source, batch: int, *, start: int = 0, process: int = 0, processes: int = 1) -> Generator[Record]:
    """Endless batches of records in memory, made when they are asked for; the same as `loader` makes without shuffling.

    Without threads and imports it starts at once, which is what short training in memory wants.
    """
    _check(batch, processes)
    for k in count(start):
        numbers = range(k * batch + process, (k + 1) * batch, processes)
        records = [source[n % len(source)] for n in numbers]
        yield {name: np.stack([record[name] for record in records]) for name in records[0]}


def loader(
    source: Source,
    batch: int,
    *,
    start: int = 0,
    shuffle: int | None = None,
    process: int = 0,
    processes: int = 1,
    threads: int = 2,
) -> Generator[Record]:
    """Endless batches, read ahead by Grain's threads: batch k holds the records k * batch and following.

    Args:
        source: read again from its start, newly shuffled, when it is used up.
        batch: records of all processes together.
        start: number of the first batch.
        shuffle: seed of the order; None for the source's own.
        process, processes: which of the batch's records come: each ``processes``-th one, from number ``process`` on.
        threads: that read and decode.

    Raises:
        InputError: the processes do not divide the batch.
    """
    _check(batch, processes)
    import grain

    records = grain.MapDataset.source(source)
    if shuffle is not None:
        records = records.shuffle(shuffle)
    rows = records.repeat()[start * batch + process :: processes].batch(batch // processes)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(rows.to_iter_dataset(options))
