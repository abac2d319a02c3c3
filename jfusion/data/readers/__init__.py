"""Reading images from files. A file's format is known by its first bytes, not by its name.

No format is read by a library that could run code from the file.
"""

from pathlib import Path

from jfusion.data.readers import envi, geotiff, hdf5, matlab
from jfusion.data.readers.checks import existing_file, head
from jfusion.data.scene import Scene
from jfusion.errors import InputError

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


def read(path: str | Path, key: str | None = None, nodata: float | None = None) -> Scene:
    """One image with its metadata: GeoTIFF (or JPEG 2000, Erdas Imagine, PNG, JPEG, a VRT), ENVI, MATLAB or HDF5.

    Args:
        path: the file; for ENVI the header or the data file.
        key: which array of a MATLAB or HDF5 file, by name or path; needed if several have three dimensions.
        nodata: marks invalid samples besides the value that the file declares.

    Returns:
        the scene in the file's own numbers, `(height, width, band)`; its mask is False wherever any band is nodata.

    Raises:
        InputError: no such file or array, a key of a raster, another format, a damaged or cut file, sizes that the file
            cannot hold, text or complex numbers, nothing but nodata, or NaN or infinite values outside nodata.
    """
    path = existing_file(path)
    start = head(path)
    if start.startswith(b"MATLAB 7.3 MAT-file"):
        return matlab.read_v73(path, key, nodata)
    if start.startswith(b"MATLAB 5.0 MAT-file"):
        return matlab.read(path, key, nodata)
    if start.startswith(HDF5_MAGIC) or start[512:].startswith(HDF5_MAGIC):
        return hdf5.read(path, key, nodata)
    raster, pair = geotiff.driver_of(path), envi.find(path)
    if key is not None and (raster or pair):
        raise InputError(f"{path} holds no arrays of which {key!r} could be one, but a raster; leave out its key.")
    if raster:
        return geotiff.read(path, nodata)
    if pair is not None:
        return envi.read(*pair, nodata)
    raise InputError(
        f"{path} is not an image that can be read; expected GeoTIFF, JPEG 2000, Erdas Imagine, PNG, JPEG, "
        f"a VRT, ENVI (with its .hdr), MATLAB or HDF5."
    )
