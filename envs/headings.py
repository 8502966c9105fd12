"""The names of a data frame's columns, by which later frames are put in the same order."""

from __future__ import annotations

from typing import Any

from ..replay import DataError
from .numbering import in_words


def headings(inputs: Any) -> tuple[str, ...] | None:
    """The column names of a data frame; None: it is not a data frame, or its columns have no names."""
    columns = getattr(inputs, "columns", None)
    if columns is None or not hasattr(type(inputs), "__getitem__"):
        return None
    names = tuple(columns)
    named = len(names) > 0 and all(isinstance(name, str) for name in names)
    return names if named and len(set(names)) == len(names) else None


def in_order(inputs: Any, known: tuple[str, ...] | None, name: str) -> Any:
    """A data frame with the columns that a run was trained on, in their order; other inputs unchanged.

    Args:
        known: The names of those columns; None: they had none.
        name: What errors call the inputs.

    Raises:
        DataError: If a column is missing.
    """
    found = None if known is None else headings(inputs)
    if known is None or found is None or found == known:
        return inputs
    if missing := [column for column in known if column not in found]:
        raise DataError(
            f"{name[:1].upper()}{name[1:]} lack the column {missing[0]!r}. The run was trained on the "
            f"columns {in_words(known)}; these are {in_words(found)}."
        )
    return inputs[list(known)]


def check_order(
    first: tuple[str, ...] | None, other: tuple[str, ...] | None, name: str, other_name: str
) -> None:
    """Raise DataError for two data frames whose columns are the same in another order."""
    if first is None or other is None or first == other or set(first) != set(other):
        return
    raise DataError(
        f"{name} has the columns {in_words(first)}, {other_name} has them in another order: "
        f"{in_words(other)}. Give all data frames of a run with their columns in one order."
    )
