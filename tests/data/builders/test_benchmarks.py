"""Every benchmark is prepared from a tiny archive in its publisher's layout and read back."""

from dataclasses import replace

import numpy as np
import published_files as published
import pytest

from jfusion.data import builders, scenes
from jfusion.data.builders.table import DATASETS

CUBES = {
    "botswana": (published.matlab5, "uint16"),
    "chikusei": (published.matlab73, "float64"),
    "houston2013": (published.pixel_tiff, "uint16"),
    "houston2018": (published.envi_pix, "uint16"),
    "pavia_centre": (published.matlab5, "uint16"),
    "pavia_university": (published.matlab5, "uint16"),
    "washington_dc_mall": (published.planar_tiff, "int16"),
}
PANCOLLECTION = [name for name in DATASETS if name.startswith("pancollection")]


def with_few_bands(name, count=2):
    """The benchmark at its full height and width, with only some of its bands."""
    dataset = DATASETS[name]
    layout = dataset.layout
    extra = 0 if layout.bands is None else layout.shape[2] - layout.bands
    layout = replace(layout, shape=(*layout.shape[:2], count + extra), bands=count if extra else None)
    return replace(dataset, layout=layout, wavelengths=dataset.wavelengths and dataset.wavelengths[:count])


def test_no_benchmark_is_left_out():
    assert set(DATASETS) == {*CUBES, *PANCOLLECTION, "cave", "harvard"}


@pytest.mark.parametrize("name", CUBES)
def test_cube(name, tmp_path):
    write, dtype = CUBES[name]
    dataset = with_few_bands(name)
    image = published.pattern(dataset.layout.shape, dtype)
    folder = tmp_path / name / "as unpacked"
    folder.mkdir(parents=True)
    write(folder / dataset.layout.file, dataset.layout.key, image)
    for protocol, splits in dataset.protocols.items():
        chosen = replace(dataset, protocols={protocol: splits})
        for split, regions in splits.items():
            source = builders.load(chosen, split, tmp_path / "data", tmp_path)
            assert len(source) == len(regions)
            for record, region in zip(source, regions, strict=True):
                crop = image[region.top : region.bottom, region.left : region.right, :2]
                assert record["hsi"].dtype == dataset.layout.dtype
                np.testing.assert_array_equal(record["hsi"], crop)
                assert record["name"].decode() == str(region)
                assert ("wavelengths" in record) == (dataset.wavelengths is not None)


def test_cave_of_16_and_8_bits_and_with_colours(tmp_path):
    images = published.cave(tmp_path / "cave", published_scenes("cave"))
    first = next(iter(images))
    for protocol, counts in {"first20": (20, 12), "mhf": (20, 12), "hsrnet": (20, 11)}.items():
        for split, count in zip(("train", "test"), counts, strict=True):
            source = builders.load(f"cave/{protocol}", split, tmp_path / "data", tmp_path)
            assert len(source) == count
            for record in source:
                np.testing.assert_array_equal(record["hsi"], images[record["name"].decode()])
    record = builders.load("cave", "train", tmp_path / "data", tmp_path)[0]
    assert record["name"].decode() == first
    assert record["hsi"].dtype == np.uint16
    np.testing.assert_array_equal(record["wavelengths"], np.arange(400, 701, 10))
    assert images["watercolors_ms"].max() > 2**15  # 8 bits fill 16


def test_harvard(tmp_path):
    images = published.harvard(tmp_path / "harvard", published_scenes("harvard"))
    for split, count in (("train", 30), ("test", 20)):
        source = builders.load("harvard", split, tmp_path / "data", tmp_path)
        assert len(source) == count
        for record in source:
            np.testing.assert_array_equal(record["hsi"], images[record["name"].decode()].astype(np.float32))
    assert images[record["name"].decode()].dtype == np.float64


@pytest.mark.parametrize("name", PANCOLLECTION)
def test_pancollection(name, tmp_path):
    dataset = DATASETS[name]
    bands, truth = dataset.layout.bands, dataset.layout.truth
    for split, (file,) in dataset.protocols["published"].items():
        size = 8 if split in ("train", "valid") else 16
        arrays = published.pancollection(tmp_path / name / file, 3, bands, size, truth)
        keys = {"lr": "ms", "guide": "pan"} | ({"target": "gt"} if truth else {})
        if split == "test":
            source = builders.load(f"{name}/test_only", split, tmp_path / "data", tmp_path)
            assert set(source[0]) == {*keys, "name"}
            for index, record in enumerate(source):
                assert record["name"].decode() == f"{file}[{index}]"
                for role, key in keys.items():
                    np.testing.assert_array_equal(record[role], arrays[key][index].transpose(1, 2, 0))
                    assert record[role].dtype == np.float32
    for split in dataset.protocols["published"]:
        record = builders.load(name, split, tmp_path / "data", tmp_path)[2]
        assert record["guide"].shape == ((16, 16, 1) if split == "test" else (8, 8, 1))
        assert record["lr"].shape == ((4, 4, bands) if split == "test" else (2, 2, bands))


@pytest.mark.parametrize("name", scenes.names())
def test_embedded_scenes(name, tmp_path):
    source = builders.load(name, "scene", tmp_path)
    (record,) = source
    images = scenes.load(name)
    for role, scene in images.items():
        np.testing.assert_array_equal(record[role], scene.image)
        assert record[role].dtype == scene.image.dtype
    spectral = images.get("hsi", images.get("msi"))
    np.testing.assert_allclose(record["wavelengths"], spectral.wavelengths, rtol=1e-6)
    metadata = source.dataset_info.metadata
    for role, scene in images.items():
        np.testing.assert_array_equal(metadata["scale"][role], scene.scale)
        np.testing.assert_array_equal(metadata["offset"][role], scene.offset)


def published_scenes(name):
    """All scenes of a benchmark in alphabetical order."""
    splits = next(iter(DATASETS[name].protocols.values())).values()
    return tuple(sorted(scene for parts in splits for scene in parts))
