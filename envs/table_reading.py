"""Raw rows of a table as the rows that a run stores: for predictions, with columns matched by name."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..replay import DataError, Space
from ..replay.tree import zip_trees
from .arrow import as_arrow, is_text, pyarrow, read_file, table_suffix
from .forms import is_scalar, is_table
from .table_columns import Columns, begin, columns_in_words

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor


_TABLE = "the table"  # What errors call one that has no name.


class TableRows:
    """Rows of a table as stored rows, encoded a part at a time.

    Attributes:
        files: None, as the rows come from no pictures.
    """

    files = None

    def __init__(
        self, columns: Columns, space: Space | dict[str, Space], table: pa.Table, name: str
    ):
        self._columns, self._space, self._name = columns, space, name
        if unknown := [
            c for c in table.column_names if c not in (*columns.names, *columns.left_out)
        ]:
            warnings.warn(
                f"{begin(name)} has columns that the run was not trained with, and that are ignored: "
                f"{columns_in_words(unknown)}.",
                stacklevel=2,
            )
        # Before the first part is encoded: columns that are missing are named at once.
        columns.check(table, name)
        self._table = table.select(columns.names)
        if strange := columns.strange(self._table):
            warnings.warn(
                f"No value in {columns_in_words(strange)} of {name} occurred in training: the model has "
                "learnt nothing about them.",
                stacklevel=2,
            )

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def parts(self, size: int) -> Iterator[Any]:
        """Stored rows, at most `size` at a time, in order; if there are none, one empty part.

        Raises:
            DataError: If a part holds something other than the training rows did.
        """
        for first in range(0, len(self), size) or (0,):
            found = self._columns.encode(self._table.slice(first, size), self._name, first=first)
            yield zip_trees(_stored, self._space, found)


def table_rows(
    columns: Columns, space: Space | dict[str, Space], inputs: Any, name: str
) -> TableRows | None:
    """The rows of a table; None: the inputs are an array of the columns' numbers, in their order.

    Args:
        inputs: A data frame, the path of a file, a dict by column (of lists, or of the values of a single
            row), a list of such dicts, or a row of a data frame.
        name: What errors call them.

    Raises:
        DataError: If they are none of these.
    """
    if isinstance(inputs, (str, Path)) and table_suffix(inputs) is not None:
        path = Path(inputs).expanduser()
        if not path.is_file():
            raise DataError(f"There is no file {path} (looked in {path.parent.resolve()}).")
        table, _ = read_file(path, columns.options if is_text(path) else {}, columns.words)
        return TableRows(columns, space, table, path.name)
    if is_table(inputs):
        return TableRows(columns, space, as_arrow(inputs, _TABLE), _TABLE)
    if type(inputs).__name__ == "Series" and hasattr(inputs, "to_dict"):  # A row of pandas's.
        inputs = inputs.to_dict()
    if isinstance(inputs, Mapping):
        single = not any(
            hasattr(value, "__len__") and not is_scalar(value) for value in inputs.values()
        )
        inputs = [inputs] if single else inputs
    rows = (
        isinstance(inputs, (list, tuple))
        and len(inputs) > 0
        and all(isinstance(row, Mapping) for row in inputs)
    )
    if rows or isinstance(inputs, Mapping):
        return TableRows(columns, space, _from_python(inputs), _TABLE)
    if columns.categories or columns.flags:
        raise DataError(
            f"{name[0].upper()}{name[1:]} are a {type(inputs).__name__}. The run was trained on a "
            f"table: give a data frame, a file or dicts with the columns {columns_in_words(columns.names)}."
        )
    return None


def _from_python(rows: Any) -> pa.Table:
    arrow = pyarrow(_TABLE)
    try:
        if not isinstance(rows, Mapping):
            names = dict.fromkeys(key for row in rows for key in row)
            rows = {key: [_plain(row.get(key)) for row in rows] for key in names}
        # As pandas has it, NaN is a missing value among words too.
        columns = {str(key): arrow.array(value, from_pandas=True) for key, value in rows.items()}
        return arrow.table(columns)
    except (arrow.ArrowException, ValueError, TypeError) as error:
        raise DataError(f"The inputs are not columns of a table: {error}") from error


def _plain(value: Any) -> Any:
    """A single number or time of NumPy's or torch's as Python's own, which Arrow knows."""
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return value.astype(f"{value.dtype.kind}8[us]").item()  # `item` of nanoseconds is a number.
    return value.item() if is_scalar(value) and hasattr(value, "item") else value


def _stored(space: Space, column: Tensor) -> Tensor:
    return column.to(space.dtype) if space.scale is None else space.scale.column(column)
