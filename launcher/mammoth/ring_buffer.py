"""A buffer with a partition per task, in which new rows replace the oldest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...replay import ConfigError
from .buffer import Buffer


class RingBuffer(Buffer):
    """The newest `buffer_size // n_tasks` rows of each task: HAL's memory.

    The model announces a new task: it sets `task_number`, and resets `num_seen_examples` to 0.

    Args:
        buffer_size: int, rows at most.
        n_tasks: int, number of partitions.
        device: Device that stores the rows; None: that of the first rows.

    Raises:
        ConfigError: If a partition would hold no row.
    """

    def __init__(
        self, buffer_size: int, n_tasks: int = 1, device: torch.device | str | None = None
    ):
        super().__init__(buffer_size, device)
        self.buffer_portion_size = self.capacity // n_tasks
        if not self.buffer_portion_size:
            raise ConfigError(
                f"RingBuffer: buffer_size={buffer_size} leaves no row for each of {n_tasks} tasks."
            )
        self.task_number = 0

    def clear(self) -> None:
        super().clear()
        # Positions in the partitions to places in memory: a task with few rows leaves no gap.
        self._place_of: dict[int, int] = {}

    def is_empty(self) -> bool:
        # HAL resets `seen` with each task, so that a count of 0 alone does not mean an empty buffer.
        return self.seen == 0 and self.task_number == 0

    def _reservoir(self, rows: int) -> dict[int, int]:
        portion = self.buffer_portion_size
        place: dict[int, int] = {}
        for row in range(rows):
            position = (self.seen + row) % portion + self.task_number * portion
            if position >= self.capacity:
                raise ConfigError(
                    f"RingBuffer: task_number={self.task_number}, but it was built for "
                    f"{self.capacity // portion} tasks."
                )
            place[self._place_of.setdefault(position, len(self._place_of))] = row
        self._size = len(self._place_of)
        return place

    def state_dict(self) -> dict[str, Any]:
        places = sorted(self._place_of, key=self._place_of.__getitem__)
        return {**super().state_dict(), "task_number": self.task_number, "positions": places}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.task_number = state["task_number"]
        self._place_of = {position: place for place, position in enumerate(state["positions"])}
