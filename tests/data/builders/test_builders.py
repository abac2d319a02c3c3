"""What all builders promise: published splits, telling errors, lazy imports, sources that Grain takes."""

import itertools
import pickle
import subprocess
import sys
from dataclasses import replace

import grain
import numpy as np
import published_files as published
import pytest
from PIL import Image

from jfusion.data import builders
from jfusion.data.builders.layouts import Cube, PairFiles
from jfusion.data.builders.regions import Region, ssrnet, tiles
from jfusion.data.builders.table import CAVE_SCENES, DATASETS, PAVIA_UNIVERSITY
from jfusion.errors import InputError

PROTOCOLS = [(name, protocol) for name, dataset in DATASETS.items() for protocol in dataset.protocols]
SMALL = replace(
    PAVIA_UNIVERSITY,
    name="small",
    layout=Cube("PaviaU.mat", (8, 6, 3), "uint16", key="paviaU"),
    protocols={"halves": {"train": (Region(0, 4, 0, 6),), "test": (Region(4, 8, 0, 3), Region(4, 8, 3, 6))}},
)
IMAGE = published.pattern((8, 6, 3), "uint16")


def put(folder, image=IMAGE, key="paviaU", write=published.matlab5):
    """The small data set's file in its manual folder; returns the manual directory."""
    home = folder / "manual" / "small"
    home.mkdir(parents=True, exist_ok=True)
    write(home / "PaviaU.mat", key, image)
    return folder / "manual"


@pytest.mark.parametrize(("name", "protocol"), PROTOCOLS)
def test_splits_share_nothing_and_lie_within_the_scene(name, protocol):
    dataset = DATASETS[name]
    parts = [part for split in dataset.protocols[protocol].values() for part in split]
    assert len(set(parts)) == len(parts)
    if not isinstance(dataset.layout, Cube):
        return
    height, width, _ = dataset.layout.shape
    for part in parts:
        assert 0 <= part.top < part.bottom <= height
        assert 0 <= part.left < part.right <= width
    for a, b in itertools.combinations(parts, 2):
        assert a.bottom <= b.top or b.bottom <= a.top or a.right <= b.left or b.right <= a.left


@pytest.mark.parametrize(
    ("name", "protocol", "counts"),
    [
        ("cave", "first20", (20, 12)),
        ("cave", "mhf", (20, 12)),
        ("cave", "hsrnet", (20, 11)),
        ("harvard", "first30", (30, 20)),
        ("pavia_centre", "hyperkite", (12, 7)),
        ("botswana", "hyperkite", (18, 6)),
        ("chikusei", "hyperkite", (61, 20)),
        ("chikusei", "strip", (16, 4)),
        ("houston2013", "bmhf", (2, 1)),
        ("houston2018", "contest", (4, 10)),
    ],
)
def test_splits_have_the_published_sizes(name, protocol, counts):
    splits = DATASETS[name].protocols[protocol]
    assert (len(splits["train"]), len(splits["test"])) == counts


def test_regions_are_the_published_ones():
    assert DATASETS["cave"].protocols["first20"]["test"][0] == "jelly_beans_ms"
    assert DATASETS["cave"].protocols["mhf"]["train"][:2] == ("beads_ms", "thread_spools_ms")
    assert len(CAVE_SCENES) == 32
    assert list(CAVE_SCENES) == sorted(CAVE_SCENES)
    assert tiles(715, (160, 160), [4, 5, 24]) == ((0, 160, 480, 640), (160, 320, 0, 160), (800, 960, 480, 640))
    assert ssrnet(610, 340)["test"] == (Region(240, 368, 105, 233),)
    assert ssrnet(1280, 307)["test"] == (Region(575, 703, 88, 216),)
    assert sum((r.bottom - r.top) * (r.right - r.left) for r in ssrnet(610, 340)["train"]) == 608 * 339 - 128**2
    assert DATASETS["chikusei"].protocols["strip"]["test"][3] == Region(106, 618, 1679, 2191)
    contest = DATASETS["houston2018"].protocols["contest"]["train"]
    assert (contest[0].top, contest[0].left, contest[-1].bottom, contest[-1].right) == (601, 596, 1202, 2980)


