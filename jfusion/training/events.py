"""Scalars in TensorBoard's event files, which are records of protocol buffers (tensorflow/core/util/event.proto)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from jfusion.training.crc32c import masked


def _record(data: bytes) -> bytes:
    def check(part: bytes) -> bytes:
        return struct.pack("<I", masked(part))

    length = struct.pack("<Q", len(data))
    return length + check(length) + data + check(data)


def _number(value: int) -> bytes:
    """A base-128 varint."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _number(rest) if rest else bytes([low])


def _text(field: int, value: bytes) -> bytes:
    return _number(field << 3 | 2) + _number(len(value)) + value


def header(time: float) -> bytes:
    """What a file begins with; ``time`` is in seconds since 1970."""
    return _record(b"\x09" + struct.pack("<d", time) + _text(3, b"brain.Event:2"))


def event(time: float, step: int, values: Mapping[str, float]) -> bytes:
    """The scalars of a step."""
    summary = b"".join(
        _text(1, _text(1, name.encode()) + b"\x15" + struct.pack("<f", value)) for name, value in values.items()
    )
    return _record(b"\x09" + struct.pack("<d", time) + b"\x10" + _number(step) + _text(5, summary))
