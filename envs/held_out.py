"""Held-out rows of a data set, as a model receives them for an evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..replay import Table
from ..replay.transfer import upload
from .alterations import TaskTransform

_ROWS = 1000  # Rows per forward: large enough to be fast, small enough for any memory.
# On a CPU, fewer of images: activations of a convolution that leave the cache take twice as long.
_NUMBERS, _FEWEST_ROWS = 2**19, 32


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows of one task, to be predicted. Iterating yields the fields of some rows at a time.

    Attributes:
        task: The task's number, from 0.
        table: Holds the rows.
        index: int64 `[N]`, which rows of the table they are.
        classes: int64 `[k]`, the outputs that the task's labels use; None where knowing the task does not
            narrow them down.
        transform: Makes stored fields what the model receives, without augmentation.
        device: Where the model is.
        shapes: Of the model's inputs, without the batch.
        task_transform: Makes stored rows those of a task; None: they are as stored.
        show: Called with the number of rows that are done.
    """

    task: int
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
        """float64 `[N, ...]`, targets with the digits of their source; None: as batches have them."""
        return None if self.table.exact is None else self.table.exact[self.index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """In the data's order, at most 1,000 rows at a time."""
        index = self.index
        if self.table.device.type != "cpu":
            index = upload(index, self.device)
        at_once = self._rows_at_once()
        for number, rows in enumerate(index.split(at_once)):
            self.show(number * at_once)
            fields: dict[str, Any] = upload(self.table.gather(rows), self.device)
            if self.task_transform is not None:
                fields["obs"] = self.task_transform(fields["obs"], self.task)
            yield self.transform(fields)

    def _rows_at_once(self) -> int:
        if self.device.type != "cpu":
            return _ROWS
        numbers = max(1, sum(math.prod(shape) for shape in self.shapes))
        return min(_ROWS, max(_FEWEST_ROWS, _NUMBERS // numbers))


def sample(index: Tensor, rows: int, *, seed: int, task: int) -> Tensor:
    """Some of a task's rows, in the data's order: the same ones at every evaluation, and after a resume.

    Args:
        index: int64 `[N]`.
        rows: How many, fewer than N.
    """
    drawn = int(np.random.SeedSequence((seed, task)).generate_state(1)[0])
    generator = torch.Generator().manual_seed(drawn)
    chosen = torch.randperm(len(index), generator=generator)[:rows]
    return index[chosen.sort().values]
