"""A whole data set as contiguous columns, read by index."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor


class Column(Protocol):
    """Rows of one field. `take(index)` gathers `[B, *shape]` for an int64 index `[B]`."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def take(self, index: Tensor) -> Tensor: ...


class Table:
    """Named columns of equal length, filled once.

    Args:
        columns: Tensors `[N, *shape]`, kept as they are (uint8 stays uint8), or lazy columns.
    """

    def __init__(self, **columns: Tensor | LazyColumn):
        # `torch.Tensor.index_select` reads uint8 frames at memory speed; `tensor[index]` is 2 to
        # 10 times slower.
        self.columns = columns
        self._take: dict[str, Callable[[Tensor], Tensor]] = {}
        self._bind()

    def _bind(self) -> None:
        for name, column in self.columns.items():
            if isinstance(column, Tensor):
                column = self.columns[name] = column.contiguous()
                self._take[name] = _reader(column)
            else:
                self._take[name] = column.take

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def device(self) -> torch.device:
        """Where its rows are, and an index has to be."""
        column = next(iter(self.columns.values()))
        return column.device if isinstance(column, Tensor) else torch.device("cpu")

    def gather(self, index: Tensor) -> dict[str, Tensor]:
        """The rows at `index` (int64 `[B]`) of every column."""
        return {name: take(index) for name, take in self._take.items()}

    def to(self, device: torch.device) -> Table:
        """The same rows on another device; all stay where they are if one is decoded on the fly."""
        tensors = {n: c.to(device) for n, c in self.columns.items() if isinstance(c, Tensor)}
        if len(tensors) == len(self.columns):
            self.columns = {**tensors}
            self._bind()
        return self


class LazyColumn:
    """A field that is decoded each time it is read.

    For data sets whose items change from one reading to the next (random transforms) or that do
    not fit in memory. Reading costs per-sample Python: in-memory columns are far faster.

    Args:
        source: Indexable; `source[i]` is item i.
        convert: Turns an item into a tensor of `shape` and `dtype`.
    """

    def __init__(
        self,
        source: Any,
        convert: Callable[[Any], Tensor],
        *,
        shape: tuple[int, ...],
        dtype: torch.dtype,
    ):
        self.source, self.convert = source, convert
        self.shape, self.dtype = (len(source), *shape), dtype

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, index: Tensor) -> Tensor:
        return torch.stack([self.convert(self.source[i]) for i in index.tolist()])


def _reader(column: Tensor) -> Callable[[Tensor], Tensor]:
    select = torch.index_select

    def take(index: Tensor) -> Tensor:
        return select(column, 0, index)

    return take


def chunks(columns: Mapping[str, Tensor], rows: int) -> Any:
    """Successive `{name: [<= rows, ...]}` views over equally long tensors."""
    length = len(next(iter(columns.values())))
    for start in range(0, length, rows):
        yield {name: column[start : start + rows] for name, column in columns.items()}
