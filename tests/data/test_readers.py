import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import scipy.io
import tiny_files as files
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from tiny_files import IMAGE, TRANSFORM

from jfusion.data import geotiff, readers
from jfusion.data.readers.geotiff import open_windowed
from jfusion.data.scene import Scene
from jfusion.errors import InputError


@pytest.mark.parametrize("make", [files.tiff, files.vrt, files.envi, files.mat5, files.mat73, files.hdf5])
def test_every_format_gives_the_same_image(make, tmp_path):
    scene = readers.read(make(tmp_path))
    np.testing.assert_array_equal(scene.image, IMAGE)
    assert scene.image.dtype == np.int16
    assert scene.image.flags.c_contiguous


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
def test_envi_layouts(interleave, order, tmp_path):
    header = files.envi(tmp_path, interleave=interleave, order=order, offset=7)
    np.testing.assert_array_equal(readers.read(header).image, IMAGE)
    np.testing.assert_array_equal(readers.read(header.with_suffix(".dat")).image, IMAGE)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8", "u2", "u4", "i8", "u8"])
def test_envi_types(dtype, tmp_path):
    scene = readers.read(files.envi(tmp_path, IMAGE.astype(dtype), order=">"))
    np.testing.assert_array_equal(scene.image, IMAGE)
    assert scene.image.dtype == dtype


def test_envi_metadata(tmp_path):
    extra = """band names = {
 a, b,
 c }
wavelength = {0.45, 0.55, 0.65}
wavelength units = Micrometers
fwhm = {0.01, 0.02, 0.03}
data ignore value = 1
reflectance scale factor = 100
sensor type = AVIRIS
; a comment = to be skipped
map info = {UTM, 2, 3, 500000, 4000000, 10, 20, 32, South, WGS-84, units=Meters}"""
    scene = readers.read(files.envi(tmp_path, extra=extra))
    assert scene.band_names == ("a", "b", "c")
    np.testing.assert_allclose(scene.wavelengths, [450, 550, 650])
    np.testing.assert_allclose(scene.fwhm, [10, 20, 30])
    assert (scene.scale, scene.sensor, scene.crs) == (0.01, "aviris", "EPSG:32732")
    assert scene.transform @ (1, 2) == (500000, 4000000)
    assert not scene.mask[0, 0]
    assert scene.mask.sum() == 19


@pytest.mark.parametrize("angle", [0, 30, -71])
def test_envi_rotation_is_gdals(angle, tmp_path):
    info = f"map info = {{UTM, 1, 1, 500000, 4000000, 10, 10, 32, North, WGS-84, rotation={angle}}}"
    header = files.envi(tmp_path, extra=info)
    with rasterio.open(header.with_suffix(".dat")) as oracle:
        np.testing.assert_allclose(readers.read(header).transform, oracle.transform, atol=1e-6)


@pytest.mark.parametrize(
    ("unit", "numbers", "expected"),
    [
        ("nanometers", "450, 550, 650", 450),
        ("Unknown", "0.45, 0.55, 0.65", 450),
        ("Unknown", "450, 550, 650", 450),
        ("Wavenumber", "450, 550, 650", None),
    ],
)
def test_envi_wavelength_units(unit, numbers, expected, tmp_path):
    extra = f"wavelength units = {unit}\nwavelength = {{{numbers}}}"
    wavelengths = readers.read(files.envi(tmp_path, extra=extra)).wavelengths
    assert (wavelengths is None) if expected is None else wavelengths[0] == pytest.approx(expected)


