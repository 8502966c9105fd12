"""Rows that stay where they are, in files mapped into memory mostly, and are gathered by number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

_BLOCK_BYTES = 2**24  # Gathered at once on the way to a device.


class Rows(Protocol):
    """Where the rows of a column are."""

    def __len__(self) -> int: ...
    def take(self, index: Tensor) -> Tensor:
        """The rows at `index` (int64 `[B]`), `[B, *shape]`, as a copy."""


class Mapped:
    """A column whose rows are read from their source in whole batches, and never held.

    Choosing rows, converting them and joining columns change only how a batch is read: nothing is copied, so
    that a column may be larger than memory. Rows are the same as those of a tensor that was treated so.

    >>> column = Mapped.of(InFile(np.arange(6).reshape(3, 2)))
    >>> column.rows(torch.tensor([2, 0])).converted(lambda rows: rows * 10).take(torch.tensor([0]))
    tensor([[40, 50]])

    Args:
        source: Where the rows are.
        shape, dtype: Those of a row as `take` returns it.
        index: The rows of the source that these are, int64 `[N]`; None: all, in its order.
        convert: Turns rows of the source `[B, ...]` into those of the column; None: they are the same.
    """

    in_memory, device = True, torch.device("cpu")

    def __init__(
        self,
        source: Rows,
        *,
        shape: Sequence[int],
        dtype: torch.dtype,
        index: Tensor | None = None,
        convert: Callable[[Tensor], Tensor] | None = None,
    ):
        self.source, self.index, self.convert = source, index, convert
        self.shape: tuple[int, ...] = (len(source if index is None else index), *shape)
        self.dtype = dtype

    @classmethod
    def of(cls, source: Rows) -> Mapped:
        """All rows of a source as they are; it needs at least one."""
        first = source.take(torch.tensor([0]))
        return cls(source, shape=first.shape[1:], dtype=first.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        """Some rows, `[n, *shape]`, as a copy."""
        return self.take(torch.arange(*rows.indices(len(self))))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:].numpy(), dtype)

    @property
    def nbytes(self) -> int:
        """Size of the rows, in bytes; few of them are in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def whole(self) -> Rows | None:
        """The source, if these are all of its rows as they are."""
        return self.source if self.index is None and self.convert is None else None

    def take(self, index: Tensor) -> Tensor:
        """The rows at `index` (int64 `[B]`)."""
        if self.index is not None:
            index = self.index.index_select(0, index)
        found = self.source.take(index)
        return found if self.convert is None else self.convert(found)

    def rows(self, index: Tensor) -> Mapped:
        """A column of these rows alone, int64 `[n]`."""
        index = index if self.index is None else self.index.index_select(0, index)
        return Mapped(
            self.source, shape=self.shape[1:], dtype=self.dtype, index=index, convert=self.convert
        )

    def converted(
        self, convert: Callable[[Tensor], Tensor], dtype: torch.dtype | None = None
    ) -> Mapped:
        """The column with its rows, `[B, *shape]`, converted further; to `dtype`, or what that gives."""
        first = self.convert

        def both(rows: Tensor) -> Tensor:
            found = convert(rows if first is None else first(rows))
            return found if dtype is None else found.to(dtype)

        row = both(self.source.take(torch.tensor([0])))
        return Mapped(
            self.source, shape=row.shape[1:], dtype=row.dtype, index=self.index, convert=both
        )

    def joined(self, others: Sequence[Any]) -> Mapped:
        """A column of its rows, followed by those of others of the same form; they may be tensors."""
        return Mapped(InTurn([self, *others]), shape=self.shape[1:], dtype=self.dtype)

    def to(self, device: torch.device | str) -> Mapped | Tensor:
        """The rows on another device, as a tensor; on the CPU the column itself."""
        if torch.device(device).type == "cpu":
            return self
        held = torch.empty(self.shape, dtype=self.dtype, device=device)
        rows = max(1, _BLOCK_BYTES // max(1, self.nbytes // max(1, len(self))))
        for start in range(0, len(self), rows):
            held[start : start + rows] = self[start : start + rows].to(device)
        return held


class InFile:
    """The rows of one NumPy array, mapped from a file or not.

    Args:
        array: `[N, *shape]`, of a dtype that torch has.
    """

    def __init__(self, array: np.ndarray):
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def take(self, index: Tensor) -> Tensor:
        return torch.from_numpy(self.array.take(index.numpy(), axis=0))


class Chunks:
    """The rows of many NumPy arrays, one after another.

    Args:
        arrays: `[N_i, *shape]`, all of one dtype, which torch has.
    """

    def __init__(self, arrays: Sequence[np.ndarray]):
        self.arrays = list(arrays)
        lengths = np.array([len(array) for array in arrays])
        self.ends = lengths.cumsum()
        self.begins = self.ends - lengths

    def __len__(self) -> int:
        return int(self.ends[-1])

    def take(self, index: Tensor) -> Tensor:
        rows, first = index.numpy(), self.arrays[0]
        which = np.searchsorted(self.ends, rows, side="right")
        places = rows - self.begins[which]
        found = np.empty((len(rows), *first.shape[1:]), first.dtype)
        # One by one: the rows of a batch are nearly all in different arrays.
        for i, (array, row) in enumerate(zip(which.tolist(), places.tolist(), strict=True)):
            found[i] = self.arrays[array][row]
        return torch.from_numpy(found)


class InTurn:
    """The rows of several columns, one after another.

    Args:
        columns: `[N_i, *shape]`, all of one dtype.
    """

    def __init__(self, columns: Sequence[Any]):
        self.columns = list(columns)
        self.ends = torch.tensor([len(column) for column in columns]).cumsum(0)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def take(self, index: Tensor) -> Tensor:
        which = torch.searchsorted(self.ends, index, right=True)
        first = self.columns[0]
        found = torch.empty((len(index), *first.shape[1:]), dtype=first.dtype)
        for k in which.unique().tolist():
            places = (which == k).nonzero().flatten()
            column, start = self.columns[k], int(self.ends[k]) - len(self.columns[k])
            rows = index.index_select(0, places) - start
            taken = (
                column.index_select(0, rows) if isinstance(column, Tensor) else column.take(rows)
            )
            found.index_copy_(0, places, taken)
        return found
