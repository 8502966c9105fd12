"""Which rows the next batch holds. Each sampler's state is enough to continue it exactly."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import ConfigError
from .sumtree import SumTree
from .transfer import upload
from .transitions import Transitions

_LOWEST = 1e-6  # Added to priorities: none is ever without a chance.


class Epochs:
    """Every row of an index set once per pass, in a new random order each pass.

    The last batch of a pass may be smaller. A remainder of a single row borrows one from the batch
    before it, because BatchNorm cannot train on one: 129 rows in batches of 64 are 64 + 63 + 2.

    Args:
        index: int64 `[n]`, the rows to visit.
        batch_size: Rows per batch, at most.
        generator: Draws the orders; owned by this sampler alone.
        task: The number of the task that the rows are of, or int64 `[n]`: of each row.
    """

    def __init__(
        self, index: Tensor, *, batch_size: int, generator: torch.Generator, task: int | Tensor = 0
    ):
        self.index, self.batch_size, self.generator = index, batch_size, generator
        self.task = task
        self.sizes = batch_sizes(len(index), batch_size)
        self.epoch = 0  # The pass that the last batch given belongs to.
        self.position = 0  # Batches given in this pass.
        self._shuffle()

    def _shuffle(self) -> None:
        # Kept so that a resumed run draws this very order again and skips to `position`.
        self._order_state = self.generator.get_state()
        order = torch.randperm(len(self.index), generator=self.generator)
        order = upload(order, self.index.device)
        # Split once a pass: a batch then costs a list access, not a slice.
        rows = torch.index_select(self.index, 0, order)
        self._batches = rows.split(self.sizes)
        # Made with the order, so that every batch has a part of its own at no cost.
        if isinstance(self.task, Tensor):
            self._tasks = self.task.index_select(0, order).split(self.sizes)
        else:
            self._tasks = torch.full_like(rows, self.task).split(self.sizes)

    @property
    def passes(self) -> int:
        """Complete passes so far."""
        return self.epoch + (self.position == len(self.sizes))

    def __len__(self) -> int:
        """Batches per pass."""
        return len(self.sizes)

    def next(self) -> Tensor:
        if self.position == len(self._batches):
            self.epoch += 1
            self.position = 0
            self._shuffle()
        index = self._batches[self.position]
        self.position += 1
        return index

    def peek(self) -> Tensor | None:
        """The very tensor that `next` will return; None where a pass ends: the next one is not drawn yet."""
        return self._batches[self.position] if self.position < len(self._batches) else None

    def tasks(self) -> Tensor:
        """The task of each row of the last batch, int64."""
        return self._tasks[self.position - 1]

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`n` rows drawn with replacement, and the task of each; the pass does not move on."""
        draw = torch.randint(len(self.index), (n,), generator=generator)
        draw = upload(draw, self.index.device)
        rows = self.index.index_select(0, draw)
        if isinstance(self.task, Tensor):
            return rows, self.task.index_select(0, draw)
        return rows, torch.full_like(rows, self.task)

    def state_dict(self) -> dict[str, Any]:
        rows = sum(self.sizes[: self.position])
        return {"epoch": self.epoch, "rows": rows, "order": self._order_state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["order"])
        self._shuffle()
        # In rows, so that a run may be continued with another batch size.
        ends = list(accumulate(self.sizes))
        self.epoch, self.position = state["epoch"], bisect_right(ends, state["rows"])


class Uniform:
    """Transitions drawn uniformly, with replacement."""

    epoch = 0
    passes = 0

    def __init__(self, storage: Transitions, *, batch_size: int, generator: torch.Generator):
        self.storage, self.batch_size, self.generator = storage, batch_size, generator

    def next(self) -> np.ndarray:
        return self.storage.draw(self.batch_size, self.generator)

    def sample(self, n: int, generator: torch.Generator) -> np.ndarray:
        return self.storage.draw(n, generator)

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])


