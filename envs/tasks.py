"""A data set, or several, as a sequence of tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..replay import ConfigError, DataError, Replay, Spec, Table
from .datasets import Arrays, describe, held_out_fifth, take_rows


@dataclass(frozen=True)
class DataTask:
    """Which rows of the world's tables belong to one task.

    Attributes:
        train, test: int64 row numbers.
    """

    name: str
    train: Tensor
    test: Tensor


class DataWorld:
    """Training and held-out tables, and the sequence of tasks over them.

    `on_data` tells it from a world of environments. Tasks are index sets over one storage: nothing is copied.

    Args:
        train: One `Arrays` per part of the sequence.
        test: Held-out data for each, or None: a fixed fifth of it.
        tasks: Split the classes of a single data set into this many tasks, in order.

    Raises:
        ConfigError, DataError: If the parts do not fit together, or cannot be split so.
    """

    on_data = True

    def __init__(self, train: list[Arrays], test: list[Arrays | None], *, tasks: int | None = None):
        self.name = "-".join(arrays.name for arrays in train)
        parts = [_with_test(*pair) for pair in zip(train, test, strict=True)]
        train, held_out = [part[0] for part in parts], [part[1] for part in parts]
        if tasks is not None and len(train) > 1:
            raise ConfigError(
                "tasks= splits one data set; a list of data sets is a sequence already."
            )
        num_tasks = tasks or len(train)
        self.spec: Spec = describe(train, list(held_out), num_tasks=num_tasks)
        self.train, self.test = _join(train), _join(held_out)
        self._train_labels, self._test_labels = (
            torch.cat([arrays.targets for arrays in part]) for part in (train, held_out)
        )
        if tasks is None:
            ends = list(zip(_ranges(train), _ranges(held_out), strict=True))
            self.tasks = [
                DataTask(arrays.name, *rows) for arrays, rows in zip(train, ends, strict=True)
            ]
        else:
            self.tasks = self._split_classes(tasks)

    def begin(self, task: int, replay: Replay) -> None:
        """Let the replay give this task's rows."""
        replay.begin(task, self.tasks[task].train)

    def resume(
        self, task: int | None, replay: Replay, state: dict[str, Any], *, anew: bool = True
    ) -> None:
        """Put the replay back to where it was, in the middle of `task` or (None) between tasks."""
        if task is not None:
            replay.begin(task, self.tasks[task].train)
        replay.load_state_dict(state, in_task=task is not None)

    def describe(self) -> str:
        """One line for a person."""
        tasks = f", {len(self.tasks)} tasks" if len(self.tasks) > 1 else ""
        train, test = (sum(len(rows) for rows in part) for part in self._rows())
        return f"{self.name}, {train:,} to learn from, {test:,} held out{tasks}"

    def _rows(self) -> tuple[list[Tensor], list[Tensor]]:
        return [task.train for task in self.tasks], [task.test for task in self.tasks]

    def collect(self, task: int, actor: Any, replay: Replay) -> int:
        """Data is there already: one step, nothing to do."""
        return 1

    def episode_metrics(self, task: int) -> dict[str, float]:
        return {}

    def close(self) -> None:
        pass

    def _split_classes(self, tasks: int) -> list[DataTask]:
        n = self.spec.action.n
        if not self.spec.discrete:
            raise ConfigError(
                f"tasks={tasks} splits classes, and the targets of {self.name} are values."
            )
        if n % tasks:
            choices = [d for d in range(1, n + 1) if n % d == 0]
            raise ConfigError(
                f"Cannot split the {n} classes of {self.name} into {tasks} equal tasks "
                f"(tasks={tasks}). Set `tasks` to {', '.join(map(str, choices[:-1]))} or {choices[-1]}."
            )
        size = n // tasks
        found = []
        for task in range(tasks):
            first, last = task * size, (task + 1) * size - 1
            # Labels stay global (0-9), not 0-1 per task: all of them are scored together.
            rows = [
                ((labels >= first) & (labels <= last)).nonzero().flatten()
                for labels in (self._train_labels, self._test_labels)
            ]
            name = f"{first}-{last}" if size > 1 else str(first)
            for which, index in zip(("training", "held-out"), rows, strict=True):
                if len(index) == 0:
                    raise DataError(f"Task {task} (classes {name}) has no {which} data.")
            found.append(DataTask(f"classes {name}", *rows))
        return found


def _with_test(train: Arrays, test: Arrays | None) -> tuple[Arrays, Arrays]:
    if test is not None:
        return train, test
    if train.discrete:
        # A class that happens to be held out only is a class all the same.
        train.num_classes = max(train.num_classes or 0, int(train.targets.max()) + 1)
    kept, held_out = held_out_fifth(train)
    return take_rows(train, kept), take_rows(train, held_out)


def _join(parts: list[Arrays]) -> Table:
    if len(parts) == 1:
        return parts[0].table()
    if not all(isinstance(part.inputs, Tensor) for part in parts):
        raise DataError("A sequence of data sets needs each of them in memory.")
    inputs: list[Any] = [part.inputs for part in parts]
    return Table(obs=torch.cat(inputs), label=torch.cat([part.targets for part in parts]))


def _ranges(parts: list[Arrays]) -> list[Tensor]:
    ends = torch.tensor([len(part) for part in parts]).cumsum(0).tolist()
    return [torch.arange(end - len(part), end) for part, end in zip(parts, ends, strict=True)]
