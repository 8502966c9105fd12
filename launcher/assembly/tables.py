"""Reads the tables that the plan names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...envs.arrays import Arrays
from ...envs.arrow import as_arrow, read_file
from ...envs.forms import is_table
from ...envs.joining import with_held_out
from ...envs.numbering import number_labels
from ...envs.table_columns import Columns
from ...envs.table_fitting import Wishes
from ...envs.tables import Pair, Table, with_inputs
from ...replay import ConfigError
from ..settings.named import Named
from ..settings.plan import Plan
from .chosen import of_classes
from .torch_losses import targets_of

SETTINGS = ("target", "target_type", "inputs", "drop", "categories", "missing")
"""Settings of tables only."""


def read_tables(
    plan: Plan, *, numbered: bool, known: Columns | None = None
) -> tuple[list[Arrays], list[Arrays | None], list[str]] | None:
    """Training and held-out rows of each table, and notes; None: the plan names no tables.

    Args:
        numbered: Whether to map labels to int64 0 to n - 1; else they stay unchanged.
        known: The columns of a run that learns more data.

    Raises:
        ConfigError: If only some data sets are tables, or settings name unknown columns.
        DataError: If one cannot be read.
    """
    parts = plan.dataset or ()
    tables = [_open(named) for named in parts]
    if not any(tables):
        if known is not None:
            raise ConfigError("The run learns from tables: give a table with the same columns.")
        if given := [key for key in SETTINGS if key in plan.given]:
            raise ConfigError(
                f"{given[0]}= names columns, but the data is not a table: give dataset= a data frame, or a "
                ".csv, .parquet, .jsonl or .arrow file."
            )
        return None
    if not all(tables):
        raise ConfigError("dataset= lists tables and other data sets. Give tables only, or none.")
    others: list[Table | None] = [None] * len(tables)
    if plan.test_dataset is not None:
        others = [_open(named, "held-out ") for named in plan.test_dataset]
        if wrong := [n for n, t in zip(plan.test_dataset, others, strict=True) if t is None]:
            raise ConfigError(
                f"test_dataset={wrong[0].name} is not a table, but dataset= is. Give a data frame or a "
                ".csv, .parquet, .jsonl or .arrow file with the same columns."
            )
    wishes = wishes_of(plan)
    pairs = []
    for place, (named, table) in enumerate(zip(parts, tables, strict=True)):
        assert table is not None
        other = others[place]
        train = table.numbered(wishes)
        test = None if other is None else other.numbered(wishes)
        if numbered and (plan.num_classes is None or train.names or train.values):
            train, test = number_labels(train, test)
        train = of_classes(train, named.arguments)
        test = None if test is None else of_classes(test, named.arguments)
        train, held_out = with_held_out(train, test)
        pairs.append(Pair(train, held_out, table, other or table))
    trains, tests, notes = with_inputs(pairs, wishes, known)
    read = [note for table in (*tables, *others) if table is not None for note in table.notes]
    return trains, [*tests], [*notes, *dict.fromkeys(read)]


def wishes_of(plan: Plan) -> Wishes:
    """What the settings say of tables."""
    return Wishes(
        target=None if plan.target is None else tuple(plan.target),
        target_type=plan.target_type,
        inputs=None if plan.inputs is None else tuple(plan.inputs),
        drop=tuple(plan.drop or ()),
        categories=tuple(plan.categories or ()),
        missing=plan.missing,
        wanted="values" if plan.target_type == "values" else targets_of(plan.loss),
    )


def _open(named: Named, role: str = "") -> Table | None:
    """The table that is named; None: it names none."""
    target: Any = named.target
    options = {key: value for key, value in named.arguments.items() if key != "subset"}
    if isinstance(target, Path) and target.is_file():
        rows, notes = read_file(target, options)
        return Table(rows, target.name, notes=tuple(notes), options=options)
    if is_table(target):
        if options:
            raise ConfigError(
                f"A table has no argument `{next(iter(options))}`. It accepts: subset. Columns are named by "
                f"{'=, '.join(SETTINGS)}=."
            )
        name = f"the {role}table"
        return Table(as_arrow(target, name), name)
    return None
