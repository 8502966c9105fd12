"""A whole data set as contiguous columns, read by index."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .transfer import Empty


class Table:
    """Named columns of equal length, filled once.

    Args:
        columns: Tensors `[N, *shape]`, stored unchanged (uint8 stays uint8), or lazy columns.

    Attributes:
        exact: The labels in their source's float64, in host memory, if `label` is rounded; else None.
            Predictions are compared with these.
    """

    exact: Tensor | None = None

    def __init__(self, **columns: Tensor | LazyColumn):
        self.columns = columns
        # Whether reading a row has no side effects, so that it can be done ahead of time.
        self.in_memory = all(isinstance(column, Tensor) for column in columns.values())
        self._bind()

    def _bind(self) -> None:
        """Bind each column's function for reading rows once, rather than look it up for every batch."""
        self._take: dict[str, Callable[[Tensor], Tensor]] = {}
        for name, column in self.columns.items():
            if isinstance(column, Tensor):
                column = self.columns[name] = column.contiguous()
                # `index_select` reads uint8 frames at memory speed; `tensor[index]` is 2 to 10 times slower.
                self._take[name] = functools.partial(torch.index_select, column, 0)
            else:
                self._take[name] = column.take

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def device(self) -> torch.device:
        """The device of its rows, on which an index has to be."""
        column = next(iter(self.columns.values()))
        return column.device if isinstance(column, Tensor) else torch.device("cpu")

    @property
    def nbytes(self) -> int:
        """Size of the rows in memory, in bytes."""
        return sum(c.nbytes for c in self.columns.values() if isinstance(c, Tensor))

    def gather(self, index: Tensor, *, empty: Empty | None = None) -> dict[str, Tensor]:
        """The rows at `index` (int64 `[B]`) of every column.

        Args:
            index: Rows to read, int64 `[B]`, on the table's device.
            empty: Allocates the arrays that rows in host memory are gathered into.
        """
        if empty is None:
            return {name: take(index) for name, take in self._take.items()}
        return {name: _taken(column, index, empty) for name, column in self.columns.items()}

    def append(self, other: Table) -> None:
        """Append the rows of another in-memory table with the same columns."""
        for name, column in self.columns.items():
            more = other.columns[name]
            assert isinstance(column, Tensor)
            assert isinstance(more, Tensor)
            self.columns[name] = torch.cat([column, more.to(column.device)])
        if self.exact is not None:
            more = other.columns["label"] if other.exact is None else other.exact
            assert isinstance(more, Tensor)
            self.exact = torch.cat([self.exact, more.to(self.exact)])
        self._bind()

    def saved(self) -> dict[str, Any]:
        """The state of rows that replace a data set's own, for a checkpoint."""
        return dict(self.columns)

    def restored(self, saved: dict[str, Any]) -> Table:
        """The table whose `saved` returned this state, in place of this one."""
        return Table(**saved)

    def to(self, device: torch.device) -> Table:
        """The same rows on another device; the table itself if any column is decoded on the fly."""
        if self.in_memory:
            moved = {n: c.to(device) for n, c in self.columns.items() if isinstance(c, Tensor)}
            self.columns = {**moved}
            self._bind()
        return self


class LazyColumn:
    """A field that is decoded each time it is read.

    For data sets whose items differ between readings (random transforms) or that do not fit in memory.
    Reading runs Python per sample: in-memory columns are far faster.

    Args:
        source: Indexable; `source[i]` is item i.
        convert: Turns an item into a tensor of `shape` and `dtype`.
        changes: Whether items differ between readings.
    """

    def __init__(
        self,
        source: Any,
        convert: Callable[[Any], Tensor],
        *,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        changes: bool = False,
    ):
        self.source, self.convert, self.changes = source, convert, changes
        self.shape, self.dtype = (len(source), *shape), dtype

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, index: Tensor) -> Tensor:
        return torch.stack([self.convert(self.source[i]) for i in index.tolist()])


def _taken(column: Tensor | LazyColumn, index: Tensor, empty: Empty) -> Tensor:
    """The rows at an index, in memory from `empty`."""
    if not isinstance(column, Tensor):
        return column.take(index)
    dtype = torch.empty(0, dtype=column.dtype).numpy().dtype
    out: Any = torch.from_numpy(empty((len(index), *column.shape[1:]), np.dtype(dtype)))
    return torch.index_select(column, 0, index, out=out)
