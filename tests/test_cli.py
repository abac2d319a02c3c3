"""The command line through its real entry point."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import scipy.io
from affine import Affine

from jfusion import catalogue
from jfusion.catalogue import Bands
from jfusion.cli import main, parser
from jfusion.data import geotiff, readers, scenes
from jfusion.errors import InputError
from jfusion.process import answered
from jfusion.report.results import read_results
from jfusion.training import weights
from jfusion.training.loop import Network, build

COMMAND = [sys.executable, "-m", "jfusion.cli"]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A Landsat-8 pair as files."""
    files = tmp_path / "ms.tif", tmp_path / "pan.tif"
    for file, role in zip(files, ("msi", "pan"), strict=True):
        shutil.copy(scenes.path("landsat8_tiny", role), file)
    return files


def write(
    path: Path, image: np.ndarray, *, step: float = 30.0, crs: str = "EPSG:32632", x: float = 0.0, **profile
) -> Path:
    bands, height, width = image.shape
    transform = Affine(step, 0, 500000 + x, 0, -step, 5600000)
    with rasterio.open(
        path, "w", driver="GTiff", count=bands, height=height, width=width, dtype=image.dtype, crs=crs,
        transform=transform, **profile,
    ) as file:  # fmt: skip
        file.write(image)
    return path


def image(bands: int, size: int, dtype=np.uint16) -> np.ndarray:
    return (np.random.default_rng(0).random((bands, size, size)) * 1000 + 100).astype(dtype)


def good(folder: Path) -> tuple[Path, Path]:
    return write(folder / "a.tif", image(4, 16)), write(folder / "b.tif", image(1, 32), step=15.0)


