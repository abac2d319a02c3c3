"""Numbers from bytes."""

from typing import Literal

import numpy as np

Order = Literal["<", ">"]
"""Of bytes, the lowest first or last."""

BFLOAT16 = "bfloat16"
"""Stands beside the names of NumPy's dtypes for the upper half of a float32."""


def size_of(kind: str) -> int:
    """Bytes of one number."""
    return 2 if kind == BFLOAT16 else np.dtype(kind).itemsize


def numbers(data: bytes | memoryview, kind: str, order: Order) -> np.ndarray:
    """All numbers in `data`, `(count,)`, without a copy but for bfloat16, which becomes float32.

    Args:
        kind: the name of a dtype of NumPy, or `BFLOAT16`.

    Raises:
        ValueError: the bytes are no whole number of them.
    """
    if kind == BFLOAT16:
        return (np.frombuffer(data, f"{order}u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, np.dtype(kind).newbyteorder(order))
