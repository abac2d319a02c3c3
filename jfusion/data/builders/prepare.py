"""One builder of TensorFlow Datasets, made out of a description; TensorFlow itself is not needed.

Records are array_record files, in the published order. Import this module only where a data set is wanted: it takes
TensorFlow Datasets along, which the extra `data` installs.
"""

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jfusion.data.builders.dataset import Dataset

VERSION = "1.0.0"


class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A data set on disk: images with their own numbers, the name of the example, wavelengths where they are known."""

    VERSION = tfds.core.Version(VERSION)
    name = "jfusion_prepared"
    code_path = None  # no checksums beside this file; seeking them imports a package that TFDS forgets to require
    dataset: Dataset

    def _info(self) -> tfds.core.DatasetInfo:
        dataset = self.dataset
        features: dict[str, Any] = {
            role: tfds.features.Tensor(
                shape=(None, None, image.bands), dtype=np.dtype(image.dtype).type, encoding="bytes"
            )
            for role, image in dataset.layout.images.items()
        }
        if dataset.wavelengths is not None:
            features["wavelengths"] = tfds.features.Tensor(shape=(len(dataset.wavelengths),), dtype=np.float32)
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{dataset.title}. {dataset.note}",
            features=tfds.features.FeaturesDict(features | {"name": tfds.features.Text()}),
            homepage=dataset.address or None,
            citation=dataset.citation,
            license=dataset.licence,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(
                data_range=dataset.data_range,
                protocol=self.builder_config.name,
                digest=dataset.digest(self.builder_config.name),
                scale=dict(dataset.scale or {}),
                offset=dict(dataset.offset or {}),
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        protocol = self.builder_config.name
        files = self.dataset.find(Path(dl_manager.manual_dir) / self.name, protocol) if self.dataset.manual else {}
        splits = self.dataset.protocols[protocol]
        return {split: self._generate_examples(files, parts) for split, parts in splits.items()}

    def _generate_examples(self, files: dict[str, Path], parts: tuple[Any, ...]) -> Iterator[tuple[int, dict]]:
        wavelengths = self.dataset.wavelengths
        known = {} if wavelengths is None else {"wavelengths": np.asarray(wavelengths, np.float32)}
        for index, (name, images) in enumerate(self.dataset.layout.read(files, parts)):
            yield index, {**images, **known, "name": name}


def builder_class(dataset: Dataset) -> type[Prepared]:
    """The builder class of a description, with a configuration for each protocol."""
    configs = [
        tfds.core.BuilderConfig(name=protocol, version=VERSION, description=f"Protocol {protocol}.")
        for protocol in dataset.protocols
    ]
    namespace = {
        "__module__": __name__,
        "__doc__": f"{dataset.title}. {dataset.note}",
        "name": dataset.name,
        "dataset": dataset,
        "BUILDER_CONFIGS": configs,
        "MANUAL_DOWNLOAD_INSTRUCTIONS": dataset.instructions(configs[0].name) if dataset.manual else None,
    }
    return types.new_class(dataset.name, (Prepared,), {"skip_registration": True}, lambda body: body.update(namespace))
