"""Where transitions lie: named fields of a fixed number of rows, in RAM, in a file, or on a device."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .devices import has_float64
from .errors import ConfigError
from .transfer import Empty, upload

# Fields up to this many bytes share a record: a row then costs one cache miss, not one per field.
_SMALL = 256
# Of a mapped file that may stay resident before its pages are given back to the system.
_RESIDENT = 64 * 2**20
# Linux maps this much around a byte that is touched.
_AROUND = 64 * 2**10
# Of large fields that wait on the host for a device, and of writes.
_WAITING = 64 * 2**20
_CHANGED = 256

Field = tuple[tuple[int, ...], np.dtype[Any]]


class Columns:
    """Fields written and gathered by row number.

    Small fields are packed into one record per row; a large one (an image) is an array of its own.
    There, rows of one lane (an environment) lie next to each other: five frames of a stack and its
    successor are then read in one go, a quarter faster than from five places.

    Args:
        fields: Shape and type of one row of each field.
        rows: How many.
        apart: Small fields that are not packed, because they are read from other rows as well.
        lanes: Row r is of lane `r % lanes`; divides `rows`.
        mapped: Keep them in a file without a name, which the system pages in and out; it may be
            larger than RAM, and is gone when the process is, however that ends.
        folder: Where that file is; default: the system's folder for large temporary files.
    """

    def __init__(
        self,
        fields: Mapping[str, Field],
        rows: int,
        *,
        apart: Collection[str] = (),
        lanes: int = 1,
        mapped: bool = False,
        folder: str | None = None,
    ):
        self.fields, self.rows, self.lanes = dict(fields), rows, lanes
        small = {n: f for n, f in fields.items() if _bytes(f) <= _SMALL and n not in apart}
        # The widest first: every field is then aligned without padding.
        order = sorted(small, key=lambda name: -small[name][1].itemsize)
        record = np.dtype([(name, small[name][1], small[name][0]) for name in order], align=True)
        self._packed = frozenset(small)  # Names of the fields in the records.
        self._large = {n for n, f in fields.items() if _bytes(f) > _SMALL}
        self._maps: list[mmap.mmap] = []
        self._touched = 0

        if mapped:
            folder = _roomy(folder, rows * sum(_bytes(field) for field in fields.values()))

        def make(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
            if mapped:
                return self._mapped(shape, dtype, folder)
            try:
                return np.zeros(shape, dtype)
            except MemoryError as error:
                raise ConfigError(
                    f"{error}. Lower capacity, or set replay.storage=mmap."
                ) from error

        self._records = make((rows,), record)
        self._row_bytes = _AROUND + record.itemsize
        self.arrays = {name: self._records[name] for name in small}
        for name in sorted(fields.keys() - self._packed):
            self.arrays[name] = make((rows, *fields[name][0]), fields[name][1])
            self._row_bytes += _AROUND + _bytes(fields[name])
        self._names = tuple(fields)

    def _mapped(self, shape: tuple[int, ...], dtype: np.dtype[Any], folder: str | None) -> Any:
        size = max(1, int(np.prod(shape)) * dtype.itemsize)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(size)
            mapping = mmap.mmap(file.fileno(), size)
        if hasattr(mmap, "MADV_RANDOM"):
            mapping.madvise(mmap.MADV_RANDOM)  # Reading ahead would fill memory with other rows.
        self._maps.append(mapping)
        return np.frombuffer(mapping, dtype, count=int(np.prod(shape))).reshape(shape)

    def write(self, rows: Any, values: Mapping[str, Any]) -> None:
        """Store values `[n, *shape]` of some fields in n rows, given by number or as a slice."""
        arrays, apart = self.arrays, self._large if self.lanes > 1 else ()
        for name, value in values.items():
            arrays[name][self._place(name, rows) if name in apart else rows] = value
        if self._maps:
            self._release(rows.stop - rows.start if isinstance(rows, slice) else len(rows))

    def _place(self, name: str, rows: Any) -> Any:
        """Where rows of a field are."""
        if self.lanes == 1 or name not in self._large:
            return rows
        if isinstance(rows, slice):
            rows = np.arange(rows.start, rows.stop)
        return rows % self.lanes * (self.rows // self.lanes) + rows // self.lanes

    def add_to(self, name: str, rows: np.ndarray, value: np.ndarray) -> None:
        """Add to what is stored in `rows`, which are all different."""
        self.arrays[name][rows] += value

    def gather(
        self,
        index: np.ndarray,
        after: np.ndarray,
        *,
        names: Sequence[str],
        pairs: Sequence[str],
        stacks: Mapping[str, np.ndarray],
        empty: Empty | None = None,
    ) -> dict[str, Tensor]:
        """What a batch of transitions is made of.

        Args:
            index, after: Rows `[B]` of the transitions, and of what they led to; past the last row
                they wrap around.
            names: Fields wanted at `index`.
            pairs: Fields wanted at `index` and, as `next_<name>`, at `after`.
            stacks: Fields wanted at rows of their own, `[n]`.
            empty: Makes the arrays that are filled; None: ordinary memory.

        Returns:
            `[B, *shape]` of each name, and of each pair two; `[n, *shape]` of each stack; `index`.
        """
        fields = self.take(index, names, empty)
        fields["index"] = torch.from_numpy(index)
        for name in pairs:
            both, n = self._take(name, np.concatenate((index, after)), empty), len(index)
            fields[name] = torch.from_numpy(both[:n])
            fields[f"next_{name}"] = torch.from_numpy(both[n:])
        for name, rows in stacks.items():
            fields[name] = torch.from_numpy(self._take(name, rows, empty))
        return fields

    def take(
        self, index: np.ndarray, names: Sequence[str] | None = None, empty: Empty | None = None
    ) -> dict[str, Tensor]:
        """The rows at `index` (int64 `[B]`, wrapping around) of these fields; None: of every one."""
        names = self._names if names is None else names
        packed, from_numpy = self._packed, torch.from_numpy
        records = self._taken(self._records, index, empty) if packed else None
        fields = {
            name: from_numpy(records[name])  # type: ignore[index]
            if name in packed
            else from_numpy(self._take(name, index, empty))
            for name in names
        }
        if self._maps:
            self._release(len(index))
        return fields

    def peek(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The values of one field in some rows, on the host."""
        return self._take(name, rows, None)

    def _take(self, name: str, index: np.ndarray, empty: Empty | None) -> np.ndarray:
        if self._maps:
            self._release(len(index))
        if self.lanes > 1 and name in self._large:
            index = self._place(name, index % self.rows)
        if name in self._packed:
            return self._taken(self._records, index, None)[name]
        return self._taken(self.arrays[name], index, empty)

    @staticmethod
    def _taken(array: np.ndarray, index: np.ndarray, empty: Empty | None) -> np.ndarray:
        if empty is None:
            return array.take(index, axis=0, mode="wrap")
        out = empty((len(index), *array.shape[1:]), array.dtype)
        return array.take(index, axis=0, mode="wrap", out=out)

    def _release(self, rows: int) -> None:
        """Give pages back now and then: the file's data stays, in the system's cache or on disk."""
        self._touched += rows * self._row_bytes
        if self._touched > _RESIDENT and hasattr(mmap, "MADV_DONTNEED"):
            for mapping in self._maps:
                mapping.madvise(mmap.MADV_DONTNEED)
            self._touched = 0

    def read(self, name: str, rows: int) -> np.ndarray:
        """The first `rows` rows of a field, without a copy where there need be none."""
        array = self.arrays[name]
        if self.lanes == 1 or name not in self._large:
            return array[:rows]
        by_lane = array.reshape(self.lanes, -1, *array.shape[1:])
        return by_lane[:, : rows // self.lanes].swapaxes(0, 1).reshape(rows, *array.shape[1:])

    def restore(self, name: str, kept: np.ndarray) -> None:
        """Put back what `read` gave."""
        self.arrays[name][self._place(name, np.arange(len(kept)))] = kept
        if self._maps:
            self._release(len(kept))


class DeviceColumns:
    """The same on an accelerator: batches are gathered there, and their rows never cross the bus.

    Small fields of all rows are kept on the host as well, where steps are written; what has changed is
    sent before the next batch is gathered, several steps together in one copy. Large ones (images)
    wait on the host only until then.

    Args:
        device: Where batches are made.
    """

    def __init__(self, fields: Mapping[str, Field], rows: int, device: torch.device):
        self.fields, self.rows, self.device = dict(fields), rows, device
        small = {n: _on_device(f, device) for n, f in fields.items() if _bytes(f) <= _SMALL}
        order = sorted(small, key=lambda name: -small[name][1].itemsize)
        record = np.dtype([(name, small[name][1], small[name][0]) for name in order], align=True)
        # In whole words, as it crosses: a row's number, then its record.
        self._words = -(-record.itemsize // 8)
        self._host = np.zeros((rows, self._words), np.int64)
        self._offsets = {name: record.fields[name][1] for name in small}  # type: ignore[index]
        self._dtypes = {name: small[name] for name in small}
        view = self._host.view(np.uint8)
        self._small = {name: _part(view, self._offsets[name], *small[name]) for name in small}
        self._there = torch.zeros((rows, self._words), dtype=torch.int64, device=device)
        self._large = {
            name: torch.zeros(
                (rows, *shape), dtype=_torch_dtype(_on_device((shape, d), device)[1]), device=device
            )
            for name, (shape, d) in fields.items()
            if name not in small
        }
        self._changed: list[np.ndarray] = []  # Rows of records that were written since.
        # Rows and values of large fields that wait; a row waits once at most.
        self._waiting: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self._waits = {name: np.zeros(rows, np.bool_) for name in self._large}
        self._waiting_bytes = 0
        self._names = tuple(fields)

    def write(self, rows: Any, values: Mapping[str, Any]) -> None:
        """Store values `[n, *shape]` of some fields in n rows, given by number or as a slice."""
        numbers = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else np.array(rows)
        for name, value in values.items():
            if name in self._small:
                self._small[name][rows] = value
                continue
            shape, dtype = _on_device(self.fields[name], self.device)
            value = np.array(np.broadcast_to(value, (len(numbers), *shape)), dtype, order="C")
            if self._waits[name][numbers].any():
                self._send()
            self._waits[name][numbers] = True
            self._waiting.setdefault(name, []).append((numbers, value))
            self._waiting_bytes += value.nbytes
        if self._small.keys() & values.keys():
            self._changed.append(numbers)
        if self._waiting_bytes > _WAITING or len(self._changed) > _CHANGED:
            self._send()

    def add_to(self, name: str, rows: np.ndarray, value: np.ndarray) -> None:
        """Add to what is stored of a small field in `rows`, which are all different."""
        self._small[name][rows] += value
        self._changed.append(np.array(rows))

    def _send(self, **beside: Tensor) -> dict[str, Tensor]:
        """Bring the device up to date, in one copy with what else has to go there."""
        if not (beside or self._changed or self._waiting):
            return {}
        crossing: dict[str, Any] = {"beside": beside, "large": {}}
        if self._changed:
            rows = np.unique(np.concatenate(self._changed))
            crossing["records"] = torch.from_numpy(np.column_stack((rows, self._host[rows])))
        for name, waiting in self._waiting.items():
            numbers, values = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
            self._waits[name][numbers] = False
            crossing["large"][name] = {
                "rows": torch.from_numpy(numbers),
                "values": torch.from_numpy(values),
            }
        self._changed, self._waiting, self._waiting_bytes = [], {}, 0
        there = upload(crossing, self.device)
        if (records := there.get("records")) is not None:
            self._there.index_copy_(0, records[:, 0].contiguous(), records[:, 1:])
        for name, large in there["large"].items():
            self._large[name].index_copy_(0, large["rows"], large["values"])
        arrived: dict[str, Tensor] = there["beside"]
        return arrived

    def gather(
        self,
        index: np.ndarray,
        after: np.ndarray,
        *,
        names: Sequence[str],
        pairs: Sequence[str],
        stacks: Mapping[str, np.ndarray],
        empty: Empty | None = None,
    ) -> dict[str, Tensor]:
        """As of `Columns`; nothing has to be sent after it."""
        n = len(index)
        rows = {f"stack {name}": rows for name, rows in stacks.items()}
        at = self._located({"both": np.concatenate((index, after)), **rows})
        both, first = at["both"], at["both"][:n]
        small = self._views(self._there.index_select(0, both))
        fields: dict[str, Tensor] = {"index": first}
        for name in names:
            fields[name] = small[name][:n] if name in small else self._large_at(name, first)
        for name in pairs:
            taken = small[name] if name in small else self._large_at(name, both)
            fields[name], fields[f"next_{name}"] = taken[:n], taken[n:]
        for name in stacks:
            there = at[f"stack {name}"]
            if name in self._small:
                fields[name] = self._views(self._there.index_select(0, there))[name]
            else:
                fields[name] = self._large_at(name, there)
        return fields

    def take(
        self, index: np.ndarray, names: Sequence[str] | None = None, empty: Empty | None = None
    ) -> dict[str, Tensor]:
        """The rows at `index` (int64 `[B]`, wrapping around) of these fields; None: of every one."""
        at = self._located({"rows": index})["rows"]
        small = self._views(self._there.index_select(0, at))
        return {
            name: small[name] if name in small else self._large_at(name, at)
            for name in (self._names if names is None else names)
        }

    def _located(self, rows: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """Row numbers, on the device, which is up to date then."""
        return self._send(**{name: torch.from_numpy(at % self.rows) for name, at in rows.items()})

    def _views(self, records: Tensor) -> dict[str, Tensor]:
        """The small fields in records, `[B, words]` int64, without a copy."""
        by_type: dict[torch.dtype, Tensor] = {torch.int64: records}
        views = {}
        for name, (shape, dtype) in self._dtypes.items():
            kind = _torch_dtype(dtype)
            if kind not in by_type:
                by_type[kind] = records.view(kind)
            begin, count = self._offsets[name] // dtype.itemsize, prod(shape)
            part = by_type[kind][:, begin : begin + count]
            views[name] = part.unflatten(1, shape) if shape else part.squeeze(1)
        return views

    def _large_at(self, name: str, rows: Tensor) -> Tensor:
        return self._large[name].index_select(0, rows)

    def peek(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The values of one field in some rows, on the host."""
        if name in self._small:
            return self._small[name].take(rows, axis=0, mode="wrap")
        return self._large_at(name, self._located({"rows": rows})["rows"]).cpu().numpy()

    def read(self, name: str, rows: int) -> np.ndarray:
        """The first `rows` rows of a field, without a copy where there need be none."""
        if name in self._small:
            return self._small[name][:rows]
        self._send()
        return self._large[name][:rows].cpu().numpy()

    def restore(self, name: str, kept: np.ndarray) -> None:
        """Put back what `read` gave."""
        if name in self._small:
            self._small[name][: len(kept)] = kept
            self._changed.append(np.arange(len(kept)))
            return
        self._send()
        column = self._large[name]
        column[: len(kept)] = torch.from_numpy(np.array(kept)).to(column)


def _roomy(folder: str | None, size: int) -> str:
    """The folder, if the file fits: it is made without its blocks, and a full disk would kill us."""
    folder = folder or ("/var/tmp" if os.path.isdir("/var/tmp") else tempfile.gettempdir())
    if not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
        raise ConfigError(f"replay.folder={folder} is no folder that can be written to.")
    if size > (free := shutil.disk_usage(folder).free):
        raise ConfigError(
            f"replay.storage=mmap needs {size / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} are free. "
            "Lower capacity, or set replay.folder."
        )
    return folder


def _bytes(field: Field) -> int:
    shape, dtype = field
    return int(np.prod(shape)) * dtype.itemsize


def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.zeros(0, dtype)).dtype


def _on_device(field: Field, device: torch.device) -> Field:
    """The field as a device can hold it: float64 as float32 where there is none."""
    shape, dtype = field
    if dtype == np.float64 and not has_float64(device.type):
        return shape, np.dtype(np.float32)
    return field


def _part(
    records: np.ndarray, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> np.ndarray:
    """One field `[rows, *shape]` of records `[rows, bytes]`: a view to read and write."""
    strides = (records.strides[0], *np.empty(shape, dtype).strides)
    return np.ndarray((len(records), *shape), dtype, records, offset, strides)
