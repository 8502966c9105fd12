"""Keeps rows outside memory: arrays are read where they are, other rows are written to a file once."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..replay import DataError
from ..replay.mapped import InFile, Mapped
from .numbers import as_tensor

_KINDS = "biuf"  # NumPy's kinds of numbers: booleans, integers, floats.
_BLOCK_BYTES = 2**24  # Copied at once.


def in_place(value: Any, what: str) -> Mapped | None:
    """The rows of an array or a tensor as `as_tensor` gives them, read from where they are.

    An array of `numpy.load(file, mmap_mode="r")` or a `numpy.memmap` stays in its file.

    Args:
        what: What errors call it.

    Returns:
        The column; None for anything else, and for an array without rows.
    """
    if isinstance(value, Mapped):
        return value.converted(lambda rows: as_tensor(rows, what))
    if isinstance(value, Tensor):
        plain = value.layout == torch.strided and value.device.type == "cpu"
        held = plain and not (value.is_nested or value.is_quantized or value.requires_grad)
        return Mapped.of(_Tensor(value, what)) if held and value.dim() and len(value) else None
    if not isinstance(value, np.ndarray) or np.ma.isMaskedArray(value):
        return None
    if value.dtype.kind not in _KINDS or not value.ndim or not len(value):
        return None
    return Mapped.of(_Array(np.asarray(value), what))


def on_disk(rows: Tensor, folders: Sequence[Path]) -> Mapped:
    """A column of these rows, copied to a file, so that the tensor need not be kept.

    Args:
        rows: `[N, *shape]`, of a dtype that NumPy has.
        folders: See `new_file`.
    """
    kept = new_file(tuple(rows.shape), rows.dtype, folders)
    step = max(1, _BLOCK_BYTES // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), step):
        kept[start : start + step] = rows[start : start + step].numpy()
    return Mapped.of(InFile(kept))


def new_file(shape: tuple[int, ...], dtype: torch.dtype, folders: Sequence[Path]) -> np.ndarray:
    """An array of zeros over a new file that has no name: it goes with the last reference to the array.

    Its space is taken at once, since a disk that fills up later would kill the process.

    Args:
        folders: Where the file may be: the first with enough room.

    Raises:
        DataError: If there is no room for it anywhere.
    """
    kind = torch.empty(0, dtype=dtype).numpy().dtype
    size, refused = math.prod(shape) * kind.itemsize, []
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                if hasattr(os, "posix_fallocate") and size:
                    os.posix_fallocate(file.fileno(), 0, size)
                return np.memmap(file, kind, "r+", shape=shape)
        except OSError as error:
            refused.append(f"{folder}: {(error.strerror or str(error)).lower()}")
    raise DataError(
        f"storage=mmap needs {size / 1e9:.1f} GB of disk space, more than is available "
        f"({'; '.join(dict.fromkeys(refused))}). Set data_dir= to a folder on a larger disk."
    )


class _Array:
    """The rows of an array, of any dtype of numbers and in any byte order."""

    def __init__(self, array: np.ndarray, what: str):
        self.array, self.what = array, what

    def __len__(self) -> int:
        return len(self.array)

    def take(self, index: Tensor) -> Tensor:
        return as_tensor(self.array.take(index.numpy(), axis=0), self.what)


class _Tensor:
    """The rows of a tensor in memory or over a mapped file."""

    def __init__(self, rows: Tensor, what: str):
        self.values, self.what = rows, what

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Tensor) -> Tensor:
        values = self.values
        plain = (not values.is_complex() and values.itemsize > 1) or values.dtype == torch.uint8
        found = values.index_select(0, index) if plain else values[index]
        return as_tensor(found, self.what)
