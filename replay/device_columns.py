"""Storage of transitions on an accelerator, so that learning from them does not cross the bus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .blocks import Field, field_bytes
from .columns import BOOTSTRAP_OFFSET, SMALL, Frames
from .devices import has_float64
from .transfer import Empty, upload

_WAITING = 64 * 2**20  # Bytes of large fields that wait on the host, at most,
_CHANGED = 256  # and writes.


class DeviceColumns:
    """Named fields with a fixed number of rows on an accelerator, where batches are gathered.

    The host keeps a copy of the small fields, to which steps are written; changes are sent before the next
    batch is gathered, several steps in one copy. Large fields (images) wait on the host only until then.

    Args:
        fields, rows: As in `Columns`.
        device: The accelerator.
    """

    def __init__(self, fields: Mapping[str, Field], rows: int, device: torch.device):
        self.fields, self.rows, self.device = dict(fields), rows, device
        held = {name: _held(field, device) for name, field in fields.items()}
        small = {name: field for name, field in held.items() if field_bytes(field) <= SMALL}
        order = sorted(small, key=lambda name: -small[name][1].itemsize)
        record = np.dtype([(name, small[name][1], small[name][0]) for name in order], align=True)
        # In whole words, as it is sent: a row's number, then its record.
        words = -(-record.itemsize // 8)
        self._host = np.zeros((rows, words), np.int64)
        self._there = torch.zeros((rows, words), dtype=torch.int64, device=device)
        self._small: dict[str, np.ndarray] = {}  # Views of the host's copy, to write to.
        # For each small field: dtype, first element in a record, number of elements, shape.
        self._layout: dict[str, tuple[torch.dtype, int, int, tuple[int, ...]]] = {}
        for name, (shape, dtype) in small.items():
            offset = record.fields[name][1]  # type: ignore[index]
            self._small[name] = _part(self._host.view(np.uint8), offset, shape, dtype)
            self._layout[name] = _torch_dtype(dtype), offset // dtype.itemsize, prod(shape), shape
        self._large: dict[str, Tensor] = {}
        for name in held.keys() - small:
            shape, dtype = held[name]
            column = torch.zeros((rows, *shape), dtype=_torch_dtype(dtype), device=device)
            self._large[name] = column
        self._types = {name: dtype for name, (_, dtype) in held.items()}
        self._changed: list[np.ndarray] = []  # Rows whose records were written since the last copy.
        # Rows and values of large fields that wait to be sent; each row at most once.
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
            shape = len(numbers), *self.fields[name][0]
            value = np.array(np.broadcast_to(value, shape), self._types[name], order="C")
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
        """Add `value` `[n, *shape]` to a small field in `rows`, int64 `[n]`, without duplicates."""
        self._small[name][rows] += value
        self._changed.append(np.array(rows))

    def _send(self, **beside: Tensor) -> dict[str, Tensor]:
        """Bring the device up to date, in one copy together with the tensors in `beside`."""
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
        step: int | None,
        *,
        names: Sequence[str],
        pairs: Sequence[str],
        stacked: Sequence[str],
        frames: Frames,
        empty: Empty | None = None,
        ends: Sequence[str] = (),
        back: int = 0,
    ) -> dict[str, Tensor]:
        """As `Columns.gather`, with all results on the device."""
        n, after = (
            len(index),
            index + (self._small[BOOTSTRAP_OFFSET].take(index) if step is None else step),
        )
        rows = {"both": np.concatenate((index, after))}
        if stacked:
            rows["frames"] = frames(index, after)
        if ends:
            rows["last"] = after - back
        at = self._located(rows)
        both, first = at["both"], at["both"][:n]
        small = self._views(self._there.index_select(0, both))
        fields: dict[str, Tensor] = {"index": first}
        for name in names:
            fields[name] = small[name][:n] if name in small else self._large_at(name, first)
        if ends:
            last = self._views(self._there.index_select(0, at["last"]))
            fields.update({name: last[name] for name in ends})
        for name in pairs:
            taken = small[name] if name in small else self._large_at(name, both)
            fields[name], fields[f"next_{name}"] = taken[:n], taken[n:]
        for name in stacked:
            fields[name] = self._taken(name, at["frames"])
        return fields

    def take(self, index: np.ndarray, names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """The rows at `index` (int64 `[B]`, wrapping around) of these fields; None: of every one."""
        at = self._located({"rows": index})["rows"]
        return {name: self._taken(name, at) for name in (self._names if names is None else names)}

    def _taken(self, name: str, rows: Tensor) -> Tensor:
        if name in self._small:
            return self._views(self._there.index_select(0, rows))[name]
        return self._large_at(name, rows)

    def _located(self, rows: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """Row numbers on the device, after bringing it up to date."""
        return self._send(**{name: torch.from_numpy(at % self.rows) for name, at in rows.items()})

    def _views(self, records: Tensor) -> dict[str, Tensor]:
        """The small fields in records, `[B, words]` int64, without a copy."""
        by_type: dict[torch.dtype, Tensor] = {torch.int64: records}
        views = {}
        for name, (dtype, begin, count, shape) in self._layout.items():
            if dtype not in by_type:
                by_type[dtype] = records.view(dtype)
            part = by_type[dtype][:, begin : begin + count]
            views[name] = part.unflatten(1, shape) if shape else part.squeeze(1)
        return views

    def _large_at(self, name: str, rows: Tensor) -> Tensor:
        return self._large[name].index_select(0, rows)

    def peek(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The values of one field in some rows, on the host."""
        if name in self._small:
            return self._small[name].take(rows, axis=0, mode="wrap")
        return self._large_at(name, self._located({"rows": rows})["rows"]).cpu().numpy()

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` of a field, `[stop - start, *shape]`, without a copy where possible."""
        if name in self._small:
            return self._small[name][start:stop].astype(self.fields[name][1], copy=False)
        self._send()
        values = self._large[name][start:stop].cpu().numpy()
        return values.astype(self.fields[name][1], copy=False)  # A device may hold float32.

    def restore(self, name: str, kept: np.ndarray, start: int = 0) -> None:
        """Store what `read` returned, from row `start` on."""
        stop = start + len(kept)
        if name in self._small:
            self._small[name][start:stop] = kept
            self._changed.append(np.arange(start, stop))
            return
        self._send()
        column = self._large[name]
        column[start:stop] = torch.from_numpy(np.array(kept)).to(column)


def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.zeros(0, dtype)).dtype


def _held(field: Field, device: torch.device) -> Field:
    """The field with a dtype that the device supports: float32 for float64 where necessary."""
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
