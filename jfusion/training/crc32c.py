"""The cyclic redundancy check with Castagnoli's polynomial, which TensorFlow's files are checked by."""

import math
from functools import cache

import numpy as np

POLYNOMIAL = 0x82F63B78
PREFIX = b"Td\x1fd"
"""Bytes that bring the register from 0 to its usual start, all ones."""


def masked(data: bytes | memoryview) -> int:
    """The CRC-32C of `data` turned by 15 bits, plus a constant, as LevelDB and TensorFlow's records have it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes | memoryview) -> int:
    """The CRC-32C of `data` (RFC 3720, appendix B.4).

    The register is linear over bits, and zeros before the data leave it zero. So the data are cut into rows of equal
    length whose registers run side by side, and a row's register moves on over the rows after it by a matrix, whose
    columns are what a row of zeros makes of each bit.
    """
    size = len(PREFIX) + len(data)
    length = math.isqrt(size)
    count = -(-size // length)
    rows = np.zeros((count + 32, length), np.uint8)
    flat = rows[:count].reshape(-1)
    flat[flat.size - size : flat.size - len(data)] = np.frombuffer(PREFIX, np.uint8)
    flat[flat.size - len(data) :] = np.frombuffer(data, np.uint8)
    register = np.concatenate([np.zeros(count, np.uint32), np.uint32(1) << np.arange(32, dtype=np.uint32)])
    table = _table()
    for column in rows.T:
        register = table[(register ^ column) & 255] ^ register >> 8
    columns = [int(c) for c in register[count:]]
    crc = 0
    for row in register[:count]:
        crc = _moved(crc, columns) ^ int(row)
    return crc ^ 0xFFFFFFFF


def _moved(crc: int, columns: list[int]) -> int:
    moved = 0
    for bit, column in enumerate(columns):
        if crc >> bit & 1:
            moved ^= column
    return moved


@cache
def _table() -> np.ndarray:
    """What each byte makes of an empty register, (256,)."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(POLYNOMIAL), table >> 1)
    return table
