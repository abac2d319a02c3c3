"""Public benchmarks and the embedded scenes as TensorFlow Datasets, without TensorFlow.

    source = builders.load("cave", "train")          # default protocol
    source = builders.load("cave/mhf", "test")       # another published split
    source[0]["hsi"]                                 # (512, 512, 31) uint16

The files are downloaded by hand; `load` says what to get, from whom, under which licence, and where to put it. They are
copied once into records, with their own numbers: integers stay what they are, other numbers are in single precision,
nothing is scaled. The result is a random-access source for Grain: `grain.MapDataset.source(builders.load(...))`.

Each protocol fixes the examples of its splits by name or by region in pixels, in `jfusion.data.builders.table`, with
its source.
"""

import contextlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from jfusion.data import scenes
from jfusion.data.builders.dataset import Dataset
from jfusion.data.builders.table import DATASETS, embedded
from jfusion.errors import InputError, unknown

PACKAGES = ("tensorflow_datasets", "array_record")


def names() -> tuple[str, ...]:
    """Names of all data sets: the benchmarks, then the scenes that come with the package."""
    return (*sorted(DATASETS), *scenes.names())


def describe(name: str) -> Dataset:
    """What is known about a data set: its protocols, publisher, terms, layout.

    Raises:
        InputError: no such data set; the message lists names that look alike.
    """
    if name in DATASETS:
        return DATASETS[name]
    if name in names():
        return embedded(name)
    raise unknown("data set", name, names())


def builder(data: str | Dataset, data_dir: str | Path | None = None) -> Any:
    """The builder of TensorFlow Datasets for a data set.

    Args:
        data: `NAME`, `NAME/PROTOCOL`, or a description of one's own, of which the first protocol counts.
        data_dir: where prepared data sets lie; by default $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
        InputError: no such data set or protocol, or TensorFlow Datasets is not installed.
    """
    dataset, protocol = _resolved(data)
    absent = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if absent:
        raise InputError(
            f"Data sets need the package {' and '.join(absent)}, which is not installed; pip install -e '.[data]'."
        )
    from jfusion.data.builders.prepare import builder_class

    return builder_class(dataset)(data_dir=_root(data_dir), config=protocol, file_format="array_record")


def check(data: str | Dataset, data_dir: str | Path | None = None, manual_dir: str | Path | None = None) -> None:
    """Makes sure that a data set is prepared, or that all files to prepare it from are there; the arguments of `load`.

    Raises:
        InputError: no such data set or protocol, or files are missing (the message says what to get, from whom, under
            which licence, and where to put it).
    """
    dataset, protocol = _resolved(data)
    if not ((_root(data_dir) / dataset.name / protocol).exists() and builder(data, data_dir).data_path.exists()):
        dataset.find(_manual(data_dir, manual_dir) / dataset.name, protocol)


def load(
    data: str | Dataset, split: str, data_dir: str | Path | None = None, manual_dir: str | Path | None = None
) -> Any:
    """One split of a data set, prepared at the first call.

    Args:
        data: `NAME`, `NAME/PROTOCOL`, or a description of one's own, of which the first protocol counts.
        split: such as "train" or "test", as the protocol has them; slices such as "train[:50%]" too.
        data_dir: where prepared data sets lie; by default $TFDS_DATA_DIR or ~/tensorflow_datasets.
        manual_dir: where the downloaded files lie, in a folder with the data set's name; by default downloads/manual in
            `data_dir`.

    Returns:
        a random-access source of dicts in the published order: `hsi`, or `lr`, `guide` and `target`, each
        `(height, width, band)` in the publisher's numbers; `wavelengths` in nm of the image with the spectrum, where
        they are known; `name` of the example, in bytes. The embedded scenes have their own roles, `hsi`, `msi`, `pan`.

    Raises:
        InputError: no such data set, protocol or split, missing or wrong files, or TensorFlow Datasets is not
            installed; or the records on the disk were prepared from another description.
    """
    dataset, protocol = _resolved(data)
    splits = dataset.protocols[protocol]
    if split.partition("[")[0] not in splits:
        raise InputError(f"{dataset.name}/{protocol} has no split {split!r}; it has {', '.join(splits)}.")
    prepared = builder(data, data_dir)
    import tensorflow_datasets as tfds

    if not prepared.data_path.exists():
        manual = _manual(data_dir, manual_dir)
        dataset.find(manual / dataset.name, protocol)
        with contextlib.redirect_stdout(sys.stderr):
            prepared.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual))
    made = tfds.builder_from_directory(prepared.data_path)
    if made.info.metadata.get("digest") != dataset.digest(protocol):
        raise InputError(
            f"{prepared.data_path} was prepared from another description of {dataset.name}/{protocol}; move it "
            "away to prepare the data anew."
        )
    return made.as_data_source(split=split)


def _resolved(data: str | Dataset) -> tuple[Dataset, str]:
    name, _, protocol = (data if isinstance(data, str) else data.name).partition("/")
    dataset = describe(name) if isinstance(data, str) else data
    protocol = protocol or next(iter(dataset.protocols))
    if protocol not in dataset.protocols:
        raise InputError(f"{name} has no protocol {protocol!r}; it has {', '.join(dataset.protocols)}.")
    return dataset, protocol


def _manual(data_dir: str | Path | None, manual_dir: str | Path | None) -> Path:
    return _root(data_dir) / "downloads" / "manual" if manual_dir is None else Path(manual_dir)


def _root(data_dir: str | Path | None) -> Path:
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
