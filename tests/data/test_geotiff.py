import errno
import os
import resource

import numpy as np
import pytest
import rasterio
from affine import Affine

import jfusion
from jfusion.data import geotiff, readers
from jfusion.data.scene import Scene
from jfusion.errors import InputError, RunError

TURNED = Affine.translation(500000, 4000000) @ Affine.rotation(20) @ Affine.scale(30, -30)


def scene(height=6, width=5, dtype="uint16", **changes):
    image = (np.arange(height * width * 2).reshape(height, width, 2) % 120 + 1).astype(dtype)
    known = {
        "name": "place",
        "sensor": "landsat8_oli",
        "wavelengths": np.array([482.06, 654.63]),
        "fwhm": np.array([60.04, 37.47]),
        "band_names": ("B2", "B4"),
        "transform": Affine(30, 0, 543975, 0, -30, 1378995),
        "crs": "EPSG:32616",
        "colours": ("blue", "nir"),
        "time": "2024:05:31 10:15:00",
        "nodata": 0.0,
        "scale": 2e-5,
        "offset": -0.1,
        "licence": "CC0",
        "citation": 'Müller, "A & B" <2020>',
        "note": "two\nlines",
    }
    return Scene(image, **(known | changes))


def assert_same(left, right):
    np.testing.assert_array_equal(left.image, right.image)
    np.testing.assert_array_equal(left.valid, right.valid)
    for name in ("wavelengths", "fwhm", "scale", "offset"):
        ours, theirs = getattr(left, name), getattr(right, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    for name in ("sensor", "band_names", "colours", "crs", "nodata", "time", "licence", "citation", "note"):
        assert getattr(left, name) == getattr(right, name)
    assert left.image.dtype == right.image.dtype
    assert left.transform == right.transform or left.transform.almost_equals(right.transform)


@pytest.mark.parametrize("cog", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"transform": TURNED},
        {"transform": None, "crs": None},
        {"wavelengths": None, "fwhm": None, "band_names": None, "sensor": None},
        {"scale": np.array([1e-4, 2e-4]), "offset": np.array([0.0, 0.5])},
        {"dtype": "uint8"},
        {"dtype": "int8", "nodata": -128.0},
        {"dtype": "int16", "nodata": -9999.0},
        {"dtype": "int32", "nodata": -(2.0**31)},
        {"dtype": "float32", "nodata": -9999.0},
        {"dtype": "float64", "nodata": -1e300},
    ],
)
def test_round_trip(changes, cog, tmp_path):
    before = scene(**changes)
    geotiff.write(tmp_path / "place.tif", before, cog=cog)
    assert_same(before, readers.read(tmp_path / "place.tif"))
    assert [path.name for path in tmp_path.iterdir()] == ["place.tif"]


@pytest.mark.parametrize("cog", [True, False])
@pytest.mark.parametrize("bands", [3, 4, 5])
def test_no_band_of_bytes_becomes_alpha(bands, cog, tmp_path):
    image = np.arange(6 * 5 * bands, dtype=np.uint8).reshape(6, 5, bands)
    geotiff.write(tmp_path / "place.tif", Scene(image), cog=cog)
    np.testing.assert_array_equal(readers.read(tmp_path / "place.tif").image, image)


@pytest.mark.parametrize("nodata", [0.0, None])
def test_mask_survives_with_and_without_nodata(nodata, tmp_path):
    mask = np.ones((6, 5), bool)
    mask[1:3, 2] = False
    geotiff.write(tmp_path / "place.tif", scene(mask=mask, nodata=nodata))
    after = readers.read(tmp_path / "place.tif")
    np.testing.assert_array_equal(after.mask, mask)
    np.testing.assert_array_equal(after.image[mask], scene().image[mask])


def test_nan_nodata(tmp_path):
    before = scene(dtype="float32", nodata=np.nan)
    before.image[2, 2] = np.nan
    mask = np.isfinite(before.image[..., 0])
    geotiff.write(tmp_path / "place.tif", Scene(before.image, nodata=np.nan, mask=mask))
    np.testing.assert_array_equal(readers.read(tmp_path / "place.tif").mask, mask)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64"])
