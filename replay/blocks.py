"""The columns of a replay as they are saved: a part at a time, in blocks that may have been saved before."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

# Bytes that are copied at once, at most (one row of every environment is always read as a whole).
PART = 8 * 2**20
# Bytes of a block: few enough that a save writes little more than what has changed,
BLOCK = 16 * 2**20
# and blocks of a replay: each is a file.
_MOST_BLOCKS = 128

Field = tuple[tuple[int, ...], np.dtype[Any]]


class SavedColumns(Mapping[str, "SavedColumn"]):
    """The filled rows of named columns, read only when they are needed.

    Args:
        fields: Shape and dtype of one row of each column.
        rows: Number of filled rows.
        read: Returns rows `start` to `stop` of a column, `[stop - start, *shape]`.
        block_rows: Rows per block; the last one may have fewer.
        align: `start` and `stop` are multiples of it.
        mark: Names this state of the rows, so that a later one can say what has changed since.
        changed_since: Returns the numbers of the blocks that have changed since a mark; None for marks it
            does not know.
    """

    def __init__(
        self,
        fields: Mapping[str, Field],
        rows: int,
        read: Callable[[str, int, int], np.ndarray],
        *,
        block_rows: int,
        align: int = 1,
        mark: str = "",
        changed_since: Callable[[str], Collection[int] | None] = lambda mark: None,
    ):
        self.fields, self.rows, self.read = dict(fields), rows, read
        self.block_rows, self.align = block_rows, align
        self.mark, self.changed_since = mark, changed_since

    def __getitem__(self, name: str) -> SavedColumn:
        return SavedColumn(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __reduce__(self) -> Any:
        # Copied or pickled, it is a dict of arrays.
        return dict, ([(name, np.array(column)) for name, column in self.items()],)

    @property
    def nbytes(self) -> int:
        """Size of the filled rows in bytes."""
        return self.rows * sum(map(field_bytes, self.fields.values()))

    @property
    def num_blocks(self) -> int:
        return -(-self.rows // self.block_rows)

    def bounds(self, block: int) -> tuple[int, int]:
        """The first row of a block, and the one after its last."""
        start = block * self.block_rows
        return start, min(start + self.block_rows, self.rows)


class SavedColumn:
    """One of the `SavedColumns`. `np.asarray` reads all of it; `parts` a little at a time.

    Attributes:
        shape: `(rows, *shape)`.
        dtype: Of its values.
    """

    def __init__(self, columns: SavedColumns, name: str):
        self._columns, self._name = columns, name
        shape, self.dtype = columns.fields[name]
        self.shape = (columns.rows, *shape)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        parts = [part for _, part in self.parts()]
        whole = np.concatenate(parts) if parts else np.empty(self.shape, self.dtype)
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, rows: Any) -> np.ndarray:
        found: np.ndarray = np.asarray(self)[rows]
        return found

    def parts(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Rows `start` to `stop`, a few at a time, each with the number of its first row."""
        stop, align = len(self) if stop is None else stop, self._columns.align
        step = max(1, PART // max(1, field_bytes((self.shape[1:], self.dtype)) * align)) * align
        for first in range(start, stop, step):
            last = min(first + step, stop)
            yield first, self._columns.read(self._name, first, last)


def parts_of(column: Any) -> Iterator[tuple[int, np.ndarray]]:
    """A column, an array or a `SavedColumn`, a few rows at a time, each with the number of its first row."""
    if isinstance(column, SavedColumn):
        yield from column.parts()
        return
    array = np.asarray(column)
    step = max(1, PART // max(1, field_bytes((array.shape[1:], array.dtype))))
    for first in range(0, len(array), step):
        yield first, array[first : first + step]


def field_bytes(field: Field) -> int:
    shape, dtype = field
    return prod(shape) * dtype.itemsize


def rows_per_block(fields: Mapping[str, Field], rows: int, num_envs: int) -> int:
    """Rows of a block in a ring of `rows` rows: a multiple of the number of environments."""
    one = max(1, sum(map(field_bytes, fields.values())))
    target = max(BLOCK, one * rows // _MOST_BLOCKS)
    return max(1, target // (one * num_envs)) * num_envs


def changed_blocks(
    place: Sequence[int], steps: Sequence[int], *, length: int, block: int
) -> set[int]:
    """The blocks of a ring that were written to.

    Args:
        place: The newest place that each environment has written to, `[N]`.
        steps: How many places it has written to, up to that one, `[N]`.
        length: Places in the ring.
        block: Places in a block.
    """
    changed: set[int] = set()
    for newest, count in set(zip(map(int, place), map(int, steps), strict=True)):
        oldest = newest - min(count, length) + 1
        spans = [(oldest, newest)] if oldest >= 0 else [(0, newest), (oldest + length, length - 1)]
        changed.update(
            itertools.chain.from_iterable(range(a // block, b // block + 1) for a, b in spans)
        )
    return changed
