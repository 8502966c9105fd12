"""How the columns of a table become a model's inputs: numbers, categories, and what is filled in.

column                              becomes
integers, floats, decimals, bools   a number
dates, times, durations             a number: seconds, since 1970 for dates
words, pandas's categories          a category: 0 for a value that training rows lack, 1 to n in sorted order
missing, with missing=mean          the training mean; for categories one of their own, n + 1
missing, with missing=flag          the same, and a further number, 0 or 1
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..replay import DataError, Space
from .arrow import pyarrow

if TYPE_CHECKING:
    import pyarrow as pa

NUMBERS, CATEGORIES = "numbers", "categories"
"""The parts of a model's inputs where a table has both."""

# Types whose values float32 holds exactly.
_NARROW = ("bool", "uint8", "int8", "uint16", "int16", "halffloat", "float")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column that a model receives.

    Attributes:
        flagged: Whether a further column of numbers says which values were missing.
    """

    name: str
    flagged: bool = False


@dataclass(frozen=True, kw_only=True)
class Number(Column):
    """A column of numbers.

    Attributes:
        fill: Stands for a missing value; None: there may be none.
        time: "dates", "times" or "durations", if it held those; None: plain numbers.
    """

    fill: float | None = None
    time: str | None = None


@dataclass(frozen=True, kw_only=True)
class Category(Column):
    """A column of categories.

    Attributes:
        values: The values of training rows as text, sorted: ids 1 to n.
        fill: The id of a missing value: n + 1, or 0 if none was missing in training; None: there may be none.
    """

    values: tuple[str, ...]
    fill: int | None = None

    @property
    def size(self) -> int:
        """The number of ids, with 0 for values that training rows lack."""
        return max(len(self.values), self.fill or 0) + 1


@dataclass(frozen=True)
class Columns:
    """The columns that a model receives, in order: plain data, which is kept with the model.

    Attributes:
        dtype: Of the numbers as they are read: "bool", "uint8", "float32" or "float64".
        left_out: The other columns of the table, the target among them.
        options: How its text file was read: its separator, ...
        words: The columns of the table that held words, the target among them.
    """

    numbers: tuple[Number, ...]
    categories: tuple[Category, ...]
    dtype: str
    left_out: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The columns that a table must have."""
        return [column.name for column in self._all]

    @property
    def _all(self) -> list[Column]:
        return [*self.numbers, *self.categories]

    @property
    def flags(self) -> bool:
        """Whether further columns say which values were missing."""
        return any(column.flagged for column in self._all)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of ids of each category."""
        return tuple(column.size for column in self.categories)

    def state(self) -> dict[str, Any]:
        """Plain data, from which `from_state` makes the same columns."""
        return {
            "numbers": [asdict(column) for column in self.numbers],
            "categories": [asdict(c) | {"values": list(c.values)} for c in self.categories],
            "dtype": self.dtype,
            "left_out": list(self.left_out),
            "options": dict(self.options),
            "words": list(self.words),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Columns:
        """The columns that `state` describes."""
        return cls(
            tuple(Number(**column) for column in state["numbers"]),
            tuple(Category(**c | {"values": tuple(c["values"])}) for c in state["categories"]),
            state["dtype"],
            tuple(state["left_out"]),
            state["options"],
            tuple(state.get("words", ())),
        )

    def check(self, table: pa.Table, name: str) -> None:
        """Raise DataError if a table lacks a column."""
        if lacks := [column for column in self.names if column not in table.column_names]:
            raise DataError(
                f"{begin(name)} lacks {columns_in_words(lacks)}, which the model was trained on. It has "
                f"{columns_in_words(table.column_names)}."
            )

    def strange(self, table: pa.Table) -> list[str]:
        """The categories of which no value in a table's rows, where it has any, is known from training."""
        found = []
        for column in self.categories:
            words = as_words(table[column.name])
            if words.null_count < len(words) and bool((places(words, column.values) < 0).all()):
                found.append(column.name)
        return found

    def encode(self, table: pa.Table, name: str, *, first: int = 0) -> Tensor | dict[str, Tensor]:
        """The inputs in a table's rows; its columns are found by name, and others are left out.

        Args:
            name: What errors call it.
            first: The number of its first row, for errors.

        Returns:
            Numbers `[N, F]`, or int64 `[N, K]` if all columns are categories, or a dict of both:
            `numbers` and `categories`.

        Raises:
            DataError: If a column is missing or holds something other than in training, or values are
                missing where none were expected.
        """
        self.check(table, name)
        missing: dict[str, int] = {}
        numbers = self._numbers(table, name, missing, first)
        categories = self._categories(table, missing)
        if missing:
            raise DataError(missing_in_words(missing, table.num_rows, name))
        if numbers is None or categories is None:
            found = categories if numbers is None else numbers
            assert found is not None
            return found
        return {NUMBERS: numbers, CATEGORIES: categories}

    def _numbers(
        self, table: pa.Table, name: str, missing: dict[str, int], first: int
    ) -> Tensor | None:
        flagged = [column for column in self._all if column.flagged]
        width = len(self.numbers) + len(flagged)
        if not width:
            return None
        # A column after the other: the matrix is transposed at the end, as rows are gathered.
        matrix = np.empty((width, table.num_rows), self.dtype)
        flags = iter(range(len(self.numbers), width))
        for place, column in enumerate(self.numbers):
            what = f"`{column.name}` of {name}"
            values = as_numbers(_as_in_training(table[column.name], column, what), what)
            lacks = np.isnan(values)
            if lacks.any():
                if column.fill is None:
                    missing[column.name] = int(lacks.sum())
                    values = np.where(lacks, 0.0, values)
                else:
                    values = np.where(lacks, column.fill, values)
            if not np.isfinite(values).all():
                rows = (~np.isfinite(values)).nonzero()[0]
                raise DataError(
                    f"Column `{column.name}` of {name} holds infinite numbers in {len(rows)} of "
                    f"{len(values)} rows (first: row {rows[0] + first}). Replace them or drop these rows."
                )
            matrix[place] = values
            if column.flagged:
                matrix[next(flags)] = lacks
        for category in self.categories:
            if category.flagged:
                matrix[next(flags)] = table[category.name].is_null().to_numpy()
        return torch.from_numpy(np.ascontiguousarray(matrix.T))

    def _categories(self, table: pa.Table, missing: dict[str, int]) -> Tensor | None:
        if not self.categories:
            return None
        matrix = np.empty((len(self.categories), table.num_rows), np.int64)
        for place, column in enumerate(self.categories):
            words = as_words(table[column.name])
            matrix[place] = places(words, column.values) + 1
            if not words.null_count:
                continue
            if column.fill is None:
                missing[column.name] = words.null_count
            else:
                matrix[place][words.is_null().to_numpy()] = column.fill
        return torch.from_numpy(np.ascontiguousarray(matrix.T))


