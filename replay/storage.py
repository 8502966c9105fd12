"""A whole data set as contiguous columns, read by index."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, Union

import numpy as np
import torch
from torch import Tensor

from .mapped import InTurn, Mapped
from .padding import steps_of
from .ragged import Ragged
from .transfer import Empty
from .tree import leaves, map_tree, zip_trees

Own = TypeVar("Own", bound="OwnColumn")
Held = TypeVar("Held", bound="HeldColumn")


class OwnColumn(Protocol):
    """A column with a form of its own, for rows that one tensor `[N, *shape]` cannot hold.

    Attributes:
        shape: `(N, *shape)`, with the shape of the rows that `take` returns.
        dtype: Theirs.
        in_memory: Whether reading a row has no side effects, so that it can be done ahead of time.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    in_memory: bool

    @property
    def device(self) -> torch.device: ...
    @property
    def nbytes(self) -> int: ...
    def __len__(self) -> int: ...
    def take(self, index: Tensor) -> Tensor:
        """The rows at `index` (int64 `[B]`)."""

    def rows(self: Own, index: Tensor) -> Own:
        """A column of these rows alone, int64 `[n]`."""


class HeldColumn(OwnColumn, Protocol):
    """One whose rows are in memory."""

    def joined(self: Held, others: Sequence[Held]) -> Held:
        """A column of its rows, followed by those of the others."""

    def to(self: Held, device: torch.device) -> Held:
        """The same rows on another device."""


Column: TypeAlias = Tensor | OwnColumn
# One column, or nested dicts of them: the inputs of a data set.
TableField: TypeAlias = Union[Column, dict[str, "TableField"]]  # noqa: UP007  (| takes no string)


class Table:
    """Named fields of equal length, filled once. A field is a column, or a dict of columns.

    Args:
        columns: Tensors `[N, *shape]`, stored unchanged (uint8 stays uint8), lazy columns, or (nested) dicts
            of these.

    Attributes:
        in_memory: Whether reading a row has no side effects, so that it can be done ahead of time.
        exact: The labels in their source's float64, in host memory, if `label` is rounded; else None.
            Predictions are compared with these.
    """

    exact: Tensor | None = None

    def __init__(self, **columns: TableField):
        self.columns: dict[str, Any] = columns
        self.in_memory = in_memory(columns)
        self._bind()

    def _bind(self) -> None:
        """Bind each field's function for reading rows once, rather than look it up for every batch."""
        self.columns = map_tree(_contiguous, self.columns)
        self._take = {name: _reader(field) for name, field in self.columns.items()}
        self._sequences = isinstance(self.columns.get("obs"), Ragged)

    def __len__(self) -> int:
        return len(leaves(self.columns)[0])

    @property
    def device(self) -> torch.device:
        """The device of its rows, on which an index has to be."""
        device: torch.device = leaves(self.columns)[0].device
        return device

    @property
    def nbytes(self) -> int:
        """Size of the rows in memory, in bytes."""
        return sum(column.nbytes for column in leaves(self.columns))

    def gather(self, index: Tensor, *, empty: Empty | None = None) -> dict[str, Any]:
        """The rows at `index` (int64 `[B]`) of every field, a tensor or a dict of tensors.

        Sequences come padded, with their `length`, int64 `[B]`.

        Args:
            index: Rows to read, int64 `[B]`, on the table's device.
            empty: Allocates the arrays that rows in host memory are gathered into.
        """
        if empty is None or not self.in_memory:
            fields = {name: take(index) for name, take in self._take.items()}
        else:
            fields = map_tree(lambda c: _taken(c, index, empty), self.columns)
        if self._sequences and (steps := steps_of(fields["obs"])) is not None:
            fields["length"] = steps.length  # The mark is lost on the way to a device.
        return fields

    def append(self, other: Table) -> None:
        """Append the rows of another in-memory table with the same columns."""
        self.columns = zip_trees(lambda *parts: joined(parts), self.columns, other.columns)
        if self.exact is not None:
            more = other.columns["label"] if other.exact is None else other.exact
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
            self.columns = map_tree(lambda column: column.to(device), self.columns)
            self._bind()
        return self


