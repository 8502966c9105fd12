"""What happened in environments: one stream of observations per environment, in a ring.

Legend: T time steps kept, N environments. A row is one (time, environment) pair, `row = t * N + e`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import CheckpointError
from .spec import Spec


class Transitions:
    """A ring of environment steps that stores each observation once.

    The observation after a step is the next row's, for termination and truncation alike: gymnasium's
    NEXT_STEP autoreset returns an episode's real last observation first and the new episode's first
    one a step later. The step in between (a "ghost": its action is ignored) is marked and never
    drawn, so no transition joins two episodes.

    Args:
        spec: Shapes and types of observations and actions.
        capacity: Transitions to keep, over all environments.
        num_envs: N.
        discount: Per-step discount; `discount` in a batch is this, or 0 where terminated.
    """

    def __init__(self, spec: Spec, *, capacity: int, num_envs: int, discount: float):
        self.num_envs, self.discount = num_envs, discount
        # One more than asked for: the newest row holds only the observation to come.
        self.length = max(2, -(-capacity // num_envs) + 1)
        # NumPy writes a slice in 1.6 us where torch takes 12; torch reads the same memory.
        self.columns: dict[str, np.ndarray] = {
            "obs": self._column(spec.obs.shape, _numpy_dtype(spec.obs.dtype)),
            "reward": self._column((), np.dtype(np.float32)),
            "terminated": self._column((), np.dtype(np.bool_)),
            "truncated": self._column((), np.dtype(np.bool_)),
            "task": self._column((), np.dtype(np.int64)),
            "ghost": self._column((), np.dtype(np.bool_)),
        }
        self._views = {name: _flat(column) for name, column in self.columns.items()}
        self._ended = np.zeros(num_envs, np.bool_)  # Whose last step ended an episode.
        self.time = 0  # Steps written since the start; `time % length` is the row being filled.

    def _column(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        return np.zeros((self.length, self.num_envs, *shape), dtype)

    def __len__(self) -> int:
        """Rows in the window, ghosts included."""
        return min(self.time, self.length - 1) * self.num_envs

    def start(self, obs: np.ndarray) -> None:
        """Begin new episodes in every environment with `obs` `[N, *shape]`."""
        if self.time:
            # The newest row holds the last observation of what went before: it starts nothing.
            self.columns["ghost"][self.time % self.length] = True
            self.time += 1
        self._ended = np.zeros(self.num_envs, np.bool_)
        self.columns["obs"][self.time % self.length] = obs

    def add(self, step: Mapping[str, Any], *, task: int) -> None:
        """Store one step of every environment.

        Args:
            step: `action`, `reward`, `terminated`, `truncated` and `next_obs`, each `[N, ...]`, and
                any extras that `act` gave.
            task: The task they belong to.
        """
        now = self.time % self.length
        for name, value in step.items():
            if name == "next_obs":
                continue
            if name not in self.columns:
                value = np.asarray(value)
                self.columns[name] = self._column(value.shape[1:], value.dtype)
                self._views[name] = _flat(self.columns[name])
            self.columns[name][now] = value
        self.columns["task"][now] = task
        self.columns["ghost"][now] = self._ended
        self._ended = np.logical_or(step["terminated"], step["truncated"]) & ~self._ended
        self.time += 1
        self.columns["obs"][self.time % self.length] = step["next_obs"]

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` rows of the window, int64, oldest to newest alike."""
        offset = torch.randint(len(self), (n,), generator=generator)
        oldest = max(0, self.time - self.length + 1) * self.num_envs
        return (oldest + offset) % (self.length * self.num_envs)

    def drawable(self, index: Tensor) -> Tensor:
        """Which of the rows are transitions of an episode, bool `[B]`."""
        return ~self._views["ghost"].index_select(0, index)

    def count(self) -> int:
        """Transitions that can be drawn."""
        rows = np.arange(max(0, self.time - self.length + 1), self.time) % self.length
        return int((~self.columns["ghost"][rows]).sum())

    def gather(self, index: Tensor) -> dict[str, Tensor]:
        """The transitions at `index`, `next_obs` and `discount` included."""
        fields = {
            name: view.index_select(0, index)
            for name, view in self._views.items()
            if name != "ghost"
        }
        after = (index + self.num_envs) % (self.length * self.num_envs)
        fields["next_obs"] = self._views["obs"].index_select(0, after)
        fields["discount"] = self.discount * (~fields["terminated"]).float()
        return fields

    def state_dict(self) -> dict[str, Any]:
        filled = min(self.time + 1, self.length)
        return {
            "time": self.time,
            "length": self.length,
            "ended": self._ended,
            "columns": {name: column[:filled] for name, column in self.columns.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["length"] != self.length:
            raise CheckpointError(
                f"The saved replay keeps {state['length']} steps, this one {self.length}. Resume with "
                "the capacity and num_envs it was saved with."
            )
        self.time = state["time"]
        self._ended = np.asarray(state["ended"], np.bool_)
        for name, kept in state["columns"].items():
            kept = np.asarray(kept)
            if name not in self.columns:
                self.columns[name] = self._column(kept.shape[2:], kept.dtype)
                self._views[name] = _flat(self.columns[name])
            self.columns[name][: len(kept)] = kept


def _flat(column: np.ndarray) -> Tensor:
    """A torch view `[T * N, ...]` of a `[T, N, ...]` column."""
    return torch.from_numpy(column).view(-1, *column.shape[2:])


def _numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    return torch.zeros(0, dtype=dtype).numpy().dtype
