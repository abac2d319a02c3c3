"""The paper's data when they are there: tiny archives in the publishers' layouts, from the choice to the report."""

import dataclasses
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from experiments import fusionnet, mhf_net, runner, sun
from experiments.datasets import benchmark, check_serves, gathered, pairing_of, parted
from experiments.runner import Experiment, chosen, contest_on, means, run
from jfusion import catalogue
from jfusion.catalogue import Classical
from jfusion.data import builders
from jfusion.data.builders.layouts import Cube
from jfusion.data.builders.regions import Region
from jfusion.data.builders.table import CAVE, CAVE_SCENES, DATASETS, PAVIA_UNIVERSITY
from jfusion.data.simulate import Protocol
from jfusion.errors import InputError
from jfusion.report.results import Row
from tests.data.builders import published_files as published

NETWORKS = [name for name, row in catalogue.systems().items() if not isinstance(row.method, Classical)]
SIDE = 64


@dataclasses.dataclass(frozen=True)
class Archive:
    """What the publishers' files hold."""

    cave: dict[str, np.ndarray]
    wv3: dict[str, dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """CAVE and PanCollection's WorldView-3, tiny, where TensorFlow Datasets looks for them."""
    root = tmp_path_factory.mktemp("tfds")
    manual = root / "downloads" / "manual"
    cave = published.cave(manual / "cave", CAVE_SCENES, (SIDE, SIDE))
    counts = {"train_wv3.h5": 4, "valid_wv3.h5": 2, "test_wv3_multiExm1.h5": 3}
    wv3 = {
        file: published.pancollection(manual / "pancollection_wv3" / file, count, 8, SIDE, True)
        for file, count in counts.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(root))
        yield Archive(cave, wv3)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_script_has_its_papers_data(name: str) -> None:
    paper = importlib.import_module(f"experiments.{name}").PAPER
    assert isinstance(paper, Experiment)
    assert not paper.embedded
    assert paper.out != importlib.import_module(f"experiments.{name}").EXPERIMENT.out
    key, _, version = paper.data.partition("/")
    dataset = builders.describe(key)
    assert "test" in dataset.protocols[version or next(iter(dataset.protocols))]
    check_serves(dataset)
    if dataset.wavelengths is not None:
        assert (paper.protocol.spectral(np.asarray(dataset.wavelengths)).srf.sum(1) > 0).all()
    assert paper.protocol.data_range == 1


def test_the_papers_data_are_taken_where_they_are(archive: Archive) -> None:
    assert chosen(None, mhf_net.PAPER, mhf_net.EXPERIMENT) == (mhf_net.PAPER, "")
    assert chosen("jasper_ridge", mhf_net.PAPER, mhf_net.EXPERIMENT) == (mhf_net.EXPERIMENT, "")


def test_what_is_missing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    ran: list[Experiment] = []
    monkeypatch.setattr(runner, "run", lambda experiment, *_: ran.append(experiment))
    for arguments in ([], ["--data", "cave/first20"], ["--data=jasper_ridge", "--seed", "3"]):
        monkeypatch.setattr(sys, "argv", ["mhf_net", *arguments])
        with pytest.raises(SystemExit):
            runner.main("mhf_net", mhf_net.PAPER, mhf_net.EXPERIMENT)
    assert ran[0] == mhf_net.EXPERIMENT
    assert ran[1] == dataclasses.replace(mhf_net.PAPER, data="cave/first20")
    assert ran[2] == dataclasses.replace(mhf_net.EXPERIMENT, seed=3)
    (line,) = capsys.readouterr().err.splitlines()
    for told in ("cave/mhf", "complete_ms_data.zip", str(tmp_path / "downloads" / "manual" / "cave"), "jasper_ridge"):
        assert told in line


def test_cave_follows_the_papers_protocol(archive: Archive) -> None:
    where = benchmark("cave/mhf", mhf_net.PAPER.protocol)
    names = [image.name for image in where.judged]
    parts = CAVE.protocols["mhf"]
    assert names == list(parts["test"])
    learn = where.learn
    assert learn is not None
    assert where.validation is None
    assert isinstance(learn.target, np.ndarray)
    for k, name in enumerate(parts["train"]):
        assert name not in names
        np.testing.assert_allclose(learn.target[k], archive.cave[name] / 65535, rtol=1e-6)
    image = next(iter(where.judged))
    x = archive.cave[image.name] / 65535
    profile = np.exp(-0.5 * ((np.arange(32) - 15.5) / 10) ** 2)
    profile /= profile.sum()
    blocks = x.reshape(2, 32, 2, 32, 31)
    np.testing.assert_allclose(
        image.test.observation["lr"][0], np.einsum("aibjc,i,j->abc", blocks, profile, profile), rtol=1e-5
    )
    # red comes first, as in the releases
    red = np.array([2, 1, 1, 1, 1, 1, *[0] * 10, 2, 6, 11, 17, 21, 22, 21, 20, 20, 19, 19, 18, 18, 17, 17])
    np.testing.assert_allclose(image.test.observation["guide"][0, ..., 0], x @ (red / red.sum()), rtol=1e-3)
    assert image.data_range == 1
    assert Protocol(**{k: v for k, v in image.protocol.items() if hasattr(mhf_net.PAPER.protocol, k)}).taps == 32
    assert json.loads(json.dumps(image.protocol))["full_scale"] == 65535


def test_published_pairs_are_taken_as_they_are(archive: Archive) -> None:
    where = benchmark("pancollection_wv3", fusionnet.PAPER.protocol)
    assert where.learn is not None
    assert where.validation is not None
    keys = {"ms": "lr", "pan": "guide"}
    for data, file in ((where.learn, "train_wv3.h5"), (where.validation, "valid_wv3.h5")):
        for key, role in keys.items():
            expected = archive.wv3[file][key].transpose(0, 2, 3, 1) / 2047
            np.testing.assert_allclose(data.observation[role], expected, rtol=1e-6)
        np.testing.assert_allclose(data.target, archive.wv3[file]["gt"].transpose(0, 2, 3, 1) / 2047, rtol=1e-6)
    assert where.learn.model.grid.phase == (2, 2)
    assert where.learn.model.grid.shift == (0, 0)
    spread = [float(profile[len(profile) // 2]) for profile in np.asarray(where.learn.model["lr"].psf[0]).T]
    assert spread[2] > spread[7]  # a higher MTF is a narrower kernel
    judged = list(where.judged)
    np.testing.assert_allclose(
        judged[1].reference, archive.wv3["test_wv3_multiExm1.h5"]["gt"][1].transpose(1, 2, 0) / 2047, rtol=1e-6
    )
    assert len({image.name for image in judged}) == 3
    assert benchmark("pancollection_wv3", fusionnet.PAPER.protocol, learns=False).learn is None


def test_images_of_different_sizes_are_cut_into_parts() -> None:
    dataset = dataclasses.replace(CAVE, wavelengths=(450.0, 550.0, 650.0), data_range=None)
    rng = np.random.default_rng(0)
    source = [{"hsi": rng.random(shape, np.float32)} for shape in ((9, 25, 3), (16, 8, 3))]
    protocol = Protocol(ratio=4, guide_sensor="landsat8_oli", guide_bands=("B3", "B4"), lr_snr_db=30)
    learn = gathered(source, 2, pairing_of(dataset), protocol)
    assert learn.target.shape == (3 + 2, 8, 8, 3)
    assert learn.observation["lr"].shape == (5, 2, 2, 3)
    np.testing.assert_allclose(learn.target[2], source[0]["hsi"][:8, 16:24] / source[0]["hsi"].max(), rtol=1e-6)
    np.testing.assert_allclose(learn.target[4], source[1]["hsi"][8:16] / source[1]["hsi"].max(), rtol=1e-6)
    assert learn.model.noise["lr"].shape == (3,)


def test_regions_of_a_scene_have_one_full_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest number lies in one region; the others are divided by it too."""
    halves = {"train": (Region(0, 8, 0, 8),), "test": (Region(8, 16, 0, 8),)}
    small = dataclasses.replace(
        PAVIA_UNIVERSITY, name="small", layout=Cube("PaviaU.mat", (16, 8, 3), "uint16", key="paviaU"),
        protocols={"halves": halves}, wavelengths=(450.0, 550.0, 650.0),
    )  # fmt: skip
    image = published.pattern((16, 8, 3), "uint16") % 100
    image[0, 0, 0] = 4000
    (folder := tmp_path / "downloads" / "manual" / "small").mkdir(parents=True)
    published.matlab5(folder / "PaviaU.mat", "paviaU", image)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setitem(DATASETS, "small", small)
    where = benchmark("small", Protocol(ratio=4, guide_sensor="landsat8_oli", guide_bands=("B3", "B4")))
    assert where.learn is not None
    np.testing.assert_allclose(where.learn.target[0], image[:8] / 4000, rtol=1e-6)
    judged = next(iter(where.judged))
    np.testing.assert_allclose(judged.reference, image[8:] / 4000, rtol=1e-6)
    assert judged.protocol["full_scale"] == 4000


@pytest.mark.parametrize(("share", "held"), [(0.15, 3), (0.01, 1)])
def test_whole_images_are_held_out(archive: Archive, share: float, held: int) -> None:
    learn = benchmark("cave/mhf", mhf_net.PAPER.protocol).learn
    assert learn is not None
    kept, chosen_by = parted(learn, share)
    assert len(chosen_by.target) == len(chosen_by.observation["lr"]) == held
    np.testing.assert_array_equal(np.concatenate([kept.target, chosen_by.target]), learn.target)
    assert np.shares_memory(kept.target, learn.target)


@pytest.mark.parametrize(
    ("data", "message"),
    [("pancollection_wv3_full", "take pancollection_wv3"), ("washington_dc_mall", "no wavelengths"),
     ("pancollection_wv3/test_only", "no split 'train'"), ("harvard", "CZ_hsdb"), ("zzz", "known are")],
)  # fmt: skip
def test_data_that_do_not_serve_are_named(archive: Archive, tmp_path: Path, data: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(dataclasses.replace(fusionnet.PAPER, data=data, out=tmp_path), "fusionnet")


def test_a_region_that_leaves_an_image_is_named(archive: Archive) -> None:
    with pytest.raises(InputError, match="must lie inside"):
        benchmark("pancollection_wv3", fusionnet.PAPER.protocol, learn=(0, 96, 0, 96))


def test_blind_systems_are_not_told_the_sensors(archive: Archive) -> None:
    image = next(iter(benchmark("cave/mhf", mhf_net.PAPER.protocol, learns=False).judged))
    told, blind = (contest_on(image, hidden) for hidden in (False, True))
    assert told.model.known
    assert blind.model.operators == {"lr": None, "guide": None}
    assert blind.model.grid == told.model.grid
    assert "estimated" in blind.protocol["model"]
    assert (told.sensors, blind.sensors) == (None, image.test.model)


@pytest.mark.parametrize(("data", "protocol"), [("cave/first20", sun.PAPER.protocol), ("pancollection_wv3", None)])
def test_smoke_run(archive: Archive, tmp_path: Path, data: str, protocol: Protocol | None) -> None:
    experiment = dataclasses.replace(
        fusionnet.PAPER, data=data, protocol=protocol or fusionnet.PAPER.protocol, out=tmp_path, smoke=True
    )
    page = run(experiment, "fusionnet", fusionnet.PUBLISHED).read_text()
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["system"] for row in rows] == ["cubic", "fusionnet"] * 2
    assert len({row["scene"] for row in rows}) == 2
    assert all((tmp_path / row["product"]).is_file() for row in rows)
    assert "trained on pairs with truth: 20 steps" in rows[1]["note"]
    assert (tmp_path / "weights.safetensors").is_file()
    assert f"{data}, mean of 2 images" in page
    assert "KSDiff" in page
    assert rows[2]["scene"] in page

    judged = dataclasses.replace(experiment, weights=tmp_path / "weights.safetensors", out=tmp_path / "judged")
    assert "Weights of weights.safetensors" in run(judged, "fusionnet").read_text()
    again = json.loads((tmp_path / "judged" / "results.json").read_text())
    assert [row["metrics"] for row in again] == [row["metrics"] for row in rows]
    assert not (tmp_path / "judged" / "training").exists()


def row(scene: str, system: str, value: float) -> Row:
    return Row(scene, "hs_ms", system, "cnn", {}, {"PSNR": value, "SAM": -value}, 7, 2 * value, value, "", None)


def test_means_are_of_each_system() -> None:
    rows = [row(scene, system, k + 10 * s) for k, scene in enumerate("abc") for s, system in enumerate(("x", "y"))]
    assert [(m.system, m.metrics, m.seconds, m.peak_memory_mib) for m in means(rows)] == [
        ("x", {"PSNR": 1, "SAM": -1}, 2, 2),
        ("y", {"PSNR": 11, "SAM": -11}, 22, 12),
    ]
    assert means(rows[:2]) == rows[:2]