def test_wavelengths_fit_the_bands():
    for dataset in DATASETS.values():
        if dataset.wavelengths is not None:
            (image,) = dataset.layout.images.values()
            assert len(dataset.wavelengths) == image.bands
    assert DATASETS["botswana"].wavelengths[0] == pytest.approx(447.2, abs=0.1)  # Hyperion's channel 10
    assert DATASETS["houston2018"].wavelengths[1] == 388.7
    assert DATASETS["pavia_university"].wavelengths[:2] == (430.0, 434.2)


@pytest.mark.parametrize(("name", "protocol"), PROTOCOLS)
def test_missing_files_are_told(name, protocol, tmp_path):
    dataset = DATASETS[name]
    split = next(iter(dataset.protocols[protocol]))
    with pytest.raises(InputError) as caught:
        builders.load(f"{name}/{protocol}", split, tmp_path)
    message = str(caught.value)
    first = dataset.layout.files(dataset.protocols[protocol][split][0])[0]
    for told in (dataset.title, first, dataset.origin, dataset.address, dataset.licence):
        assert told in message
    assert str(tmp_path / "downloads" / "manual" / name) in message
    assert not (tmp_path / name / protocol).exists()
    made = builders.builder(name, tmp_path)
    instructions = made.MANUAL_DOWNLOAD_INSTRUCTIONS
    assert instructions == dataset.instructions(next(iter(dataset.protocols)))
    assert made.__doc__ == f"{dataset.title}. {dataset.note}"


def test_only_missing_files_are_listed(tmp_path):
    arguments = (3, 4, 16, True)
    published.pancollection(tmp_path / "pancollection_gf2" / "h5" / "test_gf2_multiExm1.h5", *arguments)
    with pytest.raises(InputError, match=r"Download train_gf2\.h5, valid_gf2\.h5 by hand"):
        builders.load("pancollection_gf2", "test", tmp_path / "data", tmp_path)


def test_information_is_kept_with_the_data(tmp_path):
    info = builders.builder("pancollection_gf2", tmp_path).info
    assert info.metadata["data_range"] == 1023
    assert info.metadata["protocol"] == "published"
    assert "GPL-3.0" in info.redistribution_info.license
    source = builders.load(replace(SMALL, data_range=2047), "test", tmp_path, put(tmp_path))
    assert source.dataset_info.metadata["data_range"] == 2047
    assert source.dataset_info.metadata["protocol"] == "halves"


def test_source_is_for_grain(tmp_path):
    source = builders.load(SMALL, "test", tmp_path, put(tmp_path))
    source = pickle.loads(pickle.dumps(source))
    batch = next(iter(grain.MapDataset.source(source).map(lambda record: record["hsi"]).batch(2)))
    np.testing.assert_array_equal(batch, np.stack([IMAGE[4:, :3], IMAGE[4:, 3:]]))
    assert len(builders.load(SMALL, "test[:50%]", tmp_path)) == 1


def test_prepared_data_need_the_archive_no_more(tmp_path, capsys):
    manual = put(tmp_path)
    builders.load(SMALL, "train", tmp_path, manual)
    (manual / "small" / "PaviaU.mat").unlink()
    np.testing.assert_array_equal(builders.load(SMALL, "train", tmp_path, manual)[0]["hsi"], IMAGE[:4])
    assert capsys.readouterr().out == ""


def test_prepared_data_of_another_description_are_told(tmp_path):
    manual = put(tmp_path)
    builders.load(SMALL, "train", tmp_path, manual)
    other = {"halves": {**SMALL.protocols["halves"], "train": (Region(0, 3, 0, 6),)}}
    with pytest.raises(InputError, match="prepared from another description of small/halves; move it away"):
        builders.load(replace(SMALL, protocols=other), "train", tmp_path, manual)


def test_files_or_prepared_data_are_enough(tmp_path):
    with pytest.raises(InputError, match=r"Download PaviaU\.mat by hand"):
        builders.check(SMALL, tmp_path, tmp_path / "manual")
    manual = put(tmp_path)
    builders.check(SMALL, tmp_path, manual)
    assert not (tmp_path / "small").exists()
    builders.load(SMALL, "test", tmp_path, manual)
    (manual / "small" / "PaviaU.mat").unlink()
    builders.check(SMALL, tmp_path, manual)