class Prioritized(Uniform):
    """Transitions drawn in proportion to `priority^alpha`: Schaul et al. 2016, arXiv 1511.05952.

    A new transition has the highest priority so far. `weights` undo the bias:
    `w_i = (n P(i))^-beta / max_j w_j`, with beta rising to 1.

    Args:
        alpha: 0: uniform; 1: in proportion.
        beta: Share of the bias that is undone at first.
        anneal: Batches until beta is 1.
    """

    def __init__(
        self,
        storage: Transitions,
        *,
        batch_size: int,
        generator: torch.Generator,
        alpha: float = 0.6,
        beta: float = 0.4,
        anneal: int = 100_000,
    ):
        super().__init__(storage, batch_size=batch_size, generator=generator)
        self.alpha, self.beta, self.anneal = alpha, beta, max(anneal, 1)
        self.tree = SumTree(storage.size)
        self.highest, self.batches = 1.0, 0
        self._oldest = storage.oldest  # The first task whose rows have a priority.
        # From now on it tells what became final, and what went.
        storage.changes = [(np.flatnonzero(storage.drawable), True)]
        storage.follow = self.follow

    def next(self) -> np.ndarray:
        self.follow()
        self.batches += 1
        n, total = self.batch_size, self.tree.total
        if total <= 0:
            raise ConfigError("There is no transition to draw yet: raise seed_steps.")
        # One draw in each of n equal shares of the total: fewer doubles than n free draws.
        share = torch.rand(n, generator=self.generator, dtype=torch.float64).numpy()
        index = self.tree.find((np.arange(n) + share) * (total / n))
        rate = min(1.0, self.batches / self.anneal)
        probability = self.tree.get(index)
        # The number of transitions and the total are the same for all: the maximum takes them out.
        weights = (probability / probability.min()) ** -(self.beta + (1 - self.beta) * rate)
        self.weights = torch.from_numpy(weights.astype(np.float32))
        return index

    def update(self, index: np.ndarray, priority: np.ndarray) -> None:
        """Give rows their new priority, but for those that were overwritten since they were drawn."""
        live = np.ones(len(index), np.bool_)
        if overwritten := [rows for rows, ok in self.storage.changes or () if not ok]:
            # One that could be drawn before may hold another transition now.
            live = (self.tree.get(index) == 0) | ~np.isin(index, np.concatenate(overwritten))
        self.follow()
        priority = (np.abs(priority.astype(np.float64)) + _LOWEST) ** self.alpha
        if not np.isfinite(priority).all():
            raise ConfigError("A priority is NaN or infinite.")
        live &= self.storage.drawable.take(index)
        if not live.all():
            index, priority = index[live], priority[live]
        if len(index):
            self.highest = max(self.highest, float(priority.max()))
            self.tree.set(index, priority)

    def follow(self) -> None:
        """Give what became final the highest priority, and what went none."""
        changes = self.storage.changes
        if not changes:
            self._leave_out_tasks()
            return
        rows = np.concatenate([rows for rows, _ in changes])
        ok = np.repeat([ok for _, ok in changes], [len(rows) for rows, _ in changes])
        self.tree.set(rows, np.where(ok, self.highest, 0.0))
        changes.clear()
        self._leave_out_tasks()

    def _leave_out_tasks(self) -> None:
        """Leave no chance to rows of tasks that are no longer drawn from; others come back as new."""
        storage = self.storage
        if self._oldest == storage.oldest:
            return
        self._oldest, outside = storage.oldest, storage.outside()
        inside = storage.drawable_rows()
        if outside is not None:
            gone = np.flatnonzero(outside)
            self.tree.set(gone, np.zeros(len(gone)))
        back = inside[self.tree.get(inside) == 0]
        self.tree.set(back, np.full(len(back), self.highest))

    def state_dict(self) -> dict[str, Any]:
        self.follow()
        return {
            **super().state_dict(),
            "leaves": np.array(self.tree.leaves),
            "highest": self.highest,
            "batches": self.batches,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.tree.load(np.asarray(state["leaves"]))
        self.highest, self.batches = state["highest"], state["batches"]
        self._oldest = self.storage.oldest
        self.storage.changes = []


def batch_sizes(rows: int, batch_size: int) -> list[int]:
    """The sizes of the batches of one pass.

    >>> batch_sizes(10, 4), batch_sizes(9, 4), batch_sizes(1, 4)
    ([4, 4, 2], [4, 3, 2], [1])
    """
    full, rest = divmod(rows, batch_size)
    sizes = [batch_size] * full + [rest] * (rest > 0)
    if rest == 1 and full and batch_size > 2:
        sizes[-2:] = [batch_size - 1, 2]
    return sizes
