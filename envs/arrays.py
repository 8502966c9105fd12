"""A data set as two arrays, inputs and targets, and parts of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..replay import DataError, Table
from ..replay.spec import TargetKind
from ..replay.storage import TableField, in_memory, select
from .labels import IN_WORDS, KINDS
from .scenarios import by_number

if TYPE_CHECKING:
    from .table_columns import Columns

Headings = tuple[str | int, ...] | None | dict[str, Any]
"""The names of a data frame's columns, or a dict of such for a dict of inputs; None: there are none."""


@dataclass
class Arrays:
    """A data set in memory.

    Attributes:
        inputs: `[N, *shape]`, images channels-first; uint8, bool, int64, float32 or float64. Or a dict of
            such columns, which may be nested.
        targets: int64 `[N]` classes, bool `[N, K]` several labels, or float32 or float64 `[N, *shape]`
            values.
        high: The largest value an integer input can take; None: the source does not say.
        num_classes: Number of classes; None: unknown.
        names: Names of the classes, or of the labels; None: they have none.
        values: The value that each label stands for, such as `(1, 2, 255)`; None: labels are themselves.
        chosen: Whether `subset=` chose the classes and their order.
        alterations: The source's own method of that name, which makes it a sequence of tasks (see
            sequences.py), or None.
        note: A remark on the targets for the run's header, or None.
        flat: Whether targets are values that came as `[N]`, and are `[N, 1]` here.
        columns: How the columns of a table became these inputs; None: they come from no table.
        headings: The names of the columns of a data frame given as inputs, or of each one in a dict of
            inputs; None: they have none.
        target_headings: Those of a data frame given as targets.
        files: Identifies the files that were decoded, as `fingerprint.of_files` does; None: there are none.
    """

    inputs: TableField
    targets: Tensor
    name: str
    high: float | None = None
    num_classes: int | None = None
    names: tuple[str, ...] | None = None
    values: tuple[Any, ...] | None = None
    chosen: bool = False
    alterations: Callable[..., Any] | None = None
    note: str | None = None
    flat: bool = False
    columns: Columns | None = None
    headings: Headings = None
    target_headings: Headings = None
    files: str | None = None

    @property
    def kind(self) -> TargetKind:
        """What its targets are."""
        return KINDS.get(self.targets.dtype, "values")

    @property
    def discrete(self) -> bool:
        """Whether its targets are one class per row."""
        return self.kind == "classes"

    @property
    def in_memory(self) -> bool:
        """Whether its inputs are tensors, not read from their source at each use."""
        return in_memory(self.inputs)

    def __len__(self) -> int:
        return len(self.targets)

    def value(self, label: int) -> Any:
        """The value that a label stands for."""
        return label if self.values is None else self.values[label]

    def table(self) -> Table:
        return Table(obs=self.inputs, label=self.targets)


def held_out_fifth(arrays: Arrays) -> tuple[Tensor, Tensor]:
    """Row numbers for training and for testing, the same for every seed."""
    n = len(arrays)
    if n < 2:
        raise DataError(f"{arrays.name} has {n} row: too few to hold some out. Give test_dataset=.")
    return held_out_rows(n)


def held_out_rows(n: int) -> tuple[Tensor, Tensor]:
    """Numbers of the rows to learn from and of the fifth held out, sorted, of n in all."""
    # Independent of the run's seed: runs with several seeds are compared on the same rows.
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    held_out = max(1, n // 5)
    # Sorted, so that rows read from a source are read in its order.
    return order[held_out:].sort().values, order[:held_out].sort().values


def take_rows(arrays: Arrays, index: Tensor) -> Arrays:
    """Some rows of a data set."""
    return replace(
        arrays,
        inputs=select(arrays.inputs, index),
        targets=arrays.targets.index_select(0, index),
    )


def take_classes(arrays: Arrays, classes: list[int]) -> Arrays:
    """Only these classes, renumbered in the order given.

    Raises:
        DataError: If a class is not in the data.
    """
    if not arrays.discrete:
        raise DataError(
            f"subset= selects classes, and the targets of {arrays.name} are {IN_WORDS[arrays.kind]}."
        )
    present = set(arrays.targets.unique().tolist())
    if wrong := [c for c in classes if c not in present]:
        raise DataError(
            f"subset={classes}: {arrays.name} has no class {wrong[0]}.{by_number(arrays.names)}"
        )
    renumber = torch.full((int(arrays.targets.max()) + 1,), -1)
    renumber[torch.tensor(classes)] = torch.arange(len(classes))
    rows = (renumber[arrays.targets] >= 0).nonzero().flatten()
    kept = take_rows(arrays, rows)
    kept.targets, kept.num_classes = renumber[kept.targets], len(classes)
    names = arrays.names
    if names is None and list(classes) != list(range(len(classes))):
        names = tuple(map(str, range(int(arrays.targets.max()) + 1)))
    kept.names = None if names is None else tuple(names[c] for c in classes)
    kept.values, kept.chosen = None, True
    if kept.note is not None:
        kept.note += f"; subset= selects {', '.join(map(str, classes))} of these, renumbered from 0"
    return kept
