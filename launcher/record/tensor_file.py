"""Files of named tensors in the safetensors format, written and read a part at a time.

The library builds the whole file in memory. Here a tensor is hashed and written where it lies, and read into
the memory that it stays in, so that a save needs no more memory than the run.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...replay import CheckpointError
from ...replay.blocks import PART, Field
from ...replay.manifest import Written, parse_json, write_file

_HEADER = 100 * 2**20  # Bytes of a header, at most, as in the library.
_NAMES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8"},
    **{torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8"},
    **{torch.bool: "BOOL", torch.complex64: "C64"},
    **{torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"},
    **{torch.float8_e4m3fnuz: "F8_E4M3FNUZ", torch.float8_e5m2fnuz: "F8_E5M2FNUZ"},
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_OF_NUMPY = {
    torch.empty(0, dtype=dtype).numpy().dtype: name
    for dtype, name in _NAMES.items()
    if name not in ("BF16",) and not name.startswith("F8")
}
_NUMPY = {name: dtype for dtype, name in _OF_NUMPY.items()}


@dataclass(frozen=True)
class Entry:
    """A tensor to be written.

    Attributes:
        dtype: Its name in the format.
        parts: Returns its bytes in row-major order, a part at a time.
    """

    dtype: str
    shape: Sequence[int]
    parts: Callable[[], Iterator[memoryview]]


def entry_of(value: Tensor | np.ndarray) -> Entry:
    """The entry of a tensor on any device, or of an array.

    Raises:
        CheckpointError: If the format has no such dtype.
    """
    if isinstance(value, Tensor):
        return Entry(_named(_NAMES, value.dtype), tuple(value.shape), lambda: _tensor_parts(value))
    array = value.astype(value.dtype.newbyteorder("="), copy=False)
    return Entry(_named(_OF_NUMPY, array.dtype), array.shape, lambda: _array_parts(array))


def column_entry(
    dtype: np.dtype[Any], shape: tuple[int, ...], parts: Callable[[], Iterator[np.ndarray]]
) -> Entry:
    """The entry of an array that comes a few rows at a time."""
    return Entry(_named(_OF_NUMPY, dtype), shape, lambda: (_bytes(part) for part in parts()))


def write(path: Path, entries: Mapping[str, Entry], metadata: dict[str, str]) -> Written:
    """Write a new file and sync it to the disk; tensors are read while they are written."""
    order = sorted(entries.items(), key=lambda item: -_itemsize(item[1].dtype))  # Aligned.
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, entry in order:
        start, end = end, end + _itemsize(entry.dtype) * prod(entry.shape)
        header[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def parts() -> Iterator[bytes | memoryview]:
        yield len(text).to_bytes(8, "little") + text
        for _, entry in order:
            yield from entry.parts()

    return write_file(path, parts())


class TensorFile:
    """A file of tensors, each read into memory of its own.

    Args:
        file: Open to read; stays open.

    Raises:
        ValueError: If it is not such a file.
    """

    def __init__(self, file: BufferedReader):
        self._file = file
        size = os.fstat(file.fileno()).st_size
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_HEADER, size - 8):
            raise ValueError("it has no header of tensors")
        header = parse_json(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("it has no header of tensors")
        header.pop("__metadata__", None)
        self._start, self._tensors = 8 + length, header
        end = 0
        for name, about in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            first, last = about["data_offsets"]
            if (first, last) != (end, end + _itemsize(about["dtype"]) * prod(about["shape"])):
                raise ValueError(f"{name} is not where its header says")
            end = last
        if self._start + end != size:
            raise ValueError("its size is not what its header says")

    def tensor(self, name: str) -> Tensor:
        """One tensor, on the CPU."""
        about = self._tensors[name]
        tensor = torch.empty(about["shape"], dtype=_DTYPES[about["dtype"]])
        if tensor.numel():
            into = tensor.reshape(-1).view(torch.uint8).numpy()
            self._read(about["data_offsets"][0], into)
        return tensor

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` of a tensor, as an array."""
        about = self._tensors[name]
        shape, dtype = about["shape"][1:], _NUMPY[about["dtype"]]
        array = np.empty((stop - start, *shape), dtype)
        if array.size:
            at = about["data_offsets"][0] + start * prod(shape) * dtype.itemsize
            self._read(at, array.reshape(-1).view(np.uint8))
        return array

    @property
    def names(self) -> list[str]:
        return list(self._tensors)

    def num_rows(self, name: str) -> int:
        """Size of a tensor's first dimension; -1: it has none."""
        return next(iter(self._tensors[name]["shape"]), -1)

    def field(self, name: str) -> Field:
        """Shape and dtype of a row of a tensor."""
        about = self._tensors[name]
        return tuple(about["shape"][1:]), _NUMPY[about["dtype"]]

    def _read(self, at: int, into: np.ndarray) -> None:
        self._file.seek(self._start + at)
        if self._file.readinto(into.data) != len(into):
            raise ValueError("it ends too early")


def _named(names: Mapping[Any, str], dtype: Any) -> str:
    if dtype not in names or sys.byteorder != "little":
        raise CheckpointError(f"Cannot save values of the type {dtype} in a checkpoint.")
    return names[dtype]


def _itemsize(dtype: str) -> int:
    return _DTYPES[dtype].itemsize


def _tensor_parts(tensor: Tensor) -> Iterator[memoryview]:
    tensor = tensor.detach()
    if not tensor.numel():
        return
    one = tensor.element_size()
    if tensor.is_contiguous():
        tensor = tensor.reshape(-1)
    elif tensor.dim():
        one *= tensor[0].numel()
    for part in tensor.split(max(1, PART // one)) if tensor.dim() else (tensor,):
        here = part.resolve_conj().resolve_neg().contiguous().cpu()
        yield here.reshape(-1).view(torch.uint8).numpy().data


def _array_parts(array: np.ndarray) -> Iterator[memoryview]:
    if not array.ndim:
        yield _bytes(array)
        return
    step = max(1, PART // max(1, array.itemsize * prod(array.shape[1:])))
    for first in range(0, len(array), step):
        yield _bytes(array[first : first + step])


def _bytes(array: np.ndarray) -> memoryview:
    """The bytes of an array, without a copy if it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
