"""Numeric arrays in MATLAB files of version 5.

Written out here because the usual parser (scipy.io, compiled) crashes the whole process on some damaged files. The
format is MathWorks' "MAT-File Format": tagged elements, each possibly deflated; a matrix holds its flags, shape, name
and numbers. Cells, structures, text and sparse matrices are listed, not read.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

MATRIX, COMPRESSED = 14, 15
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
COMPLEX_FLAG, LOGICAL_FLAG = 0x800, 0x200
FILE_HEADER, MATRIX_HEADER = 128, 4096


@dataclass(frozen=True)
class Variable:
    """One variable of the file, not yet read.

    Attributes:
        shape: in MATLAB's order.
        dtype: of its numbers, None if it holds something else.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype | None
    _body: memoryview
    _deflated: bool
    _start: int
    _order: str

    def read(self) -> np.ndarray:
        """The numbers, `shape`.

        Raises:
            ValueError: the element is damaged.
        """
        if self.dtype is None or self.dtype.kind == "c":
            raise ValueError(f"{self.name} holds no real numbers")
        count = int(np.prod(self.shape, dtype=np.int64))
        body: bytes | memoryview = self._body
        if self._deflated:
            body = zlib.decompressobj().decompress(body, self._start + 16 + 8 * count)
        code, start, size = tag(body, self._start, self._order)
        if code not in STORED:
            raise ValueError(f"{self.name} stores its numbers as type {code}, which does not exist")
        stored = np.dtype(self._order + STORED[code])
        if size != count * stored.itemsize:
            raise ValueError(f"{self.name} has {size} bytes for {count} numbers")
        return np.frombuffer(body, stored, count, start).astype(self.dtype).reshape(self.shape, order="F")


def variables(buffer: memoryview) -> Iterator[Variable]:
    """All named variables in the bytes of a file.

    Raises:
        ValueError, struct.error, zlib.error: the file is damaged.
    """
    order = {b"IM": "<", b"MI": ">"}.get(bytes(buffer[126:128]), "")
    if not order:
        raise ValueError("neither byte order is marked")
    position = FILE_HEADER
    while position < len(buffer):
        code, size = struct.unpack_from(order + "II", buffer, position)
        body = buffer[position + 8 : position + 8 + size]
        if len(body) < size:
            raise ValueError("an element runs past the end of the file")
        position += 8 + size
        if code == COMPRESSED:
            head = zlib.decompressobj().decompress(body, MATRIX_HEADER)
            (code,) = struct.unpack_from(order + "I", head)
            if code == MATRIX:
                yield from _variable(head, 8, order, body, deflated=True)
        else:
            position += -position % 8
            if code == MATRIX:
                yield from _variable(body[:MATRIX_HEADER], 0, order, body, deflated=False)


def _variable(
    head: bytes | memoryview, start: int, order: str, body: memoryview, *, deflated: bool
) -> Iterator[Variable]:
    """The matrix whose parts begin at `start`, unless it has no name or is of a class without a shape."""
    _, flags_at, flags_size = tag(head, start, order)
    (flags,) = struct.unpack_from(order + "I", head, flags_at)
    shape_code, shape_at, shape_size = tag(head, _after(flags_at, flags_size), order)
    _, name_at, name_size = tag(head, _after(shape_at, shape_size), order)
    name = bytes(head[name_at : name_at + name_size]).decode("ascii", errors="replace")
    if not name or not 1 <= flags & 0xFF <= 15 or STORED.get(shape_code) != "i4":
        return
    shape = struct.unpack_from(f"{order}{shape_size // 4}i", head, shape_at)
    if min(shape, default=-1) < 0:
        raise ValueError(f"{name} has the shape {shape}")
    dtype = None
    if flags & 0xFF in CLASSES and not flags & LOGICAL_FLAG:
        dtype = np.dtype(np.complex128) if flags & COMPLEX_FLAG else np.dtype(CLASSES[flags & 0xFF])
    yield Variable(name, shape, dtype, body, deflated, _after(name_at, name_size), order)


def tag(data: bytes | memoryview, position: int, order: str) -> tuple[int, int, int]:
    """Type, place and size of an element's data; up to four bytes may stand in the tag itself."""
    word, size = struct.unpack_from(order + "II", data, position)
    if word >> 16:
        return word & 0xFFFF, position + 4, word >> 16
    return word, position + 8, size


def _after(start: int, size: int) -> int:
    """Where the next part begins: parts are padded to eight bytes, from the beginning of the matrix."""
    return start + size + -(start + size) % 8