def with_sizes(obs: Space | dict[str, Space], columns: Columns) -> Space | dict[str, Space]:
    """The space of a table's inputs, in which that of categories says how many ids each column has.

    Categories stay ids whatever `standardize` says, and ids that no row has may come later.
    """
    if not columns.categories:
        return obs
    if not isinstance(obs, Space):
        return {**obs, CATEGORIES: _sized(obs[CATEGORIES], columns.sizes)}
    return _sized(obs, columns.sizes)


def _sized(space: Space, sizes: tuple[int, ...]) -> Space:
    assert space.mean is not None
    assert space.stddev is not None
    most = max(sizes)
    return Space(
        space.shape,
        torch.int64,
        0,
        most - 1,
        space.mean.float(),
        space.stddev.float(),
        ids=most,
        nvec=sizes,
    )


def as_numbers(column: pa.ChunkedArray, what: str) -> np.ndarray:
    """A column as float64 `[N]`, NaN where a value is missing; dates and times in seconds.

    Raises:
        DataError: If it holds no numbers.
    """
    arrow = pyarrow(what)
    types, kind = arrow.types, column.type
    try:
        if types.is_temporal(kind):
            return _seconds(column, arrow)
        if types.is_dictionary(kind):
            column = column.cast(kind.value_type)
        return np.asarray(column.cast(arrow.float64(), safe=False).to_numpy(), np.float64)
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError) as error:
        raise DataError(
            f"Column {what} holds {kind}, not numbers as in training ({str(error).splitlines()[0]})."
        ) from error


