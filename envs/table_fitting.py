"""Decides from the training rows of a table which columns are numbers and which are categories."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..replay import ConfigError, DataError
from ..replay.spec import TargetKind
from ..replay.suggestions import did_you_mean
from .arrow import pyarrow
from .table_columns import (
    Category,
    Column,
    Columns,
    Number,
    as_numbers,
    as_words,
    begin,
    columns_in_words,
    missing_in_words,
    number_dtype,
    time_of,
)

if TYPE_CHECKING:
    import pyarrow as pa

# A column of words with more different values than this, in more than half of the rows, tells rows
# apart instead of grouping them.
_MANY = 20
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")  # `1,234` may also be a decimal number.
# If this share of a column's words read as numbers, it holds numbers, and the others are marks.
_MOSTLY = 0.8


@dataclass(frozen=True)
class Wishes:
    """What the settings say of a table.

    Attributes:
        target: The columns to predict; None: not given.
        target_type: What whole numbers in the target are: "classes", "values", or None.
        inputs: The columns that a model receives; None: all but the target.
        drop: Columns that it does not receive.
        categories: Columns of numbers or many words that are categories.
        missing: "mean", "flag", or None: missing values are an error.
        wanted: What targets of 0 and 1 in several columns are, as the loss says; or None.
    """

    target: tuple[str, ...] | None = None
    target_type: str | None = None
    inputs: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    missing: str | None = None
    wanted: TargetKind | None = None


def input_names(names: list[str], target: tuple[str, ...], wishes: Wishes, name: str) -> list[str]:
    """The columns of a table that a model receives, in the table's order or in that of `inputs=`.

    Raises:
        ConfigError: If a setting names a column that the table lacks, the target is among the inputs, or
            none are left; every mistake at once.
    """
    mistakes = []
    given = {"target": target, "inputs": wishes.inputs or (), "drop": wishes.drop}
    for setting, columns in (given | {"categories": wishes.categories}).items():
        mistakes += [
            f"{setting}={column}: {name} has no such column.{did_you_mean(column, names)} "
            f"It has {columns_in_words(names)}."
            for column in columns
            if column not in names
        ]
    for setting in ("inputs", "drop"):
        if both := [column for column in target if column in given[setting]]:
            mistakes.append(
                f"{columns_in_words(both)} is both in target= and in {setting}=: the target is never "
                "among the inputs."
            )
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    out = {*target, *wishes.drop}
    inputs = [column for column in (wishes.inputs or names) if column not in out]
    if not inputs:
        raise ConfigError(
            f"{begin(name)} has no column beside the target: there is nothing to learn from."
        )
    if unread := [column for column in wishes.categories if column not in inputs]:
        raise ConfigError(
            f"categories= names {columns_in_words(unread)}, which is not among the inputs."
        )
    return inputs


def fit(table: pa.Table, wishes: Wishes, name: str) -> tuple[Columns, list[str]]:
    """How the columns of a table become inputs, by its rows, and remarks for the run's header.

    Args:
        table: The training rows of the columns that a model receives.

    Raises:
        DataError: For missing values without `missing=`, columns that are neither numbers nor
            categories, and words that tell rows apart; every mistake at once.
    """
    arrow = pyarrow(name)
    seen = _Seen(table, wishes, name, arrow)
    for column in table.column_names:
        seen.look_at(column)
    if seen.missing and wishes.missing is None:
        seen.mistakes.insert(0, missing_in_words(seen.missing, table.num_rows, name))
    if seen.mistakes:
        raise DataError("\n".join(seen.mistakes))
    found: list[Column] = [*seen.numbers, *seen.categories]
    flags = any(column.flagged for column in found)
    types = [table.schema.field(column.name).type for column in seen.numbers]
    filled = flags or any(column.name in seen.missing for column in seen.numbers)
    dtype = number_dtype(types, filled=filled)
    columns = Columns(tuple(seen.numbers), tuple(seen.categories), dtype)
    return columns, _notes(seen, columns)


class _Seen:
    """The columns that were looked at, and what is wrong with them."""

    def __init__(self, table: pa.Table, wishes: Wishes, name: str, arrow: Any):
        self.table, self.wishes, self.name, self.arrow = table, wishes, name, arrow
        self.numbers: list[Number] = []
        self.categories: list[Category] = []
        self.missing: dict[str, int] = {}
        self.mistakes: list[str] = []
        self.constant: list[str] = []
        self.counting: list[str] = []

    def look_at(self, name: str) -> None:
        """Add a column to the numbers or to the categories, or a mistake."""
        types, column = self.arrow.types, self.table[name]
        kind = column.type
        held = kind.value_type if types.is_dictionary(kind) else kind
        if len(column) == column.null_count:
            self.mistakes.append(
                f"Column `{name}` of {self.name} is empty: drop=[{name}] leaves it out."
            )
        elif types.is_nested(held) or isinstance(held, self.arrow.ExtensionType):
            self._refuse(name)
        elif name in self.wishes.categories or _is_words(kind, types) or types.is_dictionary(kind):
            self._category(name)
        elif (
            types.is_integer(kind)
            or types.is_floating(kind)
            or types.is_boolean(kind)
            or types.is_decimal(kind)
            or types.is_temporal(kind)
        ):
            self._number(name)
        else:
            self._refuse(name)

    def _refuse(self, name: str) -> None:
        self.mistakes.append(
            f"Column `{name}` of {self.name} holds {self.table[name].type}, neither numbers nor words. "
            f"drop=[{name}] leaves it out; for arrays, give a pair (inputs, targets)."
        )

    def _number(self, name: str) -> None:
        values = as_numbers(self.table[name], f"`{name}` of {self.name}")
        lacks = np.isnan(values)
        count = int(lacks.sum())
        held = values[~lacks] if count else values
        if not len(held):
            self.mistakes.append(
                f"Column `{name}` of {self.name} is empty: drop=[{name}] leaves it out."
            )
            return
        if count:
            self.missing[name] = count
        if held[0] == held[-1] and (held == held[0]).all():
            self.constant.append(name)
        elif len(held) > 2 and held[1] - held[0] == 1 and (np.diff(held) >= 1).all():
            self.counting.append(name)
        # Computed from finite numbers only: infinite ones are an error later.
        finite = held[np.isfinite(held)]
        mean = float(finite.mean()) if self.wishes.missing and len(finite) else None
        time = time_of(self.table[name].type)
        self.numbers.append(Number(name=name, fill=mean, flagged=self._flags(count), time=time))

    def _category(self, name: str) -> None:
        words = as_words(self.table[name])
        counts = self.arrow.compute.value_counts(words)
        values: list[str | None] = counts.field("values").to_pylist()
        known = sorted(value for value in values if value is not None)
        rows, meant = len(words) - words.null_count, name in self.wishes.categories
        if not known:
            self.mistakes.append(
                f"Column `{name}` of {self.name} is empty: drop=[{name}] leaves it out."
            )
            return
        if not meant and (mark := _numbers_as_words(known)) is not None:
            self.mistakes.append(_as_words_although(name, known, mark, self.name))
            return
        if not meant and len(known) > _MANY and len(known) > rows / 2:
            self.mistakes.append(_tells_apart(name, known, rows, self.name))
            return
        if words.null_count:
            self.missing[name] = words.null_count
        if len(known) == 1 and not words.null_count:
            self.constant.append(name)
        own = len(known) + 1 if words.null_count else 0
        fill = None if self.wishes.missing is None else own
        flagged = self._flags(words.null_count)
        self.categories.append(Category(name=name, values=tuple(known), fill=fill, flagged=flagged))

    def _flags(self, missing: int) -> bool:
        return self.wishes.missing == "flag" and missing > 0


def _is_words(kind: pa.DataType, types: Any) -> bool:
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or (hasattr(types, "is_string_view") and types.is_string_view(kind))
    )


def _tells_apart(name: str, known: list[str], rows: int, table: str) -> str:
    said = f"Column `{name}` of {table} has {len(known):,} different values in {rows:,} rows"
    if sum(map(len, known)) / len(known) > 20 and any(" " in value for value in known[:100]):
        return (
            f"{said}: text, rather than categories. Encode it as numbers first, or leave it out, "
            f"drop=[{name}]."
        )
    return (
        f"{said}: it names rows rather than groups them. Leave it out, drop=[{name}], or say that it holds "
        f"categories, categories=[{name}]."
    )


def _numbers_as_words(known: list[str]) -> list[str] | None:
    """The words among them that are not numbers, if most are; else None."""
    if len(known) < 3:
        return None
    others = [value for value in known if not _reads_as_number(value)]
    return others if len(others) <= (1 - _MOSTLY) * len(known) else None


def _reads_as_number(value: str) -> bool:
    plain = "" if _THOUSANDS.fullmatch(value) else "."
    try:
        float(value.replace(",", plain))
    except ValueError:
        return False
    return True


def _as_words_although(name: str, known: list[str], others: list[str], table: str) -> str:
    file = table.lower().removesuffix(".gz").endswith((".csv", ".tsv"))
    said = f"Column `{name}` of {table} holds numbers as words"
    if others:
        said += f", beside {', '.join(map(repr, others[:3]))}"
        fix = (
            f"If these stand for missing values, set dataset.na_values='{others[0]}'"
            if file
            else f"Convert it: pandas.to_numeric(table['{name}'], errors='coerce')"
        )
    elif commas := [value for value in known if "," in value]:
        said += f" ('{commas[0]}')"
        fix = (
            "Set dataset.decimal=','"
            if file
            else f"Convert it: table['{name}'].str.replace(',', '.').astype(float)"
        )
        if all(_THOUSANDS.fullmatch(value) for value in commas):
            fix = (
                "If its commas separate thousands, give the frame of pandas.read_csv(..., thousands=','). "
                f"If they are decimal: {fix[0].lower()}{fix[1:]}"
            )
    else:
        fix = f"Convert it: table['{name}'].astype(float)"
    return f"{said}. {fix}. If they are categories, set categories=[{name}]."


def _counted(columns: int, what: str) -> str:
    return f"{columns} {'column' if columns == 1 else 'columns'} {what}"


def _notes(seen: _Seen, columns: Columns) -> list[str]:
    parts = []
    if columns.numbers:
        parts.append(_counted(len(columns.numbers), "of numbers"))
    if columns.categories:
        of = [f"{column.name} {len(column.values)}" for column in columns.categories[:6]]
        more = ", ..." if len(columns.categories) > 6 else ""
        parts.append(_counted(len(columns.categories), f"of categories ({', '.join(of)}{more})"))
    notes = [" and ".join(parts)]
    if seen.missing:
        how = "the training mean, or a category of their own"
        count = sum(seen.missing.values())
        notes.append(
            f"{count:,} missing values in {columns_in_words([*seen.missing])} become {how}"
        )
    if seen.constant:
        notes.append(f"the same in every training row: {columns_in_words(seen.constant)}")
    if seen.counting:
        names = columns_in_words(seen.counting)
        notes.append(
            f"{names} only rises from row to row (drop= leaves it out, if it numbers the rows)"
        )
    return notes
