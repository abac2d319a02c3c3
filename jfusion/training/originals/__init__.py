"""The arrays of checkpoints of other frameworks, read without those frameworks; nothing in a file is run.

A file's format is known by its content; only TensorFlow's shards and index are known by their names.
"""

import os
import re
from pathlib import Path

import numpy as np

from jfusion.data.readers import HDF5_MAGIC
from jfusion.data.readers.checks import head
from jfusion.errors import InputError
from jfusion.training.originals import keras, matconvnet, pytorch, tensorflow

SHARD = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint of another framework by name; nothing in the file is run.

    - PyTorch's torch.save: named by their keys, nested ones joined by "/"; kernels `(out, in, *window)`, those of
      transposed convolutions `(in, out, *window)`.
    - Keras's .h5: by their paths in the file; kernels `(*window, in, out)`, transposed ones `(*window, out, in)`.
    - MatConvNet's .mat: "layers/k/weights/j", counted from 0, or the names of a DagNN's parameters; kernels
      `(*window, in, out)`, from which MATLAB drops ones at the end.
    - TensorFlow's PREFIX.index and PREFIX.data-0000i-of-0000n: by the variables' names; kernels as Keras's.

    Args:
        path: the file; of TensorFlow's the prefix, the index or a shard.

    Returns:
        arrays in the file's own shapes and dtypes, perhaps read-only and sharing memory where the file's do; bfloat16
        becomes float32. Text and other things that are no arrays are left out.

    Raises:
        InputError: no such file, another format, a damaged or cut file, a pickle that asks for anything but tensors and
            plain containers, or no array.
    """
    arrays = _read(Path(path))
    if not arrays:
        raise InputError(f"{path} holds no array of weights; check that it is the checkpoint of a trained network.")
    return arrays


def _read(path: Path) -> dict[str, np.ndarray]:
    index = _index_of(path)
    if index is not None:
        return tensorflow.read(index)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the checkpoint in it, one of TensorFlow by its prefix.")
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}; check the path.")
    start = head(path)
    if start.startswith(b"PK\3\4"):
        return pytorch.read_zip(path)
    if pytorch.is_legacy(start):
        return pytorch.read_legacy(path)
    if start.startswith(b"MATLAB 7.3 MAT-file"):
        return matconvnet.read_v73(path)
    if start.startswith(b"MATLAB 5.0 MAT-file"):
        return matconvnet.read_v5(path)
    if start.startswith(HDF5_MAGIC):
        return keras.read(path)
    raise InputError(
        f"{path} is no checkpoint that can be read; expected a file of torch.save, a Keras .h5, a MatConvNet .mat or "
        f"TensorFlow's PREFIX.index with its shards, not its first version in one file; save it as one of these."
    )


def _index_of(path: Path) -> Path | None:
    """The index of the TensorFlow checkpoint that `path` names, which need not exist; None if it names another file."""
    if path.suffix == ".index":
        return path
    if shard := SHARD.fullmatch(path.name):
        return path.with_name(f"{shard[1]}.index")
    index = path.with_name(f"{path.name}.index")
    return index if index.is_file() and not path.exists() else None