def test_fuse_writes_a_georeferenced_cog(pair: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    out = tmp_path / "sharp.tif"
    page = tmp_path / "page"
    assert main(["fuse", *map(str, pair), str(out), "--json", "-q", "--report", str(page)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["report"] == str(page / "index.html")
    assert "<html" in (page / "index.html").read_text()
    assert json.loads((page / "results.json").read_text())[0]["system"] == said["system"]
    assert said["task"] == "pansharpening"
    assert said["ratio"] == 2
    with rasterio.open(out) as product, rasterio.open(pair[1]) as pan, rasterio.open(pair[0]) as ms:
        assert product.crs == pan.crs
        assert product.dtypes == ms.dtypes
        assert product.nodata == ms.nodata
        assert product.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        corner = product.transform @ (0, 0)
        row, column = (~pan.transform) @ corner
        assert row == int(row)
        assert column == int(column)
        assert product.count == ms.count
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_product_does_not_depend_on_the_flags_of_tests(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """As users run it: a process of its own, where XLA optimises; within a grey level."""
    here, there = tmp_path / "here.tif", tmp_path / "there.tif"
    options = ["--system", "fuse", "-q"]
    assert main(["fuse", *map(str, pair), str(here), *options]) == 0
    usual = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run([*COMMAND, "fuse", *map(str, pair), str(there), *options], env=usual, check=True)
    products = [readers.read(path).image.astype(np.float64) for path in (here, there)]
    assert np.abs(products[0] - products[1]).max() <= 1


def test_fused_centres_lie_on_the_coarse_ones(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Where Landsat's pixel centres coincide, the product sampled there resembles the coarse image most."""
    out = tmp_path / "sharp.tif"
    assert main(["fuse", *map(str, pair), str(out), "-q", "--system", "cubic"]) == 0
    product, coarse = readers.read(out), readers.read(pair[0])
    assert product.transform is not None
    assert coarse.transform is not None
    columns, rows = np.meshgrid(np.arange(5, 35) + 0.5, np.arange(5, 35) + 0.5)
    x, y = coarse.transform @ (columns, rows)
    fine_columns, fine_rows = (~product.transform) @ (x, y)
    sampled = product.image[np.floor(fine_rows).astype(int), np.floor(fine_columns).astype(int)]
    np.testing.assert_allclose(sampled, coarse.image[5:35, 5:35], atol=1.01)


def test_the_report_reads_the_files_as_they_were_fused(tmp_path: Path, capsys) -> None:
    """One band, NaN declared on the command line, a sensor that the file names wrongly."""
    ms = image(1, 16, np.float32)
    ms[0, 8, 8] = np.nan
    lr = write(tmp_path / "ms.tif", ms)
    with rasterio.open(lr, "r+") as file:
        file.update_tags(SENSOR="nowhere")
    guide = write(tmp_path / "pan.tif", image(1, 32), step=15.0)
    out, page = tmp_path / "sharp.tif", tmp_path / "page"
    options = ["--nodata", "nan", "--lr-sensor", "eo1_ali", "--report", str(page)]
    assert main(["fuse", str(lr), str(guide), str(out), "-q", "--system", "gsa", *options]) == 0, capsys.readouterr()
    rows = json.loads((page / "results.json").read_text())
    assert [row["system"] for row in rows] == ["gsa", "cubic"]
    for row in rows:
        assert {"D_s", "HQNR"} <= set(row["metrics"])
        assert not {"D_lambda", "QNR"} & set(row["metrics"])


def test_an_image_smaller_than_a_block_is_judged_by_its_residuals(tmp_path: Path, capsys) -> None:
    lr, guide = write(tmp_path / "a.tif", image(4, 7), step=60.0), write(tmp_path / "b.tif", image(1, 28), step=15.0)
    out, page = tmp_path / "out.tif", tmp_path / "page"
    options = ["-q", "--system", "gsa", "--lr-sensor", "pleiades1a", "--report", str(page)]
    assert main(["fuse", str(lr), str(guide), str(out), *options]) == 0, capsys.readouterr().err
    for row in json.loads((page / "results.json").read_text()):
        assert set(row["metrics"]) == {"residual lr"}


def test_inputs_are_not_replaced(tmp_path: Path, capsys) -> None:
    lr, guide = good(tmp_path)
    linked = tmp_path / "link.tif"
    linked.symlink_to(guide)
    before = lr.read_bytes(), guide.read_bytes()
    same = [[lr], [tmp_path / "nowhere" / ".." / "a.tif"], [linked]]
    (tmp_path / "nowhere").mkdir()
    weights = tmp_path / "net.safetensors"
    same += [[weights, "--system", "pannet", "--save-weights", other] for other in (weights, guide)]
    for out, *options in same:
        assert main(["fuse", *map(str, (lr, guide, out, *options)), "--overwrite", "-q"]) == 2
        assert "would replace" in capsys.readouterr().err
    assert (lr.read_bytes(), guide.read_bytes()) == before


def test_one_file_is_no_pair(tmp_path: Path, capsys) -> None:
    lr, _ = good(tmp_path)
    (tmp_path / "link.tif").symlink_to(lr)
    for guide in (lr, tmp_path / "link.tif"):
        assert main(["fuse", str(lr), str(guide), str(tmp_path / "out.tif"), "-q"]) == 2
        assert "are one file" in capsys.readouterr().err


def test_weights_say_which_system_they_are_of(tmp_path: Path, capsys) -> None:
    files, row = good(tmp_path), catalogue.get("pannet")
    bands, sizes = Bands(4, 1, 2), row.method.tiny  # type: ignore[union-attr]
    weights.save(tmp_path / "net.safetensors", Network(row, bands, sizes, build(row, bands, 0, sizes), 1000.0))
    out = tmp_path / "out.tif"
    assert main(["fuse", *map(str, files), str(out), "--weights", str(tmp_path / "net.safetensors")]) == 0
    assert "pannet (pansharpening)" in capsys.readouterr().err


def test_a_sensor_that_nobody_knows_is_a_remark(tmp_path: Path, capsys) -> None:
    lr, guide = good(tmp_path)
    with rasterio.open(lr, "r+") as file:
        file.update_tags(SENSOR="MSI")
    assert main(["fuse", str(lr), str(guide), str(tmp_path / "out.tif"), "--system", "cubic"]) == 0
    assert "its metadata say MSI, of which there is no table" in capsys.readouterr().err


def test_a_displaced_image_is_registered(pair: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    """Two rows too low: what is found, what is left out, and that the product is nearly what it would have been."""
    moved, straight, sharp = tmp_path / "moved.tif", tmp_path / "straight.tif", tmp_path / "sharp.tif"
    with rasterio.open(pair[0]) as file:
        profile, values = file.profile, file.read()
    with rasterio.open(moved, "w", **profile) as file:
        file.write(np.roll(values, 2, 1))
    assert main(["fuse", *map(str, pair), str(straight), "-q", "--system", "gsa"]) == 0
    arguments = [str(moved), str(pair[1]), str(sharp), "-q", "--system", "gsa", "--register", "--json"]
    page = tmp_path / "page"
    capsys.readouterr()
    assert main(["fuse", *arguments, "--report", str(page)]) == 0
    said = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(said["registration"]["affine"][0], [-2, 0], atol=0.15)
    assert said["registration"]["explained"][0] > said["registration"]["before"][0]
    assert "LR displaced by -" in (page / "index.html").read_text()
    found, expected = readers.read(sharp), readers.read(straight)
    assert not found.valid[-4:].any()
    inner = np.s_[8:-10, 8:-8]
    assert found.valid[inner].all()
    wanted = expected.image[inner].astype(float)
    error = np.sqrt(np.mean((found.image[inner] - wanted) ** 2))
    assert error < np.sqrt(np.mean((np.roll(expected.image, 4, 0)[inner] - wanted) ** 2)) / 4
    assert main(["evaluate", str(sharp), "--lr", str(moved), "--guide", str(pair[1]), "--register", "--json"]) == 0
    judged = {name: entry["value"] for name, entry in json.loads(capsys.readouterr().out).items()}
    told = next(row.metrics for row in read_results(page / "results.json") if row.system == "gsa")
    assert judged == pytest.approx(told, rel=1e-3)
    assert main(["evaluate", str(sharp), "--reference", str(straight), "--ratio", "2", "--register"]) == 2
    assert "leave out --register" in capsys.readouterr().err


def test_a_page_on_a_scene_with_a_nodata_border(tmp_path: Path) -> None:
    """Neither image is shown where it has no data; the baseline has no rival where it is the system."""
    ms, pan = image(4, 48), image(1, 96)
    ms[:, :20], pan[:, :40] = 0, 0
    lr = write(tmp_path / "ms.tif", ms, nodata=0)
    guide = write(tmp_path / "pan.tif", pan, step=15.0, nodata=0)
    page = tmp_path / "page"
    arguments = [str(lr), str(guide), str(tmp_path / "out.tif"), "-q", "--report", str(page), "--system", "cubic"]
    assert main(["fuse", *arguments]) == 0
    assert [row["system"] for row in json.loads((page / "results.json").read_text())] == ["cubic"]
    text = (page / "index.html").read_text()
    rows = [int(row) for row in re.findall(r"row (\d+), column", text)]
    assert rows
    assert min(rows) >= 42
    assert "Ahead" not in text
    assert "Sensor responses" not in text


def test_samples_that_were_clipped_are_told(tmp_path: Path, capsys) -> None:
    lr = write(tmp_path / "ms.tif", image(3, 16))
    guide, out = write(tmp_path / "pan.tif", image(1, 32), step=15.0), tmp_path / "out.tif"
    arguments = ["fuse", str(lr), str(guide), str(out), "--system", "cubic"]
    assert main([*arguments, "--dtype", "uint8", "--json", "-q"]) == 0
    said = json.loads(capsys.readouterr().out)
    share = 100 * said["clipped"] / (32 * 32 * 3)
    assert said["note"].split("; ")[-1] == f"{said['clipped']} samples ({share:.2g} %) were clipped to uint8"


def test_a_reference_lies_on_the_products_grid(pair: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    out = tmp_path / "sharp.tif"
    assert main(["fuse", *map(str, pair), str(out), "-q", "--system", "cubic"]) == 0
    assert main(["evaluate", str(out), "--reference", str(pair[0]), "--ratio", "2"]) == 2
    said = capsys.readouterr().err
    assert "one of landsat8_tiny_msi is 2 times as wide as one of sharp" in said
    assert "the truth on the product's grid" in said
    product, halves = readers.read(out), [tmp_path / "left.tif", tmp_path / "right.tif"]
    left = np.arange(product.width) < product.width // 2
    for half, side in zip(halves, (left, ~left), strict=True):
        geotiff.write(half, dataclasses.replace(product, mask=np.tile(side, (product.height, 1))))
    assert main(["evaluate", str(halves[0]), "--reference", str(halves[1]), "--ratio", "2"]) == 2
    assert "no valid pixel in common" in capsys.readouterr().err


def test_uncertainty_is_a_band_and_a_map(pair: tuple[Path, Path], tmp_path: Path) -> None:
    out, page = tmp_path / "sharp.tif", tmp_path / "page"
    options = ["--system", "udaln", "--budget", "1", "-q", "--report", str(page), "--uncertainty"]
    assert main(["fuse", *map(str, pair), str(out), *options]) == 0
    with rasterio.open(out) as product, rasterio.open(pair[0]) as ms:
        assert product.count == ms.count + 1
        assert product.descriptions[-1] == "half width of the 90 % interval, mean over bands"
        half = product.read(product.count, masked=True) * product.scales[-1]
        assert 0 < half.min() < half.max()
    assert readers.read(out).bands == 7
    assert "± of the 90 % interval" in (page / "index.html").read_text()
    assert json.loads((page / "results.json").read_text())[0]["parameters"] > 0


def test_existing_output_is_kept(pair: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    out = tmp_path / "sharp.tif"
    out.write_text("precious")
    assert main(["fuse", *map(str, pair), str(out), "-q"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert main(["fuse", *map(str, pair), str(out), "-q", "--overwrite", "--system", "cubic"]) == 0
    assert readers.read(out).bands == 7


def test_windows_equal_the_whole_for_a_local_system(tmp_path: Path) -> None:
    lr = write(tmp_path / "ms.tif", image(3, 72, np.float32))
    guide = write(tmp_path / "pan.tif", image(1, 144, np.float32), step=15.0)
    whole, tiled = tmp_path / "whole.tif", tmp_path / "tiled.tif"
    assert main(["fuse", str(lr), str(guide), str(whole), "-q", "--system", "cubic"]) == 0
    assert main(["fuse", str(lr), str(guide), str(tiled), "-q", "--system", "cubic", "--tile", "64"]) == 0
    expected = readers.read(whole).image
    np.testing.assert_allclose(readers.read(tiled).image, expected, atol=1e-5 * expected.max())


def test_unknown_sensors_are_estimated_in_windows_too(tmp_path: Path, capsys) -> None:
    """The centre is nodata, so that another part of the scene has to stand for it."""
    ms, pan = image(3, 72), image(1, 144)
    ms[:, 20:52, 20:52] = 0
    lr, guide = write(tmp_path / "ms.tif", ms, nodata=0), write(tmp_path / "pan.tif", pan, step=15.0)
    out = tmp_path / "sharp.tif"
    assert main(["fuse", str(lr), str(guide), str(out), "-q", "--system", "gsa", "--tile", "130", "--estimate",
                 "--json"]) == 0  # fmt: skip
    said = json.loads(capsys.readouterr().out)
    assert said["windows"] > 1
    for remark in ("observation model estimated from the pair", "in 4 windows, each by its own statistics"):
        assert remark in said["note"]
    assert readers.read(out).valid.any()


def test_nodata_spreads_no_further_than_it_must(tmp_path: Path) -> None:
    ms = image(2, 16)
    ms[:, 8, 8] = 0
    lr = write(tmp_path / "ms.tif", ms, nodata=0)
    guide = write(tmp_path / "pan.tif", image(1, 32), step=15.0)
    out = tmp_path / "sharp.tif"
    assert main(["fuse", str(lr), str(guide), str(out), "-q", "--system", "cubic"]) == 0
    valid = readers.read(out).valid
    assert not valid[16:18, 16:18].any()
    assert valid.sum() == valid.size - 6 * 6


def _cases(folder: Path) -> dict[str, tuple[list[str], str]]:
    lr, guide = (str(path) for path in good(folder))
    truncated = folder / "truncated.tif"
    truncated.write_bytes(Path(guide).read_bytes()[:1500])
    text = folder / "text.tif"
    text.write_text("no image")
    scipy.io.savemat(folder / "cube.mat", {"cube": np.ones((4, 4, 3)), "truth": np.ones((4, 4, 2))})
    with h5py.File(folder / "words.h5", "w") as file:
        file["words"] = np.array([b"a", b"b"])
    nan = image(1, 32, np.float32)
    nan[0, 3, 3] = np.nan
    blank = write(folder / "blank.tif", np.zeros((4, 16, 16), np.uint16), nodata=0)
    larger = [str(write(folder / "h.tif", image(4, 64))), str(write(folder / "i.tif", image(1, 128), step=15.0))]
    tiny = [str(write(folder / "m.tif", image(4, 2))), str(write(folder / "n.tif", image(1, 4), step=15.0))]
    reflectance = str(write(folder / "k.tif", image(4, 16, np.float32) / 5000))
    large = str(write(folder / "l.tif", image(4, 64) + 300))
    return {
        "missing file": ([str(folder / "nowhere.tif"), guide], "nowhere.tif"),
        "not an image": ([str(text), guide], "text.tif"),
        "truncated": ([lr, str(truncated)], "truncated.tif"),
        "ratio not an integer": ([lr, str(write(folder / "c.tif", image(1, 40), step=13.0))], "integer"),
        "ratio below one": ([guide, lr], "finer"),
        "tiny images": (tiny, "2 x 2 pixels"),
        "no overlap": ([lr, str(write(folder / "d.tif", image(1, 32), step=15.0, x=9e5))], "in common"),
        "other CRS": ([lr, str(write(folder / "e.tif", image(1, 32), step=15.0, crs="EPSG:4326"))], "EPSG:4326"),
        "band count": ([lr, guide, "--lr-sensor", "landsat8_oli"], "landsat8_oli"),
        "unknown sensor": ([lr, guide, "--lr-sensor", "landsat88"], "landsat88"),
        "unknown system": ([lr, guide, "--system", "gsaa"], "gsa"),
        "all nodata": ([str(blank), guide], "nodata"),
        "NaN": ([lr, str(write(folder / "f.tif", nan, step=15.0))], "NaN"),
        "complex": ([str(write(folder / "g.tif", image(4, 16).astype(np.complex64))), guide], "complex"),
        "strings": ([str(folder / "words.h5"), guide], "words.h5"),
        "MATLAB key": ([str(folder / "cube.mat"), guide, "--lr-key", "cub"], "truth"),
        "weights for a classical system": ([lr, guide, "--system", "gsa", "--weights", lr], "weights"),
        "no weights": ([lr, guide, "--system", "fusionnet", "--weights", lr], "weights"),
        "tile": ([lr, guide, "--tile", "1"], "tile"),
        "windows of a registered pair": ([*larger, "--register", "--tile", "80", "--system", "cubic"], "as a whole"),
        "interval of a classical system": ([lr, guide, "--uncertainty"], "mtf_glp_cbd is of the family classical"),
        "level of an interval": ([lr, guide, "--system", "udaln", "--uncertainty", "99.9"], "needs 999 pixels"),
        "share for a level": ([lr, guide, "--system", "udaln", "--uncertainty", "0.9"], "say 90"),
        "exact product of a classical system": ([lr, guide, "--exact"], "unrolled networks"),
        "nothing to keep": ([lr, guide, "--keep", str(folder / "kept")], "--keep"),
        "nothing to spend a budget on": ([lr, guide, "--budget", "5"], "--budget"),
        "nothing to learn": ([lr, guide, "--system", "fusionnet", "--weights", lr, "--budget", "5"], "--budget"),
        "no weights to save": ([lr, guide, "--system", "gsa", "--save-weights", str(folder / "w")], "--save-weights"),
        "report in a file": ([lr, guide, "--report", lr], "must be a folder"),
        "report in the output": ([lr, guide, "--report", str(folder / "out.tif")], "would replace"),
        "nodata that no image holds": ([lr, guide, "--nodata", "-9.9e3"], "no image has a pixel of value -9900"),
        "data type of no image": ([str(blank), guide, "--dtype", "complex64"], "cannot hold complex64"),
        "unknown data type": ([lr, guide, "--dtype", "uint61"], "no data type 'uint61'"),
        "reflectance as integers": ([reflectance, guide, "--dtype", "uint16"], "are lost when they are rounded"),
        "narrow data type": ([large, larger[1], "--tile", "80", "--dtype", "uint8"], "100.0 % of the samples"),
    }  # fmt: skip


CASES = """missing file, not an image, truncated, ratio not an integer, ratio below one, no overlap, other CRS,
tiny images, band count, unknown sensor, unknown system, all nodata, NaN, complex, strings, MATLAB key,
weights for a classical system, no weights, tile, windows of a registered pair, interval of a classical system,
level of an interval, share for a level, exact product of a classical system, nothing to keep,
nothing to spend a budget on, nothing to learn, no weights to save, report in a file,
report in the output, nodata that no image holds, data type of no image, unknown data type, reflectance as integers,
narrow data type""".replace("\n", " ").split(", ")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_bad_input_is_one_sentence(case: str, tmp_path: Path, capsys) -> None:
    cases = _cases(tmp_path)
    assert set(cases) == set(CASES)
    arguments, said = cases[case]
    before = {path.name for path in tmp_path.iterdir()}
    code = main(["fuse", *arguments[:2], str(tmp_path / "out.tif"), *arguments[2:], "-q"])
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert captured.err.startswith("jfusion: error: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err
    assert captured.out == ""
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("target", ["missing/out.tif", "."])
def test_unwritable_output(target: str, tmp_path: Path, capsys) -> None:
    lr, guide = good(tmp_path)
    assert main(["fuse", str(lr), str(guide), str(tmp_path / target), "-q"]) == 2
    assert capsys.readouterr().err.startswith("jfusion: error: ")


def test_no_space_left(tmp_path: Path, capsys, monkeypatch) -> None:
    lr, guide = good(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 100))  # type: ignore[attr-defined]
    assert main(["fuse", str(lr), str(guide), str(tmp_path / "out.tif"), "-q"]) == 2
    assert "space" in capsys.readouterr().err
    assert not (tmp_path / "out.tif").exists()


def test_unexpected_errors_show_where_they_arose(capsys) -> None:
    """At once, or as -v says where a program has that."""

    def fail() -> None:
        raise ValueError("so many pixels")

    for verbose, traced, hint in ((None, True, False), (False, False, True), (True, True, False)):
        assert answered(fail, verbose) == 1
        said = capsys.readouterr().err
        assert "unexpected ValueError: so many pixels" in said
        assert ("Traceback" in said, "-v shows where" in said) == (traced, hint)

    def refuse() -> None:
        raise InputError("say more.")

    assert answered(refuse) == 2
    assert capsys.readouterr().err == "jfusion: error: say more.\n"


def test_verbose_shows_the_cause(tmp_path: Path, capsys) -> None:
    text = tmp_path / "text.tif"
    text.write_text("no image")
    assert main(["fuse", str(text), str(text), str(tmp_path / "out.tif"), "-v"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    ["fuse one.tif", "fuse a b c --memory -5", "fuse a b c --tile 0", "fuse a b c --seed -1", "fuse a b c --budget 0",
     "simulate jasper_ridge pair --ratio 0", "evaluate a --ratio x"],
)  # fmt: skip
def test_usage_errors_are_exit_code_2(arguments: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments.split())
    assert stop.value.code == 2


def test_a_file_is_no_folder(tmp_path: Path, capsys) -> None:
    file = tmp_path / "file"
    file.touch()
    for command in (["demo", "--out", str(file)], ["simulate", "aviris_california", str(file / "pair")]):
        assert main(command) == 2
        assert "must be a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "said"),
    [({"ratio": "4"}, "ratio of a protocol must be of the type int, but is '4'"), ({"ratio": 0}, "at least 1"),
     ({"ratio": 2, "guide_bands": "B2"}, "guide_bands"), ({"ratio": 2, "crop": [0, 8, 0]}, "crop"),
     ({"ratio": 2, "lr_snr_db": True}, "lr_snr_db"), ({"ratio": 2, "width": 1e999}, "must be positive")],
)  # fmt: skip
def test_a_protocol_of_wrong_values_is_refused(values: dict, said: str, tmp_path: Path, capsys) -> None:
    protocol = tmp_path / "protocol.json"
    protocol.write_text(json.dumps(values))
    assert main(["simulate", "aviris_california", str(tmp_path / "pair"), "--protocol", str(protocol)]) == 2
    assert said in capsys.readouterr().err


def test_simulate_then_fuse_then_evaluate(tmp_path: Path, capsys) -> None:
    """A protocol read back makes the same files; fusion and evaluation take them."""
    first, second = tmp_path / "one", tmp_path / "two"
    assert main(["simulate", "aviris_california", str(first), "--ratio", "2", "--lr-snr", "30", "-q",
                 "--guide-bands", "B2", "B3", "B4"]) == 0  # fmt: skip
    assert main(["simulate", "aviris_california", str(second), "--protocol", str(first / "protocol.json"), "-q"]) == 0
    for name in ("lr", "guide", "reference"):
        np.testing.assert_array_equal(
            readers.read(first / f"{name}.tif").image, readers.read(second / f"{name}.tif").image
        )
    assert main(["simulate", "aviris_california", str(tmp_path / "three"), "--protocol", str(first / "protocol.json"),
                 "--lr-snr", "20"]) == 2  # fmt: skip
    assert "leave out --lr-snr" in capsys.readouterr().err
    coarse = readers.read(first / "lr.tif")
    assert coarse.wavelengths is not None
    assert coarse.sensor is None  # the scene's own would bring a PSF that lr was not made by
    sharp = tmp_path / "sharp.tif"
    files = [str(first / "lr.tif"), str(first / "guide.tif")]
    assert main(["fuse", *files, str(sharp), "-q", "--system", "gsa"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(sharp), "--reference", str(first / "reference.tif"), "--ratio", "2", "--json"]) == 0
    with_truth = json.loads(capsys.readouterr().out)
    assert with_truth["PSNR"]["value"] > 25
    assert with_truth["ERGAS"]["convention"]
    assert main(["evaluate", str(sharp), "--lr", files[0], "--guide", files[1], "--json"]) == 0
    assert 0 < json.loads(capsys.readouterr().out)["QNR"]["value"] <= 1


def test_the_examples_of_the_help_run(pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the demonstration, which takes minutes, and the import of a file that is not here."""
    monkeypatch.chdir(tmp_path)
    commands = parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr,index]
    for name in ("list", "show", "sensors", "simulate", "fuse", "evaluate"):
        if name == "evaluate":
            shutil.copy("sharp.tif", "truth.tif")
        example = commands[name].epilog.removeprefix("example: jfusion ")
        assert main(example.split()) == 0, example
    guide = readers.read(tmp_path / "pair" / "guide.tif")
    assert guide.band_names == ("B1", "B2", "B3", "B4", "B5", "B6", "B7")


def test_a_perfect_product_is_json(pair: tuple[Path, Path], capsys) -> None:
    assert main(["evaluate", str(pair[0]), "--reference", str(pair[0]), "--ratio", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["PSNR"]["value"] is None
    assert said["RMSE"]["value"] == 0


def test_a_simulation_has_no_pixel_that_nobody_saw(tmp_path: Path, capsys) -> None:
    """A nodata pixel is refused where it would be blurred into others, and no matter where it is cropped away."""
    scene = next(iter(scenes.load("aviris_california").values()))
    numbers = scene.image.copy()
    numbers[:, -1] = -9999
    image = tmp_path / "image.tif"
    geotiff.write(image, dataclasses.replace(scene, image=numbers, nodata=-9999, mask=numbers[..., 0] != -9999))
    options = ["--ratio", "2", "--guide-bands", "B2", "B3"]
    assert main(["simulate", str(image), str(tmp_path / "no"), *options]) == 2
    assert f"has {scene.height} invalid pixels" in capsys.readouterr().err
    protocol = tmp_path / "protocol.json"
    crop = [0, scene.height, 0, scene.width - 2]
    protocol.write_text(json.dumps({"ratio": 2, "guide_bands": ["B2", "B3"], "crop": crop}))
    assert main(["simulate", str(image), str(tmp_path / "yes"), "--protocol", str(protocol)]) == 0


def test_lists(capsys) -> None:
    assert main(["list", "--json"]) == 0
    assert "gsa" in {row["name"] for row in json.loads(capsys.readouterr().out)}
    assert main(["show", "fusionnet"]) == 0
    assert "78,632" in capsys.readouterr().out
    assert main(["sensors", "landsat8_oli", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bands"][0]["name"] == "B1"
    assert main(["list", "--task", "pansharpning"]) == 2
    assert main(["list", "--family", "priors"]) == 2
    assert "the families are classical, cnn" in capsys.readouterr().err


def test_images_of_different_ground_are_remarked_on(pair: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    lr = write(tmp_path / "noise.tif", image(4, 32))
    guide = write(tmp_path / "other.tif", image(1, 64), step=15.0)
    for files, displaced in (((lr, guide), True), (pair, False)):
        assert main(["fuse", *map(str, files), str(tmp_path / "out.tif"), "--system", "cubic", "--overwrite"]) == 0
        assert ("say --register" in capsys.readouterr().err) is displaced
    (tmp_path / "out.tif").unlink()
    assert main(["fuse", str(lr), str(guide), str(tmp_path / "out.tif"), "--system", "cubic", "--register"]) == 1
    assert "could not be registered" in capsys.readouterr().err
    assert not (tmp_path / "out.tif").exists()


def test_a_typical_psf_is_told_where_one_is_taken(tmp_path: Path, capsys) -> None:
    files = [str(path) for path in good(tmp_path)]
    for system, told in (("mtf_glp", True), ("cubic", False), ("gsa", True)):
        assert main(["fuse", *files, str(tmp_path / "out.tif"), "--system", system, "--overwrite"]) == 0
        assert ("the PSF of LR, which is not known" in capsys.readouterr().err) is told


def test_what_a_stack_is_made_of_is_not_replaced(pair: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    with rasterio.open(pair[0]) as ms:
        band, profile = ms.read([1]), {"crs": ms.crs, "transform": ms.transform}
        place = ", ".join(map(str, ms.transform.to_gdal()))
    source = tmp_path / "B1.tif"
    with rasterio.open(source, "w", driver="GTiff", count=1, height=band.shape[1], width=band.shape[2],
                       dtype=band.dtype, **profile) as file:  # fmt: skip
        file.write(band)
    stack = tmp_path / "ms.vrt"
    stack.write_text(
        f'<VRTDataset rasterXSize="{band.shape[2]}" rasterYSize="{band.shape[1]}"><SRS>{profile["crs"]}</SRS>'
        f'<GeoTransform>{place}</GeoTransform><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f"<SourceFilename>{source}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    before = source.read_bytes()
    assert main(["fuse", str(stack), str(pair[1]), str(source), "--overwrite"]) == 2
    assert f"would replace {source}" in capsys.readouterr().err
    assert source.read_bytes() == before


def test_a_page_of_others_is_not_replaced(pair: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    (tmp_path / "index.html").write_text("my site")
    assert main(["fuse", *map(str, pair), str(tmp_path / "out.tif"), "--report", str(tmp_path)]) == 2
    assert "no page of jfusion's" in capsys.readouterr().err
    assert (tmp_path / "index.html").read_text() == "my site"
    assert not (tmp_path / "out.tif").exists()


def test_a_misspelt_option_is_told_its_like(capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["fuse", "ms.tif", "pan.tif", "out.tif", "--sytem", "gsa"])
    said = capsys.readouterr().err
    assert "usage: jfusion fuse" in said
    assert "did you mean --system?" in said


def test_a_pair_is_judged_with_the_nodata_that_it_was_fused_with(tmp_path: Path, capsys) -> None:
    lr, guide = image(4, 16, np.float32), image(1, 32, np.float32)
    lr[:, :3, :3], guide[:, 20:22, 20:22] = np.nan, -9999
    files = [str(write(tmp_path / "a.tif", lr)), str(write(tmp_path / "b.tif", guide, step=15.0, nodata=-9999))]
    out = str(tmp_path / "out.tif")
    assert main(["fuse", *files, out, "--system", "gsa", "--nodata", "nan"]) == 0
    with rasterio.open(out) as product:
        assert np.isnan(product.nodata)
        assert np.isnan(product.read()[:, 20:22, 20:22]).all()
        assert np.isnan(product.read()[:, :6, :6]).all()
        assert product.tags()["LR"] == "a.tif"
    capsys.readouterr()
    assert main(["evaluate", out, "--lr", files[0], "--guide", files[1], "--nodata", "nan"]) == 0
    shown, said = capsys.readouterr()
    assert " nan " in shown
    assert "D_lambda_K" in said
    assert "without a value: no whole block is free of pixels without data" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_leaves_nothing(number: int, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """A signal in the middle: exit code 128 + its number and no file under the output's name, nor beside it."""
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("ignored, as under nohup, and so by every process that is started here")
    out = tmp_path / "sharp.tif"
    process = subprocess.Popen(
        [*COMMAND, "fuse", *map(str, pair), str(out), "-q", "--system", "fusionnet"],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".sharp.tif.*")) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(number)
    try:
        assert process.wait(60) == 128 + number
    finally:
        process.kill()
        process.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ms.tif", "pan.tif"]


COLLECTED = """
import gc, signal, sys, time
from jfusion.process import answered

def work():
    gc.callbacks.append(lambda phase, info: signal.raise_signal(signal.SIGTERM))
    gc.collect()
    gc.callbacks.clear()
    time.sleep(300)

sys.exit(answered(work))
"""


def test_termination_while_garbage_is_collected() -> None:
    """Python drops what is raised there: the process ends all the same, and says nothing."""
    done = subprocess.run([sys.executable, "-c", COLLECTED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (143, "")


KEEPS = """
import jax, jax.numpy as jnp
from jfusion.process import keep_programs
keep_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3))).sum())
"""


def kept(home: Path, **environment: str) -> None:
    """A process that compiles a program, with its user's cache in ``home``, and says nothing else."""
    usual = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment = {**usual, "XDG_CACHE_HOME": str(home), **environment}
    done = subprocess.run([sys.executable, "-c", KEEPS], env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) > 0
    assert not done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the user's cache is not in XDG_CACHE_HOME")
def test_programs_are_kept(tmp_path: Path) -> None:
    """A second process finds what the first compiled; a damaged cache, or none, is no trouble; "" asks for none."""
    kept(tmp_path)
    programs = sorted((tmp_path / "jfusion" / "programs").glob("*-cache"))
    assert programs
    written = [path.stat().st_mtime_ns for path in programs]
    kept(tmp_path)
    assert sorted((tmp_path / "jfusion" / "programs").glob("*-cache")) == programs
    assert [path.stat().st_mtime_ns for path in programs] == written
    for path in programs:
        path.write_bytes(path.read_bytes()[:20])
    kept(tmp_path)
    (file := tmp_path / "file").touch()
    kept(file)
    kept(tmp_path / "none", JAX_COMPILATION_CACHE_DIR="")
    assert not (tmp_path / "none").exists()
