"""ENVI: a text header beside raw binary numbers."""

import re
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from jfusion import sensors
from jfusion.data.readers.checks import check_size, existing_file, finish, guard, head, native, require_valid
from jfusion.data.scene import Scene
from jfusion.errors import InputError

MAX_HEADER = 2**24
DATA_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
COMPLEX_TYPES = (6, 9)
AXES = {"bsq": "blw", "bil": "lbw", "bip": "lwb"}
NANOMETRES = {
    "nanometers": 1.0,
    "nanometer": 1.0,
    "nm": 1.0,
    "micrometers": 1e3,
    "micrometer": 1e3,
    "um": 1e3,
    "µm": 1e3,
}
SUFFIXES = ("", ".img", ".dat", ".bsq", ".bil", ".bip", ".raw", ".bin")


def find(path: Path) -> tuple[Path, Path] | None:
    """Header and data file, whichever of the two `path` is; None if it is neither.

    Raises:
        InputError: a header without its data file.
    """
    if _is_header(path):
        for suffix in SUFFIXES:
            data = path.with_suffix(suffix)
            if data != path and data.is_file():
                return path, data
        raise InputError(f"{path} is an ENVI header, but no data file lies beside it ({path.stem}, .img, .dat, ...).")
    for header in (path.with_name(path.name + ".hdr"), path.with_suffix(".hdr")):
        if header.is_file() and _is_header(header):
            return header, path
    return None


def read(header_path: Path, data_path: Path, nodata: float | None = None) -> Scene:
    """The image; raises InputError as `jfusion.data.readers.read` says."""
    fields = parse_header(header_path)
    lines, samples, bands = (_integer(header_path, fields, key) for key in ("lines", "samples", "bands"))
    dtype = _dtype(header_path, fields)
    interleave = fields.get("interleave", "bsq").lower()
    if interleave not in AXES:
        raise InputError(f"{header_path} says interleave = {interleave}; expected bsq, bil or bip.")
    if _integer(header_path, fields, "file compression", 0):
        raise InputError(f"{data_path} is a compressed ENVI file; save it without compression.")
    lengths = {"l": lines, "w": samples, "b": bands}
    stored = tuple(lengths[axis] for axis in AXES[interleave])
    check_size(existing_file(data_path), stored, dtype.itemsize)
    skip = _integer(header_path, fields, "header offset", 0)
    expected, came = skip + lines * samples * bands * dtype.itemsize, data_path.stat().st_size
    if came < expected:
        raise InputError(f"{data_path} is cut short: its header promises {expected} bytes, but it has {came}.")
    with guard(data_path, "ENVI data"):
        values = np.fromfile(data_path, dtype, lines * samples * bands, offset=skip).reshape(stored)
    image = native(values.transpose([AXES[interleave].index(axis) for axis in "lwb"]))
    with guard(header_path, "an ENVI header"):
        scene = _scene(header_path, data_path, fields, image)
    return require_valid(data_path, finish(data_path, scene, nodata))


def parse_header(path: Path) -> dict[str, str]:
    """Header fields by lower-case key; a list in braces stays one string without its braces.

    Raises:
        InputError: the file is too long for a header, or a brace is not closed.
    """
    if path.stat().st_size > MAX_HEADER:
        raise InputError(f"{path} is too long for an ENVI header.")
    text = path.read_bytes().decode("utf-8", errors="replace")
    fields: dict[str, str] = {}
    key, collected = "", ""
    for line in text.splitlines()[1:]:
        if not key:
            if line.lstrip().startswith(";") or "=" not in line:
                continue
            name, _, collected = line.partition("=")
            key, collected = name.strip().lower(), collected.strip()
        else:
            collected += " " + line.strip()
        if collected.startswith("{") and "}" not in collected:
            continue
        fields[key] = collected.strip().removeprefix("{").partition("}")[0].strip()
        key = ""
    if key:
        raise InputError(f"{path} is cut short: the brace after {key!r} is never closed.")
    return fields


def map_transform(info: str) -> Affine | None:
    """Transform of an ENVI "map info" list: projection, reference pixel (1-based), its map place, pixel size, rotation.

    None for an arbitrary system.
    """
    items = [item.strip() for item in info.split(",")]
    if items[0].lower() == "arbitrary" or len(items) < 7:
        return None
    column, row, x, y, width, height = (float(item) for item in items[1:7])
    turned = re.search(r"rotation\s*=\s*([-+.\deE]+)", info)
    angle = float(turned[1]) if turned else 0.0
    placed = Affine.translation(x, y) @ Affine.rotation(angle) @ Affine.scale(width, -height)
    transform = placed @ Affine.translation(1 - column, 1 - row)
    if transform.determinant == 0 or not np.all(np.isfinite(transform[:6])):
        raise ValueError("map info gives pixels without area")
    return transform