def test_keys_of_matlab_and_hdf5(tmp_path):
    path = files.mat5(tmp_path, one=IMAGE, two=IMAGE * 2, flat=IMAGE[..., 0])
    np.testing.assert_array_equal(readers.read(path, "two").image, IMAGE * 2)
    np.testing.assert_array_equal(readers.read(path, "flat").image, IMAGE[..., :1])
    with pytest.raises(InputError, match=r"2 three-dimensional arrays.*one \(5 x 4 x 3\), two \(5 x 4 x 3\)"):
        readers.read(path)
    with pytest.raises(InputError, match=r"no array 'three'; it has one \(5 x 4 x 3\)"):
        readers.read(path, "three")
    with pytest.raises(InputError, match=r"group/cube \(5 x 4 x 3\), labels \(5 x 4\), names \(2\)"):
        readers.read(files.hdf5(tmp_path), "cube")
    with pytest.raises(InputError, match="names in"):
        readers.read(files.hdf5(tmp_path), "names")
    with pytest.raises(InputError, match=r"note in .* holds no real numbers; choose another of cube \(5 x 4 x 3\)"):
        readers.read(files.mat73(tmp_path), "note")
    with pytest.raises(InputError, match=r"shape 1 x 3|two or three dimensions"):
        readers.read(files.mat5(tmp_path, four=np.zeros((2, 2, 2, 2))), "four")


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
def test_matlab_types(dtype, compressed, tmp_path):
    path = tmp_path / "image.mat"
    image = IMAGE.astype(dtype)
    arrays = {"a": 1.0, "cube": image, "f_order": np.asfortranarray(image), "long_name_of_an_array": image}
    scipy.io.savemat(path, arrays, do_compression=compressed)
    for key in ("cube", "f_order", "long_name_of_an_array"):
        scene = readers.read(path, key)
        np.testing.assert_array_equal(scene.image, image)
        assert scene.image.dtype == dtype
    np.testing.assert_array_equal(readers.read(path, "a").image, [[[1]]])


def test_matlab_big_endian(tmp_path):
    """One 2 x 1 x 2 int16 matrix as a big-endian machine stores it, its name inside the tag."""
    parts = struct.pack(">4I", 6, 8, 10, 0) + struct.pack(">2I4i", 5, 12, 2, 1, 2, 0)
    parts += struct.pack(">I", (1 << 16) | 1) + b"x\0\0\0" + struct.pack(">2I4h", 3, 8, 1, 2, 3, -4)
    matrix = struct.pack(">2I", 14, len(parts)) + parts
    path = _write(tmp_path / "image.mat", b"MATLAB 5.0 MAT-file".ljust(124) + b"\1\0MI" + matrix)
    assert readers.read(path).image.tolist() == scipy.io.loadmat(path)["x"].tolist() == [[[1, 3]], [[2, -4]]]


def test_hdf5_conventions(tmp_path):
    scene = readers.read(files.hdf5(tmp_path))
    assert (scene.scale, scene.offset, scene.nodata) == (0.5, 1.0, 1.0)
    assert np.argwhere(~scene.mask).tolist() == [[0, 0]]


def test_neon_layout(tmp_path):
    path = tmp_path / "neon.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("SITE/Reflectance")
        item = group.create_dataset("Reflectance_Data", data=IMAGE.astype(np.int32))
        item.attrs["Scale_Factor"], item.attrs["Data_Ignore_Value"] = [10000.0], [-9999.0]
        group["Metadata/Spectral_Data/Wavelength"] = [450.0, 550.0, 650.0]
        group["Metadata/Coordinate_System/Map_Info"] = [b"UTM, 1.0, 1.0, 500000, 4000000, 10, 10, 32, North, WGS-84"]
        group["Metadata/Coordinate_System/EPSG Code"] = [b"32632"]
        file["other"] = np.zeros((2, 2, 2))
    scene = readers.read(path)
    assert scene.scale == pytest.approx(1e-4)
    assert (scene.nodata, scene.crs, scene.transform) == (-9999, "EPSG:32632", TRANSFORM)
    np.testing.assert_allclose(scene.wavelengths, [450, 550, 650])


def test_geotiff_masks_of_every_kind(tmp_path):
    image = np.ones((4, 4, 2), np.uint8)
    image[0, 0, 1] = 0
    expected = np.ones((4, 4), bool)
    expected[0, 0] = False
    by_nodata, by_mask, by_alpha = (tmp_path / f"{kind}.tif" for kind in ("nodata", "mask", "alpha"))
    geotiff.write(by_nodata, Scene(np.ones((4, 4, 2), np.uint8), nodata=0, mask=expected))
    geotiff.write(by_mask, Scene(image, mask=expected))
    profile = {"driver": "GTiff", "width": 4, "height": 4, "count": 3, "dtype": "uint8", "transform": TRANSFORM}
    with rasterio.open(by_alpha, "w", photometric="rgb", **(profile | {"count": 4})) as dataset:
        dataset.write(np.full((3, 4, 4), 9, np.uint8), [1, 2, 3])
        dataset.write(np.where(expected, 255, 0).astype(np.uint8), 4)
        dataset.colorinterp = [*dataset.colorinterp[:3], rasterio.enums.ColorInterp.alpha]
    for path in (by_nodata, by_mask, by_alpha):
        np.testing.assert_array_equal(readers.read(path).mask, expected)
    assert readers.read(by_alpha).bands == 3
    assert readers.read(by_nodata, nodata=200).nodata == 0
    for path in (by_nodata, by_mask, by_alpha):
        np.testing.assert_array_equal(readers.read(path, nodata=200).mask, expected)


