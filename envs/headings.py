"""The names of a data frame's columns, by which later frames are put in the same order."""

from __future__ import annotations

from typing import Any

from ..replay import DataError
from ..replay.tree import walk
from .arrays import Headings
from .inputs import called
from .numbering import in_words


def headings(inputs: Any) -> tuple[str, ...] | None:
    """The column names of a data frame; None: it is not a data frame, or its columns have no names."""
    columns = getattr(inputs, "columns", None)
    if columns is None or not hasattr(type(inputs), "__getitem__"):
        return None
    return _distinct(columns)


def in_order(inputs: Any, known: tuple[str, ...] | None, name: str) -> Any:
    """A data frame, or a row of one, with the columns that a run was trained on, in their order.

    Other inputs are returned unchanged.

    Args:
        known: The names of those columns; None: they had none.
        name: What errors call the inputs.

    Raises:
        DataError: If a column is missing.
    """
    if known is None:
        return inputs
    row = type(inputs).__name__ == "Series" and hasattr(inputs, "index")  # Of pandas's.
    found = _distinct(inputs.index) if row else headings(inputs)
    if found is None or found == known:
        return inputs
    if missing := [column for column in known if column not in found]:
        raise DataError(
            f"{name[:1].upper()}{name[1:]} lack the column {missing[0]!r}. The run was trained on the "
            f"columns {in_words(known)}; these are {in_words(found)}."
        )
    return inputs[list(known)]


def check_order(first: Headings, other: Headings, name: str, other_name: str) -> None:
    """Raise DataError for two data frames whose columns are the same in another order."""
    others = dict(walk(other))
    for path, columns in walk(first):
        found = others.get(path)
        if columns is None or found is None or columns == found or set(columns) != set(found):
            continue
        where = f" in{called(path)}" if path else ""
        raise DataError(
            f"{name} has the columns {in_words(columns)}{where}, {other_name} has them in another order: "
            f"{in_words(found)}. Give all data frames of a run with their columns in one order."
        )


def _distinct(labels: Any) -> tuple[str, ...] | None:
    """Labels of columns, if they are names that tell the columns apart."""
    names = tuple(labels)
    named = len(names) > 0 and all(isinstance(name, str) for name in names)
    return names if named and len(set(names)) == len(names) else None