class LazyColumn:
    """A column that is decoded each time it is read.

    For data sets whose items differ between readings (random transforms) or that do not fit in memory.
    Reading runs Python per sample: in-memory columns are far faster. Columns of one dict that share a
    `source` are read together, each item once.

    Args:
        source: Indexable; `source[i]` is item i.
        convert: Turns an item into a tensor of `shape` and `dtype`.
        changes: Whether items differ between readings.
    """

    in_memory, nbytes, device = False, 0, torch.device("cpu")

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

    @property
    def in_turn(self) -> bool:
        """Whether items of the source can only be read one after the other."""
        source = self.source
        while isinstance(source, _Reindexed):
            source = source.source
        return bool(getattr(source, "in_turn", False))

    def converted(self, convert: Callable[[Tensor], Tensor], dtype: torch.dtype) -> LazyColumn:
        """The column with its rows converted further, to `dtype`."""
        first = self.convert
        return self._like(self.source, lambda item: convert(first(item)), dtype)

    def rows(self, index: Tensor) -> LazyColumn:
        return self._like(_Reindexed(self.source, index.tolist()), self.convert, self.dtype)

    def with_source(self, source: Any) -> LazyColumn:
        """The column with its items from another source."""
        return self._like(source, self.convert, self.dtype)

    def _like(
        self, source: Any, convert: Callable[[Any], Tensor], dtype: torch.dtype
    ) -> LazyColumn:
        return LazyColumn(source, convert, shape=self.shape[1:], dtype=dtype, changes=self.changes)


class _Reindexed:
    """Some items of an indexable, in another order."""

    def __init__(self, source: Any, index: list[int]):
        # Python numbers: users' `__getitem__` may not accept tensors.
        self.source, self.index = source, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> Any:
        return self.source[self.index[i]]


def in_memory(columns: TableField) -> bool:
    """Whether all columns are in memory, so that reading a row has no side effects."""
    return all(isinstance(c, Tensor) or c.in_memory for c in leaves(columns))


def changes(columns: TableField) -> bool:
    """Whether rows of a column differ from one reading to the next."""
    return any(isinstance(c, LazyColumn) and c.changes for c in leaves(columns))


def select(columns: TableField, index: Tensor) -> Any:
    """Some rows (int64 `[n]`) of every column; columns that are read together stay so."""
    sources: dict[int, _Reindexed] = {}

    def rows(column: Column) -> Column:
        if isinstance(column, Tensor):
            return column.index_select(0, index)
        if not isinstance(column, LazyColumn):
            return column.rows(index)
        source = sources.get(id(column.source))
        if source is None:
            source = sources[id(column.source)] = _Reindexed(column.source, index.tolist())
        return column.with_source(source)

    return map_tree(rows, columns)


def joined(columns: Sequence[Any]) -> Any:
    """The rows of several columns in memory, all of one kind, in turn; on the first one's device."""
    first, *others = columns
    if isinstance(first, Tensor) and any(isinstance(column, Mapped) for column in others):
        return Mapped(InTurn(columns), shape=first.shape[1:], dtype=first.dtype)
    if isinstance(first, Tensor):
        return torch.cat([first, *(other.to(first.device) for other in others)])
    held: HeldColumn = first
    return held.joined(others)


def _contiguous(column: Column) -> Column:
    return column.contiguous() if isinstance(column, Tensor) else column


def _reader(columns: TableField) -> Callable[[Tensor], Any]:
    """The function that reads rows of a field."""
    if isinstance(columns, Tensor):
        # `index_select` reads uint8 frames at memory speed; `tensor[index]` is 2 to 10 times slower.
        return functools.partial(torch.index_select, columns, 0)
    if not isinstance(columns, dict):
        return columns.take
    if not in_memory(columns):
        return functools.partial(_read_together, columns)
    readers = map_tree(_reader, columns)
    return lambda index: map_tree(lambda read: read(index), readers)


def _read_together(columns: dict[str, TableField], index: Tensor) -> Any:
    """The rows at an index; each item of a source is read once for all columns that come from it."""
    by_source: dict[int, list[LazyColumn]] = {}
    for column in leaves(columns):
        if isinstance(column, LazyColumn):
            by_source.setdefault(id(column.source), []).append(column)
    rows: dict[int, list[Tensor]] = {}
    numbers = index.tolist()
    for together in by_source.values():
        rows |= {id(column): [] for column in together}
        for i in numbers:
            item = together[0].source[i]
            for column in together:
                rows[id(column)].append(column.convert(item))

    def taken(column: Column) -> Tensor:
        found = rows.get(id(column))
        taken: Tensor = _reader(column)(index) if found is None else torch.stack(found)
        return taken

    return map_tree(taken, columns)


def _taken(column: Column, index: Tensor, empty: Empty) -> Tensor:
    """The rows at an index, in memory from `empty`."""
    if not isinstance(column, Tensor):
        return column.take(index)
    dtype = torch.empty(0, dtype=column.dtype).numpy().dtype
    out: Any = torch.from_numpy(empty((len(index), *column.shape[1:]), np.dtype(dtype)))
    return torch.index_select(column, 0, index, out=out)
