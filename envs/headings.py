"""The names of a data frame's columns, by which later frames are put in the same order."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from ..replay import DataError
from ..replay.tree import walk
from .arrays import Headings
from .inputs import called

Names = tuple[str | int, ...]


def headings(inputs: Any) -> Names | None:
    """The column names of a data frame; None: it is not a data frame, or they do not tell columns apart."""
    columns = getattr(inputs, "columns", None)
    if columns is None or not hasattr(type(inputs), "__getitem__"):
        return None
    return _distinct(columns)


def in_order(inputs: Any, known: Names | None, name: str) -> Any:
    """A data frame, or a row of one, with the columns that a run was trained on, in their order.

    Other inputs are returned unchanged, and so are frames that pandas numbered where there were names, or
    the other way round: their columns are in the order in which somebody put them.

    Args:
        known: The names of those columns; None: they had none.
        name: What errors call the inputs.

    Raises:
        DataError: If a column is missing.
    """
    row = type(inputs).__name__ == "Series" and hasattr(inputs, "index")  # Of pandas's.
    found = _distinct(inputs.index) if row else headings(inputs)
    known = _known(known, found)
    if found is None or known is None or found == known:
        return inputs
    missing = [column for column in known if column not in found]
    if missing and (_numbered(known) or _numbered(found)):
        return inputs
    if missing:
        raise DataError(
            f"{name[:1].upper()}{name[1:]} lack the column {missing[0]!r}. The run was trained on the "
            f"columns {_in_words(known)}; these are {_in_words(found)}."
        )
    if not hasattr(inputs, "iloc"):
        return inputs[list(known)]
    # By place, as pandas would take truth values for a choice of rows.
    places = [found.index(column) for column in known]
    return inputs.iloc[places] if row else inputs.iloc[:, places]


def check_order(
    first: Headings, other: Headings, name: str, other_name: str, *, same: bool = False
) -> None:
    """Raise DataError for two data frames whose columns are the same in another order.

    Args:
        same: Whether other columns are an error too: tasks may have columns of their own, held-out rows not.
    """
    others = dict(walk(other))
    for path, columns in walk(first):
        found = others.get(path)
        columns = _known(columns, found)
        if columns is None or found is None or columns == found:
            continue
        has = f"{name} has the columns {_in_words(columns)}{f' in{called(path)}' if path else ''}"
        if set(columns) == set(found):
            raise DataError(
                f"{has}, {other_name} has them in another order: {_in_words(found)}. Give all data frames of "
                "a run with their columns in one order."
            )
        if same and not _numbered(columns) and not _numbered(found):
            raise DataError(
                f"{has}, {other_name} has {_in_words(found)}. Give it the same columns."
            )


def _known(names: Names | None, others: Names | None) -> Names | None:
    """Names of columns; where there are none, those that pandas gives, if others are the same numbers."""
    if names is None and others is not None and set(others) == set(range(len(others))):
        return tuple(range(len(others)))
    return names


def _numbered(names: Names) -> bool:
    """Whether names are those that pandas gives to columns without any."""
    return names == tuple(range(len(names)))


def _in_words(names: Names) -> str:
    shown = ", ".join(map(str, names[:8]))
    return shown if len(names) <= 8 else f"{shown}, ... ({len(names):,} in all)"


def _distinct(labels: Any) -> Names | None:
    """Labels of columns, if they are names or numbers that tell the columns apart."""
    names = tuple(int(x) if isinstance(x, Integral) else x for x in labels)
    named = len(names) > 0 and all(isinstance(name, (str, int)) for name in names)
    return names if named and len(set(names)) == len(names) else None
