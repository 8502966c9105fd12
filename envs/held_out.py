"""Held-out rows of a data set, as a model receives them for an evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..replay import Table
from ..replay.transfer import upload
from .alterations import TaskTransform

_ROWS = 1000  # Rows per forward: large enough to be fast, small enough for any memory.
# Fewer images on a CPU: a convolution takes twice as long once its activations leave the cache.
_NUMBERS, _FEWEST_ROWS = 2**19, 32


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows of one task, to be predicted. Iterating yields batches of their fields.

    Attributes:
        task: The task's number, from 0; None: not known.
        table: The table that holds the rows.
        index: int64 `[N]`, their row numbers in the table.
        classes: int64 `[k]`, the outputs that the task's labels use; None where knowing the task does not
            narrow them down.
        transform: Turns stored fields into what the model receives, without augmentation.
        device: Where the model is.
        shapes: Shapes of the model's inputs, without the batch.
        task_transform: Maps stored rows to those of a task; None: they are used as stored.
        show: Called with the number of rows done.
    """

    task: int | None
    table: Table
    index: Tensor
    classes: Tensor | None
    transform: Callable[[dict[str, Any]], dict[str, Any]]
    device: torch.device
    shapes: list[tuple[int, ...]]
    task_transform: TaskTransform | None = None
    show: Callable[[int], None] = lambda _: None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def exact(self) -> Tensor | None:
        """float64 `[N, ...]`, targets in the precision of their source; None: that of batches is the same."""
        return None if self.table.exact is None else self.table.exact[self.index]

    @property
    def sizes(self) -> list[int]:
        """Number of rows of each batch."""
        at_once = rows_at_once(self.shapes, self.device)
        return [min(at_once, len(self) - start) for start in range(0, len(self), at_once)]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """In the data's order, at most 1,000 rows at a time."""
        return self.batches()

    def batches(self, first: int = 0, every: int = 1) -> Iterator[dict[str, Any]]:
        """Every so many batches, starting with this one."""
        index = self.index
        if self.table.device.type != "cpu":
            # Once for all batches: rows of a table on the device are gathered there.
            index = upload(index, self.device)
        at_once = rows_at_once(self.shapes, self.device)
        for number, rows in enumerate(index.split(at_once)):
            if number % every != first:
                continue
            self.show(number * at_once)
            fields: dict[str, Any] = upload(self.table.gather(rows), self.device)
            if self.task_transform is not None and self.task is not None:
                fields["obs"] = self.task_transform(fields["obs"], self.task)
            yield self.transform(fields)


def rows_at_once(shapes: Iterable[tuple[int, ...]], device: torch.device) -> int:
    """How many rows a model predicts at once.

    Args:
        shapes: Shapes of its inputs, without the batch.
    """
    if device.type != "cpu":
        return _ROWS
    numbers = max(1, sum(math.prod(shape) for shape in shapes))
    return min(_ROWS, max(_FEWEST_ROWS, _NUMBERS // numbers))


def sample(index: Tensor, rows: int, *, seed: int, task: int) -> Tensor:
    """A sample of a task's rows, in the data's order: the same at every evaluation and after a resume.

    Args:
        index: int64 `[N]`.
        rows: How many, fewer than N.
    """
    # Seeded by the task too: a resumed run then draws the same rows without having drawn earlier ones.
    drawn = int(np.random.SeedSequence((seed, task)).generate_state(1)[0])
    generator = torch.Generator().manual_seed(drawn)
    chosen = torch.randperm(len(index), generator=generator)[:rows]
    return index[chosen.sort().values]