ALPHA = rasterio.enums.ColorInterp.alpha


@pytest.mark.parametrize(("dtype", "bands"), [("uint8", 3), ("uint8", 4), ("uint16", 3), ("float32", 3)])
def test_an_alpha_band_is_the_mask_of_any_image(dtype, bands, tmp_path):
    """GDAL itself takes it for one only beside one or three bands of some integer types."""
    opaque = np.ones((70, 90), bool)
    opaque[:, :40] = False
    values = np.concatenate([np.full((bands, 70, 90), 9), [255 * opaque]]).astype(dtype)
    path = _raw_tiff(tmp_path, values)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [*dataset.colorinterp[:bands], ALPHA]
    scene = readers.read(path)
    assert scene.bands == bands
    np.testing.assert_array_equal(scene.mask, opaque)
    np.testing.assert_array_equal(readers.read(path, nodata=7).mask, opaque)
    with open_windowed(path) as reader:
        assert reader.outline.mask is not None
        np.testing.assert_array_equal(reader.read(slice(5, 9), slice(30, 50)).mask, opaque[5:9, 30:50])


def test_a_spectral_band_that_is_marked_alpha_is_a_band(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (4, 70, 90)).astype(np.uint8)
    values[:, :50] = 0
    path = _raw_tiff(tmp_path, values)
    with rasterio.open(path) as dataset:
        assert dataset.colorinterp[3] == ALPHA
    scene = readers.read(path)
    np.testing.assert_array_equal(scene.image, np.moveaxis(values, 0, -1))
    assert scene.valid.all()


def test_sensor_gives_the_wavelengths_of_named_bands(tmp_path):
    path = tmp_path / "image.tif"
    geotiff.write(path, Scene(IMAGE, sensor="landsat8_oli", band_names=("B4", "B3", "B2")))
    assert readers.read(path).wavelengths.round().tolist() == [655, 561, 482]


def test_windows_are_the_whole(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(1, 1000, (40, 30, 2)).astype(np.uint16)
    image[3, 4] = 0
    path = tmp_path / "image.tif"
    scene = Scene(image, transform=TRANSFORM, crs="EPSG:32632", nodata=0, mask=image[..., 0] > 0, scale=0.1)
    geotiff.write(path, scene)
    with open_windowed(path) as reader:
        assert reader.shape == (40, 30, 2)
        assert reader.outline.image.nbytes > reader.outline.image.base.nbytes
        block = reader.read(slice(2, 9), slice(-29, None))
        np.testing.assert_array_equal(block.image, image[2:9, 1:])
        np.testing.assert_array_equal(block.mask, scene.mask[2:9, 1:])
        assert block.transform == TRANSFORM @ Affine.translation(1, 2)
        assert reader.read(slice(3, 4), slice(4, 5)).physical().tolist() == [[[0, 0]]]
        with pytest.raises(InputError, match="no pixel"):
            reader.read(slice(40, 50), slice(None))
    np.testing.assert_array_equal(readers.read(path).image, image)


def test_window_reader_takes_rasters_only(tmp_path):
    with pytest.raises(InputError, match="convert it to GeoTIFF"), open_windowed(files.mat5(tmp_path)):
        pass


def test_code_in_a_stack_is_not_run(tmp_path, monkeypatch):
    """Not even where the user's GDAL is set to."""
    monkeypatch.setenv("GDAL_VRT_ENABLE_PYTHON", "YES")
    path = files.vrt(tmp_path, band=PIXELS.format(tmp_path / "ran")).read_text()
    (tmp_path / "image.vrt").write_text(
        path.replace("<VRTRasterBand", '<VRTRasterBand subClass="VRTDerivedRasterBand"')
    )
    with pytest.raises(InputError, match=r"image\.vrt could not be read"):
        readers.read(tmp_path / "image.vrt")
    assert not (tmp_path / "ran").exists()


PIXELS = """<PixelFunctionType>run</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>
<PixelFunctionCode><![CDATA[
def run(inputs, output, *rest, **named):
    open("{}", "w").close()
    output[:] = 1
]]></PixelFunctionCode>"""


def _write(path, content):
    path.write_bytes(content)
    return path


def _cut(path, part):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    return path


def _floats(folder, fill):
    """A TIFF of float samples, one of them `fill`, written without our writer's checks."""
    image = np.where(IMAGE == 1, fill, IMAGE).astype(np.float32)
    return _raw_tiff(folder, np.moveaxis(image, -1, 0))


def _raw_tiff(folder, image, **extra):
    path = folder / "image.tif"
    count, height, width = image.shape
    profile = {"width": width, "height": height, "count": count, "dtype": image.dtype, "transform": TRANSFORM}
    with rasterio.open(path, "w", driver="GTiff", **(profile | extra)) as dataset:
        dataset.write(image)
    return path


def _huge_tiff(folder):
    """A classic TIFF header of 10^6 x 10^6 pixels without a single one stored."""
    entries = [(256, 4, 10**6), (257, 4, 10**6), (258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 1), (278, 4, 10**6)]
    entries += [(273, 4, 8), (279, 4, 100)]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in sorted(entries))
    return _write(folder / "huge.tif", b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + b"\0" * 4)