def time_of(kind: pa.DataType) -> str | None:
    """Whether a type is one of "dates", "times" or "durations"; None: any other type."""
    types = pyarrow("A table").types
    if types.is_date(kind) or types.is_timestamp(kind):
        return "dates"
    if types.is_time(kind):
        return "times"
    return "durations" if types.is_temporal(kind) else None


def _as_in_training(values: pa.ChunkedArray, column: Number, what: str) -> pa.ChunkedArray:
    """Values as a column of numbers had them: dates may be written as words.

    Raises:
        DataError: If they are dates but those in training were not, or the other way round: what the
            numbers count is unknown.
    """
    arrow = pyarrow(what)
    types, kind, want = arrow.types, values.type, column.time
    if want == time_of(kind) or types.is_null(kind):
        return values
    if want == "dates" and str(kind) in ("string", "large_string", "string_view"):
        for zone in (None, "UTC"):  # Without an offset, or with one.
            with suppress(arrow.ArrowInvalid):
                return values.cast(arrow.timestamp("us", zone))
    if want is None and time_of(kind) is None:
        return values
    fix = " Convert it: pandas.to_datetime(...)." if want == "dates" else ""
    raise DataError(
        f"Column {what} holds {time_of(kind) or kind}, and held {want or 'numbers'} in training.{fix}"
    )


def as_words(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as text: 3 and 3.0 are `3`; null where a value is missing."""
    arrow = pyarrow("A table")
    if arrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if arrow.types.is_floating(column.type):
        column = arrow.compute.if_else(arrow.compute.is_nan(column), None, column)
    return column.cast(arrow.large_string())


def places(words: pa.ChunkedArray, values: tuple[str, ...]) -> np.ndarray:
    """The place of each word in `values`, int64 `[N]`; -1 for one that is not there."""
    arrow = pyarrow("A table")
    found = arrow.compute.index_in(words, value_set=arrow.array(values, arrow.large_string()))
    return np.asarray(found.fill_null(-1).to_numpy(), np.int64)


def number_dtype(types: list[pa.DataType], *, filled: bool) -> str:
    """The dtype that holds the numbers of columns of these types.

    Args:
        filled: Whether a mean stands for missing values, or a column is a flag.
    """
    names = {str(kind) for kind in types}
    if not filled and names in ({"bool"}, {"uint8"}):
        return names.pop()
    return "float32" if names <= {*_NARROW} else "float64"


def begin(name: str) -> str:
    """What errors call a table at the start of a sentence: `The table`; a file keeps its name."""
    return f"T{name[1:]}" if name.startswith("the ") else name


def columns_in_words(names: list[str]) -> str:
    """`age`, `city` and 12 others."""
    shown = ", ".join(f"`{name}`" for name in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} others"


def missing_in_words(missing: Mapping[str, int], rows: int, name: str) -> str:
    """The error for missing values, with the number in each column."""
    counted = [f"`{column}` {count:,}" for column, count in missing.items()]
    more = f" and {len(counted) - 8} other columns" if len(counted) > 8 else ""
    return (
        f"{begin(name)} has missing values: {', '.join(counted[:8])}{more} of {rows:,} rows. Fill them in, "
        "leave columns out (drop=[...]), or set missing=mean (the training mean; for categories one of their "
        "own) or missing=flag (also a column of 0 and 1)."
    )


def _seconds(column: pa.ChunkedArray, arrow: Any) -> np.ndarray:
    types, kind = arrow.types, column.type
    if types.is_date(kind):
        column, unit = column.cast(arrow.timestamp("us")), 1e6
    elif types.is_time32(kind):
        column, unit = column.cast(arrow.time64("us")), 1e6
    else:
        unit = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
    whole = column.cast(arrow.int64())
    lacks = whole.is_null().to_numpy()
    values = np.asarray(whole.fill_null(0).to_numpy(), np.float64) / unit
    return np.where(lacks, np.nan, values)
