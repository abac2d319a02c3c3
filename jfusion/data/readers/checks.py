"""Promises that every reader keeps: sizes are checked before memory is taken, values before they are used."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from jfusion.data.geotiff import holds
from jfusion.data.scene import Scene, marked
from jfusion.errors import InputError

ADDRESSES = ("http:", "https:", "s3:", "gs:", "ftp:")
SMALL = 16 * 2**20
MAX_COMPRESSION = 2000


@contextmanager
def guard(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a parsing library raises on a damaged file into an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{path} does not fit into memory; read it by windows or crop it.") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path} could not be read as {kind}; it may be damaged or cut short ({reason}).") from error


def existing_file(path: str | Path) -> Path:
    """The path, if a readable file that is not empty lies there.

    Raises:
        InputError: there is no file, or a folder, or nothing in it, or it may not be read.
    """
    path = Path(path)
    if not path.exists():
        hint = "download it first" if str(path).lower().startswith(ADDRESSES) else "check the path"
        raise InputError(f"there is no file {path}; {hint}.")
    if not path.is_file():
        raise InputError(f"{path} is not a file; name the image itself.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty.")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} may not be read; check its permissions.")
    return path


def head(path: Path, size: int = 1024) -> bytes:
    """The first bytes of a file, by which its format is known."""
    with path.open("rb") as file:
        return file.read(size)


def check_size(path: Path, shape: tuple[int, ...], itemsize: int, files: Sequence[Path] = ()) -> None:
    """Refuse a header that promises no pixel, or more than its file can hold or the machine's memory can take.

    Args:
        path: of the file.
        shape, itemsize: of the image that its header promises.
        files: where the image lies, the file itself by default.

    Raises:
        InputError: naming the path and both sizes.
    """
    if 0 in shape:
        raise InputError(f"{path} holds an image of size {_times(shape)}, without a single pixel.")
    size = itemsize
    for length in shape:
        size *= int(length)
    on_disk = sum(file.stat().st_size for file in files or [path])
    if size > max(SMALL, MAX_COMPRESSION * on_disk):
        raise InputError(
            f"{path} promises an image of {_times(shape)} ({size:.3g} bytes), but the file has {on_disk} bytes only; "
            f"its header is damaged."
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise InputError(
            f"{path} needs {size / 2**30:.1f} GiB, but this machine has {memory / 2**30:.1f} GiB of memory; "
            f"read it by windows or crop it."
        )


def check_kind(path: Path, dtype: np.dtype) -> None:
    """Refuse everything but real numbers.

    Raises:
        InputError: complex numbers, text, objects or dates.
    """
    if dtype.kind not in "uif":
        kind = {"c": "complex numbers", "b": "true/false values"}.get(dtype.kind, "text or objects")
        raise InputError(f"{path} holds {kind} ({dtype}), not an image of real numbers.")


def native(values: np.ndarray) -> np.ndarray:
    """Contiguous and in this machine's byte order; half floats become float32."""
    dtype = np.dtype(np.float32) if values.dtype == np.float16 else values.dtype.newbyteorder("=")
    return np.ascontiguousarray(values, dtype=dtype)


def finish(path: Path, scene: Scene, nodata: float | None) -> Scene:
    """Join nodata into the mask and check the values.

    Args:
        nodata: what the caller declares, besides the file's own value.

    Raises:
        InputError: NaN or infinite values outside nodata, or a scale or offset that is not finite.
    """
    marks = [mark for mark in (scene.nodata, nodata) if mark is not None and holds(scene.image.dtype, mark)]
    valid = scene.valid
    for mark in marks:
        valid = valid & ~np.any(marked(scene.image, mark), axis=-1)
    if scene.image.dtype.kind == "f" and not np.isfinite(samples := scene.image[valid]).all():
        for bad, kind, advice in (
            (np.isnan, "NaN", "mask or repair them, or say --nodata nan"),
            (np.isinf, "infinite", "set them to a nodata value, or repair them"),
        ):
            if count := int(np.count_nonzero(bad(samples))):
                raise InputError(f"{path} has {count} {kind} samples outside nodata; {advice}.")
    for name in ("scale", "offset"):
        if not np.all(np.isfinite(getattr(scene, name))):
            raise InputError(f"{path} declares a {name} that is not finite; mend its metadata.")
    if np.any(np.asarray(scene.scale) == 0):
        raise InputError(f"{path} declares a scale of zero; mend its metadata.")
    return replace(scene, mask=None if valid.all() else valid, nodata=next(iter(marks), scene.nodata))


def require_valid(path: Path, scene: Scene) -> Scene:
    """The scene itself, if a pixel of it is valid.

    Raises:
        InputError: all pixels are nodata.
    """
    if not scene.valid.any():
        raise InputError(f"{path} holds no valid pixel: all are nodata ({scene.nodata}).")
    return scene


def choose(path: Path, arrays: dict[str, tuple[int, ...]], numeric: set[str], key: str | None) -> str:
    """The array to read: `key`, or the only numeric one with three dimensions.

    Args:
        arrays: shape of every array in the file.
        numeric: names of those that hold numbers.

    Raises:
        InputError: no such key, or none or several arrays to choose from; the message lists what is there.
    """
    if key is None:
        cubes = [name for name in arrays if name in numeric and len(arrays[name]) == 3]
        if len(cubes) == 1:
            return cubes[0]
        many = "no three-dimensional array" if not cubes else f"{len(cubes)} three-dimensional arrays"
        raise InputError(f"{path} holds {many} of numbers; say which one to read by its key: {_listed(arrays)}.")
    if key not in arrays:
        raise InputError(f"{path} has no array {key!r}; it has {_listed(arrays)}.")
    if key not in numeric:
        raise InputError(f"{key} in {path} holds no real numbers; choose another of {_listed(arrays)}.")
    if len(arrays[key]) not in (2, 3):
        raise InputError(
            f"{key} in {path} has the shape {_times(arrays[key]) or 'of one number'}, but an image needs two or three "
            f"dimensions; choose another of {_listed(arrays)}."
        )
    return key


def as_cube(image: np.ndarray) -> np.ndarray:
    """`(height, width)` becomes `(height, width, 1)`."""
    return image[..., None] if image.ndim == 2 else image


def _listed(arrays: dict[str, tuple[int, ...]]) -> str:
    shown = [f"{name} ({_times(shape)})" for name, shape in list(arrays.items())[:20]]
    rest = len(arrays) - len(shown)
    return (", ".join(shown) or "nothing") + (f" and {rest} more" if rest else "")


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in shape)