def _huge_hdf5(folder):
    path = folder / "huge.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("cube", shape=(10**6, 10**6, 3), dtype="f4", chunks=(64, 64, 3))
    return path


def _control_points(folder):
    path = _raw_tiff(folder, np.ones((1, 4, 4), np.uint8))
    corners = [GroundControlPoint(row, column, 5e5 + column, 5e6 - row) for row, column in ((0, 0), (0, 4), (4, 0))]
    with rasterio.open(path, "r+") as dataset:
        dataset.gcps = corners, CRS.from_epsg(32633)
    return path


BAD_FILES = [
    (lambda folder: folder / "missing.tif", "there is no file .* check the path"),
    (lambda folder: Path("https://example.org/scene.tif"), "download it first"),
    (lambda folder: folder, "is not a file"),
    (lambda folder: _write(folder / "empty.tif", b""), "is empty"),
    (lambda folder: _write(folder / "notes.txt", b"hello"), "not an image"),
    (lambda folder: _write(folder / "image.tif", b"hello"), "not an image"),
    (lambda folder: _write(folder / "image.npy", b"\x93NUMPY\x01\0"), "not an image"),
    (lambda folder: _cut(files.tiff(folder), 0.4), "damaged or cut short"),
    (lambda folder: _cut(files.vrt(folder), 0.5), "damaged or cut short"),
    (lambda folder: files.vrt(folder, source="gone.tif"), r"made of .*gone\.tif, which is no file"),
    (lambda folder: files.vrt(folder, source="image.vrt"), "damaged or cut short"),
    (lambda folder: _cut(files.mat5(folder), 0.5), "damaged or cut short"),
    (lambda folder: _cut(files.hdf5(folder), 0.5), "damaged or cut short"),
    (lambda folder: _cut(files.envi(folder).with_suffix(".dat"), 0.9), "cut short.*120 bytes, but it has 108"),
    (_huge_tiff, "1000000 x 1000000.*header is damaged"),
    (_huge_hdf5, "1000000 x 1000000 x 3.*header is damaged"),
    (lambda folder: files.envi(folder, samples=10**6, lines=10**6), "1000000.*header is damaged"),
    (lambda folder: files.envi(folder, samples=0), "without a single pixel"),
    (lambda folder: files.envi(folder, samples=-4), "not negative"),
    (lambda folder: files.envi(folder, samples="four"), "whole number"),
    (lambda folder: files.envi(folder, bands=None), "'bands' is missing"),
    (lambda folder: files.envi(folder, data_type=7), "ENVI does not have"),
    (lambda folder: files.envi(folder, byte_order=3), "byte order = 3"),
    (lambda folder: files.envi(folder, extra="interleave = xyz"), "bsq, bil or bip"),
    (lambda folder: files.envi(folder, extra="file compression = 1"), "compressed"),
    (lambda folder: files.envi(folder, extra="wavelength = {1, 2}"), "lists 2 numbers.*expected 3"),
    (lambda folder: files.envi(folder, extra="wavelength = {1, 2,"), "never closed"),
    (lambda folder: files.envi(folder, extra="map info = {UTM, 1, 1, x, 0, 1, 1}"), "damaged"),
    (lambda folder: files.envi(folder, IMAGE.astype(np.complex64)), "complex"),
    (lambda folder: _write(folder / "lonely.hdr", b"ENVI\nsamples = 1\n"), "no data file"),
    (lambda folder: files.mat5(folder, cube=IMAGE * 1j), "complex"),
    (lambda folder: files.mat5(folder, note="text"), "no three-dimensional array"),
    (lambda folder: files.mat5(folder, cube=np.zeros((0, 3, 3))), "without a single pixel"),
    (lambda folder: _raw_tiff(folder, np.ones((1, 4, 4), np.complex64)), "complex"),
    (lambda folder: _raw_tiff(folder, np.zeros((1, 4, 4), np.uint8), nodata=0), "no valid pixel"),
    (_control_points, "control points.*gdalwarp"),
    (lambda folder: _floats(folder, np.nan), "1 NaN samples.*--nodata nan"),
    (lambda folder: _floats(folder, np.inf), "1 infinite samples.*nodata value"),
]


