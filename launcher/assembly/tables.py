"""Reads the tables among the data sets of a plan."""

from __future__ import annotations

from collections.abc import Sequence

from ...envs.arrays import Arrays
from ...envs.joining import with_held_out
from ...envs.later import are_numbers
from ...envs.numbering import number_labels
from ...envs.table_columns import Columns
from ...envs.table_fitting import Wishes
from ...envs.tables import Pair, Table, encoded, with_inputs
from ...replay import ConfigError
from ..settings.plan import Plan
from .open_data import Opened, Tables, wishes_of
from .subset import choose_subset


def table_to_evaluate(part: Opened, wishes: Wishes, columns: Columns | None) -> Arrays:
    """The rows of a table to evaluate on, its own held-out part if it has one; labels stay unchanged.

    Raises:
        ConfigError: If it is not a table, or the run did not learn from one.
        DataError: If it lacks a column, or values are missing.
    """
    if columns is None or not isinstance(part.source, Tables):
        raise ConfigError(
            "The run learnt from a table: give one with the same columns."
            if columns is not None
            else "The run did not learn from a table: give data in the form that it learnt from."
        )
    table = part.source.held_out or part.source.train
    arrays = choose_subset(table.numbered(wishes), part.arguments)
    return encoded(arrays, table, wishes, columns)


def read_tables(
    parts: Sequence[Opened],
    others: Sequence[Opened] | None,
    plan: Plan,
    *,
    numbered: bool,
    known: Columns | None = None,
) -> tuple[list[Arrays], list[Arrays | None], list[str]] | None:
    """Training and held-out rows of each table, and notes; None: there are no tables.

    Args:
        others: Held-out data of each; None: their own, or a fixed fifth of their rows.
        numbered: Whether to map labels to int64 0 to n - 1; else numbers stay unchanged.
        known: The columns of a run that learns more data.

    Raises:
        ConfigError: If only some data sets are tables, or settings name unknown columns.
        DataError: If one cannot be learnt from.
    """
    wishes = wishes_of(plan)
    tables = [part.source for part in parts if isinstance(part.source, Tables)]
    if not tables:
        if known is not None:
            raise ConfigError("The run learns from tables: give a table with the same columns.")
        return None
    if len(tables) < len(parts):
        raise ConfigError("dataset= lists tables and other data sets. Give tables only, or none.")
    held_out: list[Table | None] = [table.held_out for table in tables]
    if others is not None:
        given = [part.source for part in others if isinstance(part.source, Tables)]
        if len(given) < len(others):
            raise ConfigError(
                "test_dataset= is not a table, but dataset= is. Give a data frame or a .csv, .parquet, "
                ".jsonl or .arrow file with the same columns."
            )
        held_out = [table.held_out or table.train for table in given]
    pairs = []
    for part, table, other in zip(parts, tables, held_out, strict=True):
        train = table.train.numbered(wishes)
        test = None if other is None else other.numbered(wishes)
        if numbered and (plan.num_classes is None or not are_numbers(train)):
            train, test = number_labels(train, test)
        train = choose_subset(train, part.arguments)
        test = None if test is None else choose_subset(test, part.arguments)
        pairs.append(Pair(*with_held_out(train, test), table.train, other or table.train))
    trains, tests, notes = with_inputs(pairs, wishes, known)
    read = [note for pair in pairs for note in (*pair.table.notes, *pair.held_out_table.notes)]
    return trains, [*tests], [*notes, *dict.fromkeys(read)]
