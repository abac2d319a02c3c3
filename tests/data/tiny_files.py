"""Tiny files of every format, all holding the same image."""

from pathlib import Path

import h5py
import numpy as np
import scipy.io
from affine import Affine

from jfusion.data import geotiff
from jfusion.data.scene import Scene

IMAGE = np.arange(1, 5 * 4 * 3 + 1, dtype=np.int16).reshape(5, 4, 3)
TRANSFORM = Affine(10, 0, 500000, 0, -10, 4000000)
ENVI_CODES = {"u1": 1, "i2": 2, "i4": 3, "f4": 4, "f8": 5, "u2": 12, "u4": 13, "i8": 14, "u8": 15, "c8": 6, "c16": 9}
ENVI_AXES = {"bsq": (2, 0, 1), "bil": (0, 2, 1), "bip": (0, 1, 2)}


def envi(folder: Path, image=IMAGE, interleave="bsq", order="<", offset=0, extra="", **changes) -> Path:
    """An ENVI pair; returns the header. `changes` replace header fields, None removes one."""
    stored = image.transpose(ENVI_AXES[interleave])
    data = folder / "image.dat"
    data.write_bytes(b"\7" * offset + stored.astype(stored.dtype.newbyteorder(order)).tobytes())
    fields = {
        "samples": image.shape[1],
        "lines": image.shape[0],
        "bands": image.shape[2],
        "header offset": offset,
        "data type": ENVI_CODES[image.dtype.str[1:]],
        "interleave": interleave,
        "byte order": int(order == ">"),
    } | {key.replace("_", " "): value for key, value in changes.items()}
    lines = [f"{key} = {value}" for key, value in fields.items() if value is not None]
    header = folder / "image.hdr"
    header.write_text("\n".join(["ENVI", *lines, extra, ""]))
    return header


def mat5(folder: Path, **arrays) -> Path:
    path = folder / "image5.mat"
    scipy.io.savemat(path, arrays or {"cube": IMAGE, "note": "text", "vector": np.arange(3.0)})
    return path


def mat73(folder: Path) -> Path:
    """Version 7.3 as MATLAB writes it: axes reversed, 512 bytes of user block, the class as attribute."""
    path = folder / "image73.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values, kind in (("cube", IMAGE, b"int16"), ("note", np.array([[116]], np.uint16), b"char")):
            file.create_dataset(name, data=values.T).attrs["MATLAB_class"] = np.bytes_(kind)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: TEST".ljust(512, b" "))
    return path


def hdf5(folder: Path) -> Path:
    path = folder / "image.h5"
    with h5py.File(path, "w") as file:
        item = file.create_dataset("group/cube", data=IMAGE, compression="gzip")
        item.attrs["scale_factor"], item.attrs["add_offset"], item.attrs["_FillValue"] = 0.5, 1.0, np.int16(1)
        file["labels"] = np.zeros((5, 4), np.uint8)
        file["names"] = ["a", "b"]
    return path


def tiff(folder: Path) -> Path:
    path = folder / "image.tif"
    scene = Scene(IMAGE, transform=TRANSFORM, crs="EPSG:32632", nodata=-1, band_names=("a", "b", "c"))
    geotiff.write(path, scene, cog=False)
    return path


def vrt(folder: Path, source: str = "image.tif", band: str = "") -> Path:
    """A stack of the three bands of the TIFF; ``band`` is XML that each band has besides."""
    tiff(folder)
    height, width, bands = IMAGE.shape
    each = (
        f'<VRTRasterBand dataType="Int16" band="{i}">{band}<SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{source}</SourceFilename><SourceBand>{i}</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
        for i in range(1, bands + 1)
    )
    path = folder / "image.vrt"
    path.write_text(f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">{"".join(each)}</VRTDataset>')
    return path
