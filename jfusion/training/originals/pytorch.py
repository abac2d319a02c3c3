"""Files of torch.save: the zip archives of PyTorch 1.6 and later and the chained pickles before.

The pickles are read by an unpickler that knows tensors and plain containers and refuses every other name, so that no
code can be called from a file.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jfusion.data.readers.checks import guard
from jfusion.errors import InputError
from jfusion.training.originals.numbers import BFLOAT16, Order, numbers, size_of

LEGACY_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")

STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
    "ComplexFloatStorage": "c8",
    "ComplexDoubleStorage": "c16",
}
"""Classes of module torch or torch.cuda and the numbers that they hold."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of a pickle, whose numbers lie elsewhere.

    Attributes:
        key: of its storage.
        kind: of the storage's numbers, see `numbers`.
        offset: of its first number in the storage.
        size, stride: in numbers, an entry an axis.
    """

    key: str
    kind: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def is_legacy(start: bytes) -> bool:
    """Whether a file that starts so is torch.save's from before version 1.6."""
    return start.startswith(b"\x80") and LEGACY_MAGIC in start[:32]


def read_zip(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a zip archive.

    Raises:
        InputError: see `read_arrays`.
    """
    with guard(path, "a PyTorch checkpoint"), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise InputError(f"{path} is a zip archive but not one of torch.save, which has one data.pkl.")
        root = roots[0]
        big = f"{root}byteorder" in names and archive.read(f"{root}byteorder") == b"big"
        tree = _Unpickler(io.BytesIO(archive.read(f"{root}data.pkl")), path).load()
        found = list(_tensors(tree))
        raw = {key: archive.read(f"{root}data/{key}") for key in {tensor.key for _, tensor in found}}
        return _arrays(found, raw, ">" if big else "<")


def read_legacy(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a file of chained pickles: three of the format, the object, its storages' keys; then the storages.

    Raises:
        InputError: see `read_arrays`.
    """
    with guard(path, "a PyTorch checkpoint"), path.open("rb") as file:
        for _ in range(3):
            _Unpickler(file, path).load()
        unpickler = _Unpickler(file, path)
        tree = unpickler.load()
        keys = _Unpickler(file, path).load()
        raw = {}
        for key in keys:
            (count,) = struct.unpack("<q", _take(file, 8))
            raw[key] = _take(file, count * size_of(unpickler.kinds[key]))
        return _arrays(list(_tensors(tree)), raw, "<")


class _Unpickler(pickle.Unpickler):
    """Builds `Tensor` for tensors and plain containers, and nothing else.

    Attributes:
        kinds: of the storages met, by key.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file, encoding="utf-8")
        self.path = path
        self.kinds: dict[str, str] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.cuda") and name in STORAGES:
            return STORAGES[name]
        if (module, name) not in KNOWN:
            raise InputError(
                f"{self.path} asks for {module}.{name}, which is refused, since a file could run code that way: only "
                f"tensors and plain containers are read; if it holds a whole model, load it where it was made and save "
                f"its state_dict()."
            )
        return KNOWN[module, name]

    def persistent_load(self, pid: Any) -> tuple[str, str, int]:
        """Key and kind of a storage, and where a view of it begins (only before version 1.6)."""
        what, kind, key, _, _, *view = pid
        if what != "storage" or kind not in STORAGES.values() or not isinstance(key, str):
            raise ValueError("something is stored apart that is no storage of numbers")
        self.kinds[key] = kind
        return key, kind, view[0][1] if view and view[0] else 0


def _tensor(storage: tuple[str, str, int], offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    key, kind, start = storage
    return Tensor(key, kind, start + offset, tuple(size), tuple(stride))


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


KNOWN: dict[tuple[str, str], Callable] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}
"""All that a pickle may name beside storages, and what is called instead."""


def _tensors(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested containers by the keys on the way to them."""
    if isinstance(tree, Tensor):
        yield "/".join(path), tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _tensors(value, (*path, str(key)))
    elif isinstance(tree, list | tuple):
        for place, value in enumerate(tree):
            yield from _tensors(value, (*path, str(place)))


def _arrays(tensors: list[tuple[str, Tensor]], raw: dict[str, bytes], order: Order) -> dict[str, np.ndarray]:
    """Views of the storages' bytes.

    Raises:
        KeyError, ValueError: a storage is missing or too short, or two tensors have the same name.
    """
    arrays = {name: _view(tensor, numbers(raw[tensor.key], tensor.kind, order)) for name, tensor in tensors}
    if len(arrays) < len(tensors):
        raise ValueError("two tensors have the same name")
    return arrays


def _view(tensor: Tensor, storage: np.ndarray) -> np.ndarray:
    """The numbers of a tensor, `tensor.size`, read-only, as its strides pick them from `storage` (count,)."""
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
    if min(tensor.offset, *tensor.size, *tensor.stride, 0) < 0 or (0 not in tensor.size and last >= len(storage)):
        raise ValueError("a tensor reaches beyond its storage")
    strides = [step * storage.itemsize for step in tensor.stride]
    start = storage[min(tensor.offset, len(storage)) :]
    return np.lib.stride_tricks.as_strided(start, tensor.size, strides, writeable=False)


def _take(file: BinaryIO, count: int) -> bytes:
    """Raises EOFError if there are fewer than `count` bytes, before memory is taken for them."""
    start = file.tell()
    left = file.seek(0, io.SEEK_END) - start
    file.seek(start)
    if not 0 <= count <= left:
        raise EOFError(f"a storage needs {count} bytes and {left} are left")
    return file.read(count)
