"""Reads tables as arrays: the target's columns as targets, the others as numbers and categories.

Until training and held-out rows are told apart, the inputs of a table's arrays are the numbers of its
rows: means and vocabularies are those of training rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..replay import ConfigError, DataError
from ..replay.suggestions import did_you_mean
from .arrays import Arrays
from .arrow import word_columns
from .datasets import read
from .labels import check_labels, in_class_label
from .table_columns import CATEGORIES, Columns, begin, columns_in_words
from .table_fitting import Wishes, fit, input_names
from .table_targets import read_columns

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Table:
    """A table to learn from, or one held out.

    Attributes:
        name: What errors call it.
        classes: Names of the classes of columns that have a list of them.
        usual: The target if the settings name none; None: they must.
        notes: Remarks on how it was read, for the run's header.
        options: How its text file was read.
    """

    rows: pa.Table
    name: str
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    usual: str | None = None
    notes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def target(self, wishes: Wishes) -> tuple[str, ...]:
        """The target's columns.

        Raises:
            ConfigError: If none is named, or a name is unknown.
        """
        names = self.rows.column_names
        if wishes.target is None and self.usual is None:
            raise ConfigError(
                f"Which column of {self.name} is to be predicted? Set target=NAME. Its columns are "
                f"{columns_in_words(names)}."
            )
        target = wishes.target or (self.usual or "",)
        if unknown := [column for column in target if column not in names]:
            raise ConfigError(
                f"target={unknown[0]}: {self.name} has no such column.{did_you_mean(unknown[0], names)} "
                f"It has {columns_in_words(names)}."
            )
        if len(set(target)) < len(target):
            raise ConfigError(f"target={list(target)} names a column twice.")
        return target

    def numbered(self, wishes: Wishes) -> Arrays:
        """The targets, with the numbers of the rows as inputs, int64 `[N]`.

        Raises:
            ConfigError, DataError: If the target is missing, unknown, or neither classes nor values.
        """
        if not self.rows.num_rows:
            raise DataError(f"{begin(self.name)} is empty: there is nothing to learn from.")
        names = self.target(wishes)
        targets = read_columns(self.rows, names, wishes.target_type or self._kind(names), self.name)
        wanted = wishes.wanted
        arrays = read(
            (torch.arange(self.rows.num_rows), targets.rows), name=self.name, wanted=wanted
        )
        if arrays.kind == "labels":
            arrays.names = names
        if arrays.discrete:
            arrays.values = targets.words
            if len(names) == 1 and names[0] in self.classes and targets.words is None:
                arrays.names = self.classes[names[0]]
                arrays.num_classes = len(arrays.names)
                where = in_class_label(names[0])
                check_labels(arrays.targets, arrays.num_classes, self.name, where=where)
        arrays.note = arrays.note or targets.note
        return arrays

    def _kind(self, names: tuple[str, ...]) -> str | None:
        return "classes" if len(names) == 1 and names[0] in self.classes else None

    def inputs(self, wishes: Wishes) -> pa.Table:
        """The columns that a model receives."""
        names = input_names(self.rows.column_names, self.target(wishes), wishes, self.name)
        return self.rows.select(names)


@dataclass(frozen=True)
class Pair:
    """Training and held-out rows as `Table.numbered` returns them, each with its table."""

    train: Arrays
    held_out: Arrays
    table: Table
    held_out_table: Table


def with_inputs(
    pairs: Sequence[Pair], wishes: Wishes, known: Columns | None = None
) -> tuple[list[Arrays], list[Arrays], list[str]]:
    """The arrays of each pair with its inputs, all encoded by the training rows of all of them.

    Args:
        known: The columns of a run that learns more data; None: they are decided here.

    Returns:
        Training parts, held-out parts, and remarks for the run's header.

    Raises:
        ConfigError, DataError: If a table lacks a column, or columns cannot be inputs.
    """
    notes: list[str] = []
    sources = [_taken(pair.train, pair.table, wishes, known) for pair in pairs]
    if known is None:
        first = pairs[0].table
        # Columns with a list of classes are categories, although they hold numbers.
        listed = [name for name in sources[0].column_names if name in first.classes]
        wished = replace(wishes, categories=(*wishes.categories, *listed))
        fitted, notes = fit(_joined(sources, pairs), wished, first.name)
        rest = [name for name in first.rows.column_names if name not in fitted.names]
        words = word_columns(first.rows)
        known = replace(fitted, left_out=tuple(rest), options=first.options, words=words)
    train, held_out = [], []
    for pair, source in zip(pairs, sources, strict=True):
        learnt: Any = known.encode(source, pair.table.name)
        train.append(replace(pair.train, inputs=learnt, columns=known))
        own = pair.held_out_table is pair.table
        name = f"the held-out part of {pair.table.name}" if own else pair.held_out_table.name
        other = encoded(pair.held_out, replace(pair.held_out_table, name=name), wishes, known)
        held_out.append(other)
        notes += _unseen(other.inputs, known)
    return train, held_out, notes


def encoded(arrays: Arrays, table: Table, wishes: Wishes, columns: Columns) -> Arrays:
    """Rows as `Table.numbered` returns them, with their inputs in these columns.

    Raises:
        DataError: If the table lacks a column, or values are missing.
    """
    inputs: Any = columns.encode(_taken(arrays, table, wishes, columns), table.name)
    return replace(arrays, inputs=inputs, columns=columns)


def _taken(arrays: Arrays, table: Table, wishes: Wishes, known: Columns | None) -> pa.Table:
    """The columns of the inputs, in the rows whose numbers the arrays hold."""
    assert isinstance(arrays.inputs, Tensor)
    numbers = arrays.inputs
    if known is None:
        found = table.inputs(wishes)
    else:
        # Only those that the model receives: other tables may have more, in any order.
        here = set(table.rows.column_names)
        found = table.rows.select([name for name in known.names if name in here])
    if len(numbers) == table.rows.num_rows and bool((numbers[1:] > numbers[:-1]).all()):
        return found  # All of them.
    return found.take(numbers.numpy())


def _joined(sources: list[pa.Table], pairs: Sequence[Pair]) -> pa.Table:
    """The training rows of all tables of a sequence."""
    if len(sources) == 1:
        return sources[0]
    import pyarrow as pa

    first = sources[0]
    for source, pair in zip(sources, pairs, strict=True):
        if lacks := [name for name in first.column_names if name not in source.column_names]:
            raise DataError(
                f"{begin(pair.table.name)} lacks {columns_in_words(lacks)}, which {pairs[0].table.name} has."
            )
    try:
        return pa.concat_tables(
            [source.select(first.column_names) for source in sources], promote_options="permissive"
        )
    except pa.ArrowException as error:
        raise DataError(
            f"The tables of the sequence differ in the types of their columns: {str(error).splitlines()[0]}"
        ) from error


def _unseen(inputs: Any, columns: Columns) -> list[str]:
    """A remark on held-out rows with categories that training rows lack."""
    if not columns.categories:
        return []
    ids = inputs if isinstance(inputs, Tensor) else inputs[CATEGORIES]
    unseen = ids == 0
    if not (count := int(unseen.any(1).sum())):
        return []
    names = [
        c.name for c, some in zip(columns.categories, unseen.any(0).tolist(), strict=True) if some
    ]
    return [
        f"{count:,} held-out rows have categories that no training row has ({columns_in_words(names)})"
    ]
