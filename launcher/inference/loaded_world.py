"""What is known about the data or the environments of a loaded run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...envs.interface import Interface
from ...envs.kinds import OfData, OfEnvironments
from ...envs.reading import Reading
from ...envs.table_world import TableWorld
from ...replay import Normalizer, Space, Spec
from ...replay.padding import unpadded
from ...replay.spec import is_ragged
from ...replay.tree import map_tree


@dataclass
class LoadedTask:
    """One task of a loaded run."""

    name: str
    interface: Interface | None = None
    classes: Tensor = field(default_factory=lambda: torch.arange(0))


class LoadedData(OfData):
    """What is known about the data of a loaded run, which is not read.

    Args:
        scenario: "class", "task" or "domain"; None: unknown, as for runs before 0.5.0.
        reading: How raw inputs became rows; None: as the spec tells.
        altering: Reads the data, which alters its rows for each task; None: rows stay as they are.
    """

    def __init__(
        self,
        name: str,
        spec: Spec,
        tasks: list[LoadedTask],
        *,
        scenario: str | None = None,
        reading: Reading | None = None,
        altering: Callable[[], TableWorld] | None = None,
    ):
        self.name, self.spec, self.tasks, self.scenario = name, spec, tasks, scenario
        self.reading = reading or Reading.of(spec.obs, spec.action)
        self._altering = altering

    def classes(self, task: int) -> Tensor:
        """The outputs that a task's labels use, int64 `[k]`; empty if there are no classes."""
        return self.tasks[task].classes

    def borders(self, *, online: bool) -> bool:
        """Whether the learner knew where tasks end."""
        return not online

    def of_task(self, rows: Tensor, task: int | Tensor) -> Tensor:
        """Stored rows `[B, *shape]` as a task has them: if it alters them, the data is read to learn how."""
        return rows if self._altering is None else self._altering().of_task(rows, task)

    def example(self, n: int, device: torch.device) -> Any:
        """`n` rows of random inputs on a device, `[n, *shape]`, in the dtype and range of stored ones."""
        rows = map_tree(lambda space: _random(space, n, device), self.spec.obs)
        return unpadded(rows) if is_ragged(self.spec.obs) else rows


def _random(space: Space, n: int, device: torch.device) -> Tensor:
    shape = (n, *space.shape)
    if space.ids is not None:
        rows = torch.randint(space.ids, shape, device=device)
        # Of a table's categories, each column has its own number of ids.
        return rows % torch.tensor(space.nvec, device=device) if space.nvec else rows
    rows = torch.rand(shape, device=device)
    return (rows * 2).to(space.dtype) if space.scale is None else rows


class LoadedEnvironments(OfEnvironments):
    """What is known about the environments of a loaded run.

    Args:
        normalizer: Running statistics of observations, or None.
    """

    def __init__(
        self, name: str, spec: Spec, tasks: list[LoadedTask], normalizer: Normalizer | None
    ):
        self.name, self.spec, self.tasks, self.normalizer = name, spec, tasks, normalizer