@pytest.mark.parametrize(
    ("image", "key", "write", "message"),
    [
        (IMAGE[:, :, :2], "paviaU", published.matlab5, "shape .8, 6, 2."),
        (IMAGE.transpose(1, 0, 2), "paviaU", published.matlab5, "shape .6, 8, 3."),
        (IMAGE / 2047, "paviaU", published.matlab5, "no uint16"),
        (IMAGE - 1000.0, "paviaU", published.matlab5, "no uint16"),
        (IMAGE, "pavia", published.matlab5, "paviaU"),
        (IMAGE * np.nan, "paviaU", published.matlab73, "NaN"),
    ],
)
def test_other_copies_are_refused(image, key, write, message, tmp_path):
    manual = put(tmp_path, image, key, write)
    with pytest.raises(InputError, match=message):
        builders.load(SMALL, "train", tmp_path, manual)
    put(tmp_path)  # once the original lies there, nothing is left of the failure
    np.testing.assert_array_equal(builders.load(SMALL, "train", tmp_path, manual)[0]["hsi"], IMAGE[:4])


def test_doubles_of_whole_numbers_are_the_integers(tmp_path):
    manual = put(tmp_path, IMAGE.astype(float), write=published.matlab73)
    record = builders.load(SMALL, "train", tmp_path, manual)[0]
    assert record["hsi"].dtype == np.uint16
    np.testing.assert_array_equal(record["hsi"], IMAGE[:4])


def test_two_files_of_one_name(tmp_path):
    manual = put(tmp_path)
    published_copy = manual / "small" / "copy"
    published_copy.mkdir()
    (published_copy / "PaviaU.mat").write_bytes(b"something else")
    with pytest.raises(InputError, match=r"PaviaU\.mat more than once"):
        builders.load(SMALL, "train", tmp_path, manual)


def test_cave_folders_that_were_changed(tmp_path):
    cave = replace(DATASETS["cave"], protocols={"two": {"train": ("beads_ms",), "test": ("cd_ms",)}})
    images = published.cave(tmp_path / "cave", ("beads_ms", "cd_ms"))
    band = tmp_path / "cave/complete_ms_data/beads_ms/beads_ms/beads_ms_07.png"
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(band)
    with pytest.raises(InputError, match="beads_ms differ in size"):
        builders.load(cave, "test", tmp_path / "data", tmp_path)
    colours = np.zeros((4, 5, 4), np.uint8)
    colours[...] = (10, 11, 12, 255)
    Image.fromarray(colours).save(band)
    record = builders.load(cave, "train", tmp_path / "data", tmp_path)[0]
    np.testing.assert_array_equal(record["hsi"][..., 6], np.full((4, 5), 11 * 257))
    np.testing.assert_array_equal(record["hsi"][..., 7], images["beads_ms"][..., 7])


@pytest.mark.parametrize(
    ("truth", "bands", "message"),
    [(False, 4, "has no array gt"), (True, 8, "with 4 bands")],
)
def test_other_pair_files_are_refused(truth, bands, message, tmp_path):
    path = tmp_path / "pairs.h5"
    published.pancollection(path, 2, bands, 8, truth)
    with pytest.raises(InputError, match=message):
        list(PairFiles(4, truth=True).read({"pairs.h5": path}, ["pairs.h5"]))


def test_names_that_do_not_exist(tmp_path):
    assert {"cave", "paris_hs_pan"} <= set(builders.names())
    with pytest.raises(InputError, match="did you mean pavia_centre"):
        builders.load("pavia_center", "train", tmp_path)
    with pytest.raises(InputError, match="no protocol 'random'; it has first20, mhf, hsrnet"):
        builders.load("cave/random", "train", tmp_path)
    with pytest.raises(InputError, match="no split 'validation'; it has train, valid, test"):
        builders.load("pancollection_qb", "validation", tmp_path)


def test_missing_package_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=r"tensorflow_datasets.*pip install -e '.\[data\]'"):
        builders.load("cave", "train", tmp_path)


def test_nothing_heavy_is_imported_before_it_is_needed(tmp_path):
    code = (
        "import sys; from jfusion.data import builders; builders.names(); builders.describe('cave')\n"
        "first = {'tensorflow_datasets', 'tensorflow', 'array_record', 'jax', 'matplotlib'} & {*sys.modules}\n"
        f"builders.load('landsat7_tiny', 'scene', {str(tmp_path)!r})[0]\n"
        "print(first, {'tensorflow', 'jax'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set() set()"