def test_values_are_rounded_and_clipped_to_the_type(dtype, tmp_path):
    limits = np.iinfo(dtype)
    values = np.array([1.4, 1.6, limits.max * 1.0, limits.max * 2.0 + 2, limits.min * 2.0 - 2, 3e38])
    before = Scene(values.reshape(1, 6, 1))
    clipped = geotiff.write(tmp_path / "place.tif", before, dtype=dtype)
    expected = [1, 2, limits.max, limits.max, limits.min, limits.max]
    assert readers.read(tmp_path / "place.tif").image.ravel().tolist() == expected
    assert clipped == (4 if float(limits.max) > limits.max else 3)


def test_integers_are_clipped_to_a_narrower_type(tmp_path):
    before = Scene(np.array([-1, 0, 255, 256], np.int32).reshape(2, 2, 1))
    assert geotiff.write(tmp_path / "place.tif", before, dtype="uint8") == 2
    assert readers.read(tmp_path / "place.tif").image.ravel().tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize(("dtype", "nodata", "stored"), [("uint8", 0, 1), ("uint8", 255, 254), ("int16", -5, -4)])
def test_valid_samples_that_look_like_nodata_move_by_one(dtype, nodata, stored, tmp_path):
    image = np.full((2, 2, 1), nodata, dtype)
    mask = np.array([[True, True], [True, False]])
    geotiff.write(tmp_path / "place.tif", Scene(image, nodata=float(nodata), mask=mask))
    after = readers.read(tmp_path / "place.tif")
    np.testing.assert_array_equal(after.mask, mask)
    assert set(after.image[mask].ravel().tolist()) == {stored}


def test_a_file_says_what_made_it(tmp_path):
    path = tmp_path / "place.TIFF"
    with geotiff.open_writer(path, scene()) as writer:
        writer.tag(SYSTEM="gsa")
        writer.write(0, 0, scene().image)
    with rasterio.open(path) as dataset:
        assert dataset.tags()["TIFFTAG_SOFTWARE"] == f"jfusion {jfusion.__version__}"
        assert dataset.tags()["SYSTEM"] == "gsa"


def test_a_link_stays(tmp_path):
    target, link = tmp_path / "target.tif", tmp_path / "link.tif"
    target.write_text("of before")
    link.symlink_to(target)
    geotiff.write(link, scene(), overwrite=True)
    assert link.is_symlink()
    assert readers.read(target).bands == scene().bands


