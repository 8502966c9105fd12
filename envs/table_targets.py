"""The target columns of a table: classes, or values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..replay import ConfigError, DataError
from .arrow import pyarrow
from .table_columns import as_numbers, as_words, columns_in_words, places

if TYPE_CHECKING:
    import pyarrow as pa

_FEW = 20  # Up to so many different whole numbers are classes; more may be amounts.


@dataclass(frozen=True)
class Targets:
    """The targets of a table's rows.

    Attributes:
        rows: int64 `[N]` classes; float32 or float64 `[N]` or `[N, K]` values; int64 `[N, K]` of 0 and 1.
        words: The word that each class stands for; None: classes are numbers.
        note: A remark on them, or None.
    """

    rows: Tensor
    words: tuple[Any, ...] | None = None
    note: str | None = None


def read_columns(table: pa.Table, names: tuple[str, ...], kind: str | None, name: str) -> Targets:
    """The targets in these columns.

    Args:
        kind: What whole numbers are: "classes", "values", or None: classes, if they are few.

    Raises:
        DataError: If targets are missing, or neither classes nor values; or if it is unclear which.
    """
    if missing := {n: count for n in names if (count := _missing(table[n]))}:
        counted = ", ".join(f"`{n}` in {count:,}" for n, count in missing.items())
        raise DataError(
            f"The target of {name} is missing: {counted} of {table.num_rows:,} rows. Drop these rows."
        )
    if len(names) == 1:
        return _single(table[names[0]], names[0], kind, name)
    return _several(table, names, kind, name)


def _single(column: pa.ChunkedArray, target: str, kind: str | None, name: str) -> Targets:
    types = pyarrow(name).types
    held = column.type.value_type if types.is_dictionary(column.type) else column.type
    said = f"target={target}"
    if types.is_boolean(held):
        rows = _numbers(column, f"`{target}` of {name}")
        return Targets(rows) if kind == "values" else Targets(rows.long(), (False, True))
    if types.is_integer(held):
        rows = _numbers(column, f"`{target}` of {name}")
        if kind == "values":
            return Targets(rows)
        if kind is None:
            _check_few(rows, target, name)
        return Targets(rows.long())
    if types.is_floating(held) or types.is_decimal(held) or types.is_temporal(held):
        rows = _numbers(column, f"`{target}` of {name}")
        if kind == "classes":
            if not torch.equal(rows, rows.round()):
                raise DataError(f"{said} of {name} holds fractions, which are not classes.")
            return Targets(rows.long())
        return Targets(rows.float() if str(held) in ("float", "halffloat") else rows)
    if types.is_string(held) or types.is_large_string(held) or str(held) == "string_view":
        if kind == "values":
            raise DataError(f"{said} of {name} holds words, so target_type=values does not apply.")
        words = as_words(column)
        known = tuple(sorted(pyarrow(name).compute.unique(words).to_pylist()))
        return Targets(torch.from_numpy(places(words, known)), known)
    raise DataError(f"{said} of {name} holds {column.type}: neither classes nor values.")


def _several(table: pa.Table, names: tuple[str, ...], kind: str | None, name: str) -> Targets:
    types = pyarrow(name).types
    held = [table[column].type for column in names]
    wrong = [
        column
        for column, t in zip(names, held, strict=True)
        if not (
            types.is_boolean(t)
            or types.is_integer(t)
            or types.is_floating(t)
            or types.is_decimal(t)
        )
    ]
    if wrong:
        raise DataError(
            f"target= names {len(names)} columns of {name}, which are learnt as values, but "
            f"there are no numbers in {columns_in_words(wrong)}. Several columns of classes are not "
            "supported: learn them one at a time."
        )
    if kind == "classes":
        raise ConfigError(
            "target_type=classes needs a single target column; several are values, or labels of 0 and 1."
        )
    rows = np.stack([as_numbers(table[column], f"`{column}` of {name}") for column in names], 1)
    targets = torch.from_numpy(rows)
    whole = all(types.is_boolean(t) or types.is_integer(t) for t in held)
    if whole and kind is None and bool(((targets == 0) | (targets == 1)).all()):
        return Targets(targets.long())
    if all(str(t) in ("float", "halffloat") for t in held):
        targets = targets.float()
    note = f"whole numbers in {len(names)} target columns are learnt as values" if whole else None
    return Targets(targets, note=note)


def _check_few(rows: Tensor, target: str, name: str) -> None:
    """Raise DataError for whole numbers that may be amounts."""
    found = rows.unique()
    counted = float(found[0]) == 0 and float(found[-1]) == len(found) - 1
    if len(found) <= _FEW or (counted and len(found) <= len(rows) / _FEW):
        return
    raise DataError(
        f"target={target} of {name} holds {len(found):,} different whole numbers, from {int(found[0])} to "
        f"{int(found[-1])}: amounts, or classes? Set target_type=values for regression, or "
        "target_type=classes."
    )


def _numbers(column: pa.ChunkedArray, what: str) -> Tensor:
    # A copy: torch warns of Arrow's own memory, which is read-only.
    return torch.from_numpy(np.array(as_numbers(column, what)))


def _missing(column: pa.ChunkedArray) -> int:
    arrow = pyarrow("A table")
    count = int(column.null_count)
    if arrow.types.is_floating(column.type):
        count += int(arrow.compute.sum(arrow.compute.is_nan(column)).as_py() or 0)
    return count