def _is_header(path: Path) -> bool:
    return head(path, 4) == b"ENVI"


def _scene(header_path: Path, data_path: Path, fields: dict[str, str], image: np.ndarray) -> Scene:
    bands = image.shape[2]
    names = tuple(name.strip() for name in fields["band names"].split(",")) if "band names" in fields else None
    ignore = _list(header_path, fields, "data ignore value", 1)
    sensor = fields.get("sensor type", "").lower()
    factor = _list(header_path, fields, "reflectance scale factor", 1)
    gains = _list(header_path, fields, "data gain values", bands)
    offsets = _list(header_path, fields, "data offset values", bands)
    scale = 1 / factor[0] if factor is not None and factor[0] else 1.0
    wavelengths, fwhm = _wavelengths(header_path, fields, bands)
    transform = map_transform(fields["map info"]) if "map info" in fields else None
    return Scene(
        image=image,
        name=data_path.stem,
        sensor=sensor if sensor in sensors.names() else None,
        wavelengths=wavelengths,
        fwhm=fwhm,
        band_names=names if names is not None and len(names) == bands else None,
        transform=transform,
        crs=None if transform is None else _crs(fields),
        nodata=None if ignore is None else float(ignore[0]),
        scale=scale if gains is None else gains,
        offset=0.0 if offsets is None else offsets,
    )


def _crs(fields: dict[str, str]) -> str | None:
    items = [item.strip().lower() for item in fields.get("map info", "").split(",")]
    wgs84 = any(item in ("wgs-84", "wgs84") for item in items)
    if wgs84 and items[0] == "utm" and len(items) > 8:
        return f"EPSG:{(32700 if items[8].startswith('s') else 32600) + int(items[7])}"
    if wgs84 and items[0].startswith("geographic"):
        return "EPSG:4326"
    text = fields.get("coordinate system string")
    return CRS.from_wkt(text, morph_from_esri_dialect=True).to_string() if text else None


def _wavelengths(path: Path, fields: dict[str, str], bands: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Centres and widths in nm; numbers below 100 of no known unit are micrometres."""
    centres, fwhm = (_list(path, fields, key, bands) for key in ("wavelength", "fwhm"))
    if centres is None:
        return None, None
    unit = fields.get("wavelength units", "unknown").lower()
    if unit in NANOMETRES:
        factor = NANOMETRES[unit]
    elif unit in ("unknown", ""):
        factor = 1e3 if centres.max() < 100 else 1.0
    else:
        return None, None
    return np.round(centres * factor, 6), None if fwhm is None else np.round(fwhm * factor, 6)


def _dtype(path: Path, fields: dict[str, str]) -> np.dtype:
    code = _integer(path, fields, "data type")
    if code in COMPLEX_TYPES:
        raise InputError(f"{path} says data type = {code}, complex numbers; an image of real numbers was expected.")
    if code not in DATA_TYPES:
        raise InputError(f"{path} says data type = {code}, which ENVI does not have; known are {sorted(DATA_TYPES)}.")
    order = _integer(path, fields, "byte order", 0)
    if order not in (0, 1):
        raise InputError(f"{path} says byte order = {order}; expected 0 (little endian) or 1 (big endian).")
    return np.dtype("<>"[order] + DATA_TYPES[code])


def _integer(path: Path, fields: dict[str, str], key: str, default: int | None = None) -> int:
    if key not in fields:
        if default is not None:
            return default
        raise InputError(f"{path} is no complete ENVI header: {key!r} is missing.")
    try:
        value = int(fields[key])
    except ValueError:
        raise InputError(f"{path} says {key} = {fields[key][:40]}; expected a whole number.") from None
    if value < 0:
        raise InputError(f"{path} says {key} = {value}; expected a number that is not negative.")
    return value


def _list(path: Path, fields: dict[str, str], key: str, length: int) -> np.ndarray | None:
    if key not in fields:
        return None
    try:
        values = np.array([float(item) for item in fields[key].split(",") if item.strip()])
    except ValueError:
        raise InputError(f"{path} says {key} = {fields[key][:40]}...; expected numbers.") from None
    if values.size != length:
        raise InputError(f"{path} lists {values.size} numbers as {key}; expected {length}, one a band.")
    return values