@pytest.mark.parametrize(("make", "message"), BAD_FILES)
def test_bad_files_are_refused_by_name(make, message, tmp_path):
    path = make(tmp_path)
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        readers.read(path)
    assert path.stem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_of_a_colour_table_are_no_image(tmp_path):
    path = _raw_tiff(tmp_path, np.arange(16, dtype=np.uint8).reshape(1, 4, 4))
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {k: (k, k, 255 - k) for k in range(16)})
    with pytest.raises(InputError, match=r"colour table.*-expand rgb"):
        readers.read(path)


def test_nan_can_be_declared_as_nodata(tmp_path):
    scene = readers.read(_floats(tmp_path, np.nan), nodata=np.nan)
    assert np.argwhere(~scene.mask).tolist() == [[0, 0]]
    assert np.isfinite(scene.physical()).all()


def test_nodata_that_is_declared_adds_to_the_files_own(tmp_path):
    image = np.ones((4, 4, 1), np.float32)
    image[0, 0], image[1, 1] = np.nan, -9999
    with rasterio.open(_raw_tiff(tmp_path, np.moveaxis(image, -1, 0)), "r+") as dataset:
        dataset.nodata = -9999
    scene = readers.read(tmp_path / "image.tif", nodata=np.nan)
    assert scene.nodata == -9999
    assert np.argwhere(~scene.mask).tolist() == [[0, 0], [1, 1]]


@pytest.mark.filterwarnings("error")
def test_a_number_that_no_sample_can_be_marks_none(tmp_path):
    geotiff.write(tmp_path / "image.tif", Scene(np.ones((4, 4, 1), np.float32)))
    assert readers.read(tmp_path / "image.tif", nodata=-1e300).valid.all()


def test_objects_in_matlab_files_are_not_run(tmp_path):
    path = tmp_path / "image.mat"
    scipy.io.savemat(path, {"cube": IMAGE, "thing": {"field": 1}, "cells": np.array([1, "a"], dtype=object)})
    np.testing.assert_array_equal(readers.read(path).image, IMAGE)
    with pytest.raises(InputError, match="no real numbers"):
        readers.read(path, "thing")


def test_a_stack_of_several_types_is_read_in_one_that_holds_all(tmp_path):
    numbers = {"small": np.array([[1, 255]], np.uint8), "large": np.array([[40000, 2]], np.uint16)}
    for name, values in numbers.items():
        geotiff.write(tmp_path / f"{name}.tif", Scene(values[..., None]))
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">{name}.tif'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for band, (name, kind) in enumerate((("small", "Byte"), ("large", "UInt16")), 1)
    )
    path = tmp_path / "stack.vrt"
    path.write_text(f'<VRTDataset rasterXSize="2" rasterYSize="1">{bands}</VRTDataset>')
    image = readers.read(path).image
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image[0], [[1, 40000], [255, 2]])


def test_a_raster_has_no_keys(tmp_path):
    with pytest.raises(InputError, match="leave out its key"):
        readers.read(files.tiff(tmp_path), key="cube")
