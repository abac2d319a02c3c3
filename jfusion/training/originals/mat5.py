"""Variables in MATLAB files of version 5 with their cells and structs, which `jfusion.data.readers.mat5` only lists.

Written out here for the same reason: on some damaged files scipy.io crashes the process or does not come back.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from jfusion.data.readers.mat5 import CLASSES, COMPRESSED, FILE_HEADER, MATRIX, STORED, tag

CELL, STRUCT, TEXT = 1, 2, 4
ENCODINGS = {1: "latin1", 2: "latin1", 16: "utf8"}
"""Of text, by the type of its elements; every other one is UTF-16."""


def variables(content: memoryview) -> Iterator[tuple[str, Any]]:
    """Names and values of all variables in the bytes of a file.

    A struct becomes a dict, a struct array or a cell a list in MATLAB's order, text a str, real numbers an array in
    MATLAB's order of axes, the real part of complex ones as well; anything else is None.

    Raises:
        KeyError, RuntimeError, ValueError, struct.error, zlib.error: the file is damaged.
    """
    order = {b"IM": "<", b"MI": ">"}[bytes(content[126:128])]
    for code, body in _elements(content[FILE_HEADER:], order):
        if code == COMPRESSED:
            code, body = next(_elements(memoryview(zlib.decompress(body)), order))
        if code == MATRIX:
            yield _matrix(body, order)


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of the elements one after another."""
    position = 0
    while position < len(data):
        code, start, size = tag(data, position, order)
        body = data[start : start + size]
        if len(body) < size:
            raise ValueError("an element runs past the end")
        yield code, body
        position = start + size + (0 if code == COMPRESSED else -(start + size - position) % 8)


def _matrix(body: memoryview, order: str) -> tuple[str, Any]:
    """Name and value; an element without content is an empty array."""
    if not body:
        return "", np.zeros((0, 0))
    parts = _elements(body, order)
    flags, sizes, name = (_next(parts)[1] for _ in range(3))
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    if min(shape, default=-1) < 0:
        raise ValueError(f"an array has the shape {shape}")
    return bytes(name).decode("latin1"), _value(flags[0 if order == "<" else 3], shape, parts, order)


def _value(kind: int, shape: tuple[int, ...], parts: Iterator[tuple[int, memoryview]], order: str) -> Any:
    if kind == CELL:
        return [_matrix(_next(parts)[1], order)[1] for _ in range(math.prod(shape))]
    if kind == STRUCT:
        (width,) = struct.unpack(f"{order}i", _next(parts)[1])
        names = bytes(_next(parts)[1])
        fields = [names[at : at + width].split(b"\0")[0].decode() for at in range(0, len(names), max(width, 1))]
        count = math.prod(shape) if fields else 1
        structs = [{field: _matrix(_next(parts)[1], order)[1] for field in fields} for _ in range(count)]
        return structs[0] if count == 1 else structs
    if kind == TEXT:
        code, text = _next(parts)
        encoding = ENCODINGS.get(code, "utf-16-le" if order == "<" else "utf-16-be")
        return bytes(text).decode(encoding, errors="replace")
    if kind in CLASSES:
        code, data = _next(parts)
        return np.frombuffer(data, order + STORED[code]).astype(CLASSES[kind]).reshape(shape, order="F")
    return None


def _next(parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    part = next(parts, None)
    if part is None:
        raise ValueError("a part of an array is missing")
    return part
