"""Checkpoints of TensorFlow ("tensor bundles", since version 0.12): PREFIX.index and PREFIX.data-0000i-of-0000n.

The index is a table of LevelDB: blocks of sorted entries whose keys leave out what they share with the one before, a
block that points to the blocks, and a footer that points to it. Its values are the messages BundleHeaderProto (key "")
and BundleEntryProto of TensorFlow's tensor_bundle.proto.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jfusion.data.readers.checks import guard
from jfusion.errors import InputError
from jfusion.training.crc32c import masked
from jfusion.training.originals.numbers import BFLOAT16, Order, numbers, size_of

TABLE_MAGIC = 0xDB4775248B80FB57
FOOTER = 48

KINDS = {
    1: "f4",
    2: "f8",
    3: "i4",
    4: "u1",
    5: "i2",
    6: "i1",
    8: "c8",
    9: "i8",
    10: "?",
    14: BFLOAT16,
    17: "u2",
    18: "c16",
    19: "f2",
    22: "u4",
    23: "u8",
}
"""Numbers of types.proto's DataType; text (7), resources and quantised numbers are left out."""

Message = dict[int, list]
"""Fields of a protocol buffer by number: ints and bytes in the order of the file."""


@dataclass(frozen=True)
class Entry:
    """Where a variable lies: `size` bytes from `offset` in shard `shard`, with a masked CRC-32C of them."""

    kind: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


def read(index: Path) -> dict[str, np.ndarray]:
    """All variables of numbers, read-only, their checksums verified.

    Raises:
        InputError: no index or shard, a damaged or cut one, blocks compressed by Snappy, or a variable in slices.
    """
    if not index.is_file():
        raise InputError(f"there is no index {index} of a TensorFlow checkpoint; put it beside its shards.")
    with guard(index, "the index of a TensorFlow checkpoint"):
        table = dict(_table(index, memoryview(index.read_bytes())))
        header = _message(table.pop(b""))
        count = header.get(1, [0])[-1]
        order: Order = ">" if header.get(2, [0])[-1] == 1 else "<"
        entries = {name.decode(): entry for name, value in table.items() if (entry := _entry(index, name, value))}
    arrays: dict[str, np.ndarray] = {}
    for shard in sorted({entry.shard for entry in entries.values()}):
        path = index.with_name(f"{index.stem}.data-{shard:05d}-of-{count:05d}")
        if not path.is_file():
            raise InputError(f"{index} needs the shard {path}, which is not there; put it beside the index.")
        with guard(path, "a shard of a TensorFlow checkpoint"):
            content = memoryview(path.read_bytes())
            arrays |= {
                name: _array(name, entry, content, order) for name, entry in entries.items() if entry.shard == shard
            }
    return arrays


def _array(name: str, entry: Entry, content: memoryview, order: Order) -> np.ndarray:
    data = content[entry.offset : entry.offset + entry.size]
    if entry.size != math.prod(entry.shape) * size_of(entry.kind) or len(data) != entry.size:
        raise ValueError(f"{name} has {len(data)} bytes for the shape {entry.shape}")
    if masked(data) != entry.checksum:
        raise ValueError(f"{name} does not have its checksum")
    return numbers(data, entry.kind, order).reshape(entry.shape)


def _entry(index: Path, name: bytes, value: memoryview) -> Entry | None:
    """The description of a variable, None if it holds no numbers.

    Raises:
        InputError: it is stored in slices.
    """
    fields = _message(value)
    if 7 in fields:
        raise InputError(
            f"{index} stores {name.decode()} in slices, which are not put together; save the network without a "
            f"partitioner."
        )
    kind = KINDS.get(fields.get(1, [0])[-1])
    if kind is None:
        return None
    shape = _message(fields.get(2, [b""])[-1])
    sizes = tuple(_message(axis).get(1, [0])[-1] for axis in shape.get(2, []))
    shard, offset, size, checksum = (fields.get(number, [0])[-1] for number in (3, 4, 5, 6))
    return Entry(kind, sizes, shard, offset, size, checksum)


# ----------------------------------------------------------------------------------------------------------------------
# Tables of LevelDB


def _table(path: Path, content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """All entries.

    Raises:
        ValueError, IndexError, struct.error: the table is damaged.
        InputError: a block is compressed.
    """
    if len(content) < FOOTER or struct.unpack("<Q", content[-8:]) != (TABLE_MAGIC,):
        raise ValueError("it has no footer of a table")
    footer = content[-FOOTER:]
    _, position = _varint(footer, 0)
    _, position = _varint(footer, position)
    for _, handle in _entries(_block(path, content, footer[position:])):
        yield from _entries(_block(path, content, handle))


def _block(path: Path, content: memoryview, handle: memoryview) -> memoryview:
    """The block at the place and of the size in `handle`, its checksum verified."""
    offset, position = _varint(handle, 0)
    size, _ = _varint(handle, position)
    block, tail = content[offset : offset + size], content[offset + size : offset + size + 5]
    compression, checksum = struct.unpack("<BI", tail)
    if masked(content[offset : offset + size + 1]) != checksum:
        raise ValueError("a block does not have its checksum")
    if compression:
        raise InputError(f"{path} is compressed (Snappy), which is not read; save it by a later TensorFlow.")
    return block


def _entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    (restarts,) = struct.unpack("<I", block[-4:])
    end, position, key = len(block) - 4 - 4 * restarts, 0, b""
    while position < end:
        shared, position = _varint(block, position)
        fresh, position = _varint(block, position)
        size, position = _varint(block, position)
        key = key[:shared] + bytes(block[position : position + fresh])
        position += fresh
        yield key, block[position : position + size]
        position += size


# ----------------------------------------------------------------------------------------------------------------------
# Protocol buffers


def _message(data: memoryview | bytes) -> Message:
    """All fields; raises IndexError, struct.error or ValueError if it is damaged."""
    fields: Message = {}
    position = 0
    value: int | memoryview | bytes
    while position < len(data):
        tag, position = _varint(data, position)
        if tag & 7 == 0:
            value, position = _varint(data, position)
        elif tag & 7 == 2:
            size, position = _varint(data, position)
            value, position = data[position : position + size], position + size
        elif tag & 7 in (1, 5):
            form = "<Q" if tag & 7 == 1 else "<I"
            (value,) = struct.unpack_from(form, data, position)
            position += struct.calcsize(form)
        else:
            raise ValueError(f"a field of type {tag & 7} does not exist")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(data: memoryview | bytes, position: int) -> tuple[int, int]:
    """A number written seven bits a byte, the lowest first, and the place after it."""
    value = 0
    for place in range(10):
        byte = data[position + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, position + place + 1
    raise ValueError("a number does not end")