def test_a_new_file_outdates_what_lies_beside(tmp_path):
    path = tmp_path / "place.tif"
    for suffix in ("", ".aux.xml", ".ovr", ".msk"):
        path.with_name(path.name + suffix).write_text("of before")
    geotiff.write(path, scene(), overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["place.tif"]


def test_a_name_of_another_format_is_refused(tmp_path):
    for name in ("place.png", "place"):
        with pytest.raises(InputError, match=r"end in \.tif or \.tiff"):
            geotiff.write(tmp_path / name, scene())


def test_a_file_of_clipped_samples_is_not_written(tmp_path):
    image = np.full((20, 10, 1), 300, np.uint16)
    image[0, 0], image[1:3] = 5, 0
    mask = image[..., 0] > 0
    with pytest.raises(InputError, match=r"99\.4 % of the samples do not fit into uint8"):
        geotiff.write(tmp_path / "place.tif", Scene(image, nodata=0, mask=mask), dtype="uint8")
    assert list(tmp_path.iterdir()) == []


def test_cog_layout(tmp_path):
    path = tmp_path / "place.tif"
    geotiff.write(path, scene(1100, 700))
    with rasterio.open(path) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.profile["tiled"]
        assert dataset.overviews(1) == [2, 4]
        assert dataset.compression.name == "deflate"
        average = dataset.read(1, out_shape=(550, 350))
    whole = scene(1100, 700).image[..., 0].astype(float)
    blocks = whole.reshape(550, 2, 350, 2).mean(axis=(1, 3))
    assert np.abs(average - blocks).max() <= 0.5


@pytest.mark.parametrize("cog", [True, False])
def test_window_by_window_is_the_whole(cog, tmp_path):
    before = scene(90, 70)
    outline = scene(90, 70, dtype="uint16")
    with geotiff.open_writer(tmp_path / "place.tif", outline, cog=cog) as writer:
        for row in range(0, 90, 40):
            for col in range(0, 70, 30):
                window = np.s_[row : row + 40, col : col + 30]
                writer.write(row, col, before.image[window].astype(np.float32) + 0.2)
        assert not (tmp_path / "place.tif").exists()
    assert_same(before, readers.read(tmp_path / "place.tif"))


@pytest.mark.parametrize(
    ("row", "col", "block", "message"),
    [
        (0, 0, np.zeros((2, 2, 3)), "Expected"),
        (5, 0, np.ones((2, 2, 2)), "leaves the raster"),
        (0, -1, np.ones((2, 2, 2)), "leaves the raster"),
        (0, 0, np.full((2, 2, 2), np.nan), "finite"),
    ],
)
def test_bad_windows_leave_nothing(row, col, block, message, tmp_path):
    with (
        pytest.raises(InputError, match=message),
        geotiff.open_writer(tmp_path / "place.tif", scene()) as writer,
    ):
        writer.write(row, col, block)
    assert list(tmp_path.iterdir()) == []


def test_existing_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "place.tif"
    geotiff.write(path, scene())
    old = path.read_bytes()
    with pytest.raises(InputError, match="--overwrite"):
        geotiff.write(path, scene())
    with (
        pytest.raises(InputError, match="leaves the raster"),
        geotiff.open_writer(path, scene(), overwrite=True) as writer,
    ):
        writer.write(99, 0, scene().image)
    assert path.read_bytes() == old
    assert [item.name for item in tmp_path.iterdir()] == ["place.tif"]
    geotiff.write(path, scene(dtype="float32"), overwrite=True)
    assert readers.read(path).image.dtype == np.float32


@pytest.mark.parametrize("text", ["-3.40282346638529e+38", "-3.40282347e+38", "-3.4028235e38"])
def test_the_lowest_number_in_rounded_decimals_is_held(text):
    assert geotiff.holds(np.dtype("float32"), float(text))
    assert not geotiff.holds(np.dtype("float32"), 1.01 * float(text))


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"nodata": -9999.0}, {}, "by -9999, which uint16 cannot hold; choose a data type"),
        ({"nodata": np.nan}, {}, "by nan, which uint16 cannot hold"),
        ({"nodata": -1e300, "dtype": "float32"}, {}, "by -1e\\+300, which float32 cannot hold"),
        ({}, {"dtype": "complex64"}, "cannot hold"),
        ({"mask": np.zeros((6, 5), bool), "nodata": None, "dtype": "float32"}, {"dtype": "float16"}, "cannot hold"),
    ],
)
def test_unsuitable_types_are_refused(changes, arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        geotiff.write(tmp_path / "place.tif", scene(**changes), **arguments)
    assert list(tmp_path.iterdir()) == []


def test_targets_that_cannot_be_written(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is a folder"):
        geotiff.write(tmp_path, scene())
    with pytest.raises(InputError, match="does not exist"):
        geotiff.write(tmp_path / "missing" / "place.tif", scene())

    def refuse(**_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        geotiff.write(tmp_path / "place.tif", scene())


@pytest.mark.parametrize("cog", [True, False])
def test_no_space_left(cog, tmp_path):
    noise = np.random.default_rng(0).integers(1, 2**16, (300, 300, 2)).astype(np.uint16)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(RunError, match="space left"):
            geotiff.write(tmp_path / "place.tif", Scene(noise), cog=cog)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_what_fails_elsewhere_is_not_blamed_on_the_disk(tmp_path):
    with pytest.raises(ConnectionResetError, match="elsewhere"), geotiff.open_writer(tmp_path / "place.tif", scene()):
        raise ConnectionResetError("elsewhere")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_failing_last_steps_leave_the_old_file(step, tmp_path, monkeypatch):
    path = tmp_path / "place.tif"
    geotiff.write(path, scene())
    old = path.read_bytes()

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(RunError, match="could not be written"):
        geotiff.write(path, scene(dtype="float32"), overwrite=True)
    assert path.read_bytes() == old
    assert len(list(tmp_path.iterdir())) == 1
