"""The endless iterator of batches that `learn` is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .batch import Batch
from .errors import ConfigError
from .samplers import Epochs, Uniform
from .storage import Table
from .transitions import Transitions


class Replay:
    """Batches without end, of a data set's current task or of what environments have done.

    `next(replay)` gathers `batch_size` rows from the storage by index, moves them to `device` and
    makes floats of them. Nothing is done sample by sample.

    Args:
        storage: A `Table` (data sets) or `Transitions` (environments).
        transform: Makes the stored fields what a model meets; called on the whole batch.
        batch_size: Rows per batch. The last batch of a data set's pass may be smaller.
        device: Where batches are.
        seed: Of the order of rows, a random stream of its own.

    Attributes:
        task: Number of the current task, from 0.
        epoch: Number of the pass over the task's data that the last batch belongs to, from 0.
        step: Batches given since the run began.
    """

    def __init__(
        self,
        storage: Table | Transitions,
        transform: Callable[[dict[str, Tensor]], dict[str, Any]],
        *,
        batch_size: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ):
        self.storage, self.transform = storage, transform
        self.batch_size, self.device = batch_size, torch.device(device)
        self._moves = self.device.type != "cpu"
        self.task = 0
        self.step = 0
        self._orders = torch.Generator().manual_seed(seed)
        # `sample` must not change which rows `next` gives.
        self._draws = torch.Generator().manual_seed(seed + 1)
        self.sampler: Epochs | Uniform
        if isinstance(storage, Transitions):
            self.sampler = Uniform(storage, batch_size=batch_size, generator=self._orders)
        else:
            self.begin(0, torch.arange(len(storage)))

    def begin(self, task: int, index: Tensor | None) -> None:
        """Move on to a task: the rows at `index` of a data set (None: environments)."""
        self.task = task
        if index is None:
            return
        index = index.to(self._storage_device)
        self.sampler = Epochs(index, batch_size=self.batch_size, generator=self._orders, task=task)

    @property
    def _storage_device(self) -> torch.device:
        column = next(iter(self.storage.columns.values()))
        return column.device if isinstance(column, Tensor) else torch.device("cpu")

    @property
    def epoch(self) -> int:
        return self.sampler.epoch

    @property
    def passes(self) -> int:
        """Complete passes over the current task's data."""
        return self.sampler.passes

    @property
    def batches_per_epoch(self) -> int:
        """Batches in one pass over the current task's data."""
        if not isinstance(self.sampler, Epochs):
            raise ConfigError("Environments have no epochs: count steps instead (`train_steps`).")
        return len(self.sampler)

    def __iter__(self) -> Replay:
        return self

    def __next__(self) -> Batch:
        index = self.sampler.next()
        self.step += 1
        return self._batch(index, self.sampler.tasks)

    def __len__(self) -> int:
        """Rows of the current task's data, or transitions that can be drawn."""
        if isinstance(self.sampler, Epochs):
            return len(self.sampler.index)
        return self.sampler.storage.count()

    def sample(self, n: int) -> Batch:
        """`n` rows of the current task, with replacement, without advancing the epoch."""
        index = self.sampler.sample(n, self._draws)
        return self._batch(index, lambda: torch.full_like(index, self.task))

    def _batch(self, index: Tensor, tasks: Callable[[], Tensor]) -> Batch:
        fields: dict[str, Any] = self.storage.gather(index)
        if "task" not in fields:  # Transitions know their own.
            fields["task"] = tasks()
        fields["index"] = index
        if self._moves:
            fields = {
                name: field.to(self.device, non_blocking=True) for name, field in fields.items()
            }
        return Batch(**self.transform(fields))

    def state_dict(self) -> dict[str, Any]:
        """Everything but a data set's rows, which are read again from their source."""
        state = {
            "task": self.task,
            "step": self.step,
            "sampler": self.sampler.state_dict(),
            "orders": self._orders.get_state(),
            "draws": self._draws.get_state(),
        }
        if isinstance(self.storage, Transitions):
            state["transitions"] = self.storage.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any], *, in_task: bool = True) -> None:
        """Continue exactly: after `begin` with the task the state was saved in, or between tasks."""
        self.task, self.step = state["task"], state["step"]
        if in_task:
            self.sampler.load_state_dict(state["sampler"])
        self._orders.set_state(state["orders"])
        self._draws.set_state(state["draws"])
        if isinstance(self.storage, Transitions):
            self.storage.load_state_dict(state["transitions"])
