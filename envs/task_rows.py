"""Assigns the rows of the tables to tasks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..replay import ConfigError, DataError
from .arrays import Arrays
from .joining import num_classes
from .scenarios import held_out_share, listed


@dataclass(frozen=True)
class DataTask:
    """The rows of the world's tables that belong to one task.

    Attributes:
        train, test: int64 `[N]`, row numbers.
        classes: int64 `[k]`, the outputs of the task, in the order of `class_order`; all outputs if tasks
            share them.
        validation: int64 `[N]`, row numbers of the training table, none of them in `train`; or None.
    """

    name: str
    train: Tensor
    test: Tensor
    classes: Tensor
    validation: Tensor | None = None


def split(groups: list[list[int]], train: Tensor, held_out: Tensor) -> list[DataTask]:
    """A task for each group of classes, from the labels of all rows, int64 `[N]`.

    Raises:
        DataError: If a task has no rows.
    """
    task_of = torch.empty(sum(map(len, groups)), dtype=torch.int64)
    for task, classes in enumerate(groups):
        task_of[torch.tensor(classes)] = task
    parts = {"training": task_of[train], "held-out": task_of[held_out]}
    tasks = []
    for task, classes in enumerate(groups):
        rows = {part: (theirs == task).nonzero().flatten() for part, theirs in parts.items()}
        if empty := [part for part, index in rows.items() if len(index) == 0]:
            raise DataError(f"Task {task} (classes {listed(classes)}) has no {empty[0]} data.")
        name = f"classes {listed(classes)}"
        tasks.append(DataTask(name, rows["training"], rows["held-out"], torch.tensor(classes)))
    return tasks


def in_turn(train: list[Arrays], held_out: list[Arrays], n: int, scenario: str) -> list[DataTask]:
    """A task for each data set, with `n` outputs in all."""
    tasks, first = [], 0
    for arrays, rows, test in zip(train, _ranges(train), _ranges(held_out), strict=True):
        classes = torch.arange(n)
        if len(train) > 1 and scenario != "domain":
            classes = torch.arange(first, first := num_classes(arrays))
        tasks.append(DataTask(arrays.name, rows, test, classes))
    return tasks


def validation_rows(train: list[Arrays], share: float | None) -> Tensor | None:
    """The rows of the training table to hold out for validation, bool `[N]`; None: none.

    Args:
        share: Share of the rows of each class, float in (0, 0.5]; None: none.

    Raises:
        ConfigError: If the share is outside that range.
    """
    if not share:
        return None
    if not 0 < share <= 0.5:
        raise ConfigError(
            f"validation={share} must be a share of the rows, above 0 and at most 0.5."
        )
    chosen = []
    for part in train:
        labels = part.targets if part.discrete else torch.zeros(len(part), dtype=torch.int64)
        chosen.append(held_out_share(labels, share))
    return torch.cat(chosen)


def with_validation(task: DataTask, chosen: Tensor) -> DataTask:
    """The task with its rows among the `chosen`, bool `[N]`, held out for validation.

    Raises:
        DataError: If none of its rows is chosen.
    """
    held = chosen[task.train]
    if not held.any():
        raise DataError(
            f"Task {task.name} has one row of a class: too few for validation=, which holds some out."
        )
    return replace(task, train=task.train[~held], validation=task.train[held])


def _ranges(parts: list[Arrays]) -> list[Tensor]:
    ends = torch.tensor([len(part) for part in parts]).cumsum(0).tolist()
    return [torch.arange(end - len(part), end) for part, end in zip(parts, ends, strict=True)]
