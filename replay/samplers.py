"""Samplers choose the rows of the next batch. A sampler's state suffices to continue it exactly."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import ConfigError
from .shuffled import Shuffled
from .sumtree import SumTree
from .transfer import upload
from .transitions import Transitions
from .windows import Windows

_MANY = 2**20  # Rows whose order is not held as a whole.
_PART = 2**16  # Rows whose order is computed at once then.
_LOWEST = 1e-6  # Added to priorities, so that every row can be drawn.


class Epochs:
    """Every row of an index set once per pass, in a new random order each pass.

    The last batch of a pass may be smaller. A remainder of a single row borrows one from the batch
    before it, because BatchNorm cannot train on one: 129 rows in batches of 64 are 64 + 63 + 2.

    The order of more than a million rows is computed a part at a time (`Shuffled`): held as a whole, that
    of 10 million takes 665 MiB, and seconds at the start of each pass.

    Args:
        index: The rows to visit, int64 `[n]`.
        batch_size: Largest number of rows per batch.
        generator: Draws the orders; used by this sampler only.
        task: The number of the rows' task, or of each row's, int64 `[n]`.
        window: Rows in a window within which orders are shuffled (`Windows`); 0: orders are uniform.
        in_turn: Whether windows come in the order of the rows.
    """

    def __init__(
        self,
        index: Tensor,
        *,
        batch_size: int,
        generator: torch.Generator,
        task: int | Tensor = 0,
        window: int = 0,
        in_turn: bool = False,
    ):
        self.window, self.in_turn = window, in_turn
        if window and in_turn and len(index):
            # In rows of the source: between those of a task, all others are read as well.
            span = int(index.max() - index.min()) + 1
            self.window = window = max(1, window * len(index) // span)
        self.index, self.batch_size, self.generator = index, batch_size, generator
        self.task = task
        self.sizes = batch_sizes(len(index), batch_size)
        self.epoch = 0  # The pass that the last batch belongs to.
        self.position = 0  # Batches returned in this pass.
        # The first row, if all are neighbours: their numbers then need no look-up, far apart in memory.
        self._begin = _only_neighbours(index) if len(index) > _MANY else None
        self._shuffle(in_parts=len(index) > _MANY, window=window)

    def _shuffle(self, *, in_parts: bool, window: int) -> None:
        # Kept so that a resumed run draws this very order again and skips to `position`.
        self._order_state, self._in_parts = self.generator.get_state(), in_parts
        self._window = window  # That of this pass.
        self._first = 0  # The number of the first batch in `_batches`.
        self._batches: Sequence[Tensor] = ()
        self._tasks: Sequence[Tensor] = ()
        self._order: Shuffled | Windows
        if window:
            n, turns = len(self.index), self.in_turn
            self._order = Windows(n, window, self.generator, in_turn=turns)
        elif in_parts:
            self._order = Shuffled(len(self.index), self.generator)
        else:
            self._split(torch.randperm(len(self.index), generator=self.generator), self.sizes)

    def _split(self, order: Tensor, sizes: list[int]) -> None:
        """Prepare batches of these sizes, of the rows at these places of the index."""
        order = upload(order, self.index.device)
        # Split now, all at once: a batch then costs a list access, not a slice.
        begin = self._begin
        rows = self.index.index_select(0, order) if begin is None else order + begin
        self._batches = rows.split(sizes)
        # Split along with the order, so that a batch's tasks cost nothing.
        if isinstance(self.task, Tensor):
            self._tasks = self.task.index_select(0, order).split(sizes)
        else:
            self._tasks = torch.full_like(rows, self.task).split(sizes)

    def _prepare(self) -> None:
        """Prepare the batch at `position`, and some that follow it; at the end of a pass, the next pass."""
        if self.position == len(self.sizes):
            self.epoch += 1
            self.position = 0
            self._shuffle(in_parts=len(self.index) > _MANY, window=self.window)
        if self._in_parts or self._window:
            count = max(1, _PART // self.batch_size)
            self._first = self.position // count * count
            sizes = self.sizes[self._first : self._first + count]
            # All batches before it are full, but for one that lent the last batch a row.
            start = min(self._first * self.batch_size, len(self.index) - self.sizes[-1])
            self._split(self._order.rows(start, start + sum(sizes)), sizes)

    @property
    def passes(self) -> int:
        """Complete passes so far."""
        return self.epoch + (self.position == len(self.sizes))

    @property
    def drawn(self) -> int:
        """Batches so far, had all of them had today's sizes."""
        return self.epoch * len(self.sizes) + self.position

    def __len__(self) -> int:
        """Batches per pass."""
        return len(self.sizes)

    def next(self) -> Tensor:
        if self.position - self._first >= len(self._batches):
            self._prepare()
        index = self._batches[self.position - self._first]
        self.position += 1
        return index

    def peek(self) -> Tensor | None:
        """The tensor object that `next` will return; None if it is not known yet, as at the end of a pass."""
        at = self.position - self._first
        return self._batches[at] if at < len(self._batches) else None

    def tasks(self) -> Tensor:
        """The task of each row of the last batch, int64."""
        return self._tasks[self.position - 1 - self._first]

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
        # In parts or not: the same state of the generator means another order.
        parts: dict[str, Any] = {"in_parts": True} if self._in_parts else {}
        if self._window:
            parts["window"] = self._window
        return {"epoch": self.epoch, "rows": rows, "order": self._order_state, **parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["order"])
        self._shuffle(in_parts=state.get("in_parts", False), window=state.get("window", 0))
        # In rows, so that a run can be resumed with another batch size.
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

    A new transition gets the highest priority so far. `weights` correct the bias:
    `w_i = (n P(i))^-beta / max_j w_j`, with beta rising to 1.

    Args:
        alpha: Float in [0, 1]. 0: uniform; 1: proportional.
        beta: Initial share of the bias that is corrected, a float in [0, 1].
        anneal: Number of batches until beta is 1.
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
        self._oldest = storage.oldest  # The first task whose rows can be drawn.
        # From now on it reports rows that became final, and rows that were overwritten.
        storage.changes = [(np.flatnonzero(storage.drawable), True)]
        storage.follow = self.follow

    def next(self) -> np.ndarray:
        self.follow()
        self.batches += 1
        n, total = self.batch_size, self.tree.total
        if total <= 0:
            raise ConfigError("There is no transition to draw yet: raise seed_steps.")
        # Stratified: one draw in each of n equal shares of the total gives fewer duplicates.
        share = torch.rand(n, generator=self.generator, dtype=torch.float64).numpy()
        index = self.tree.find((np.arange(n) + share) * (total / n))
        rate = min(1.0, self.batches / self.anneal)
        probability = self.tree.get(index)
        # The number of transitions and the total are common factors, which dividing by the maximum cancels.
        weights = (probability / probability.min()) ** -(self.beta + (1 - self.beta) * rate)
        self.weights = torch.from_numpy(weights.astype(np.float32))
        return index

    def update(self, index: np.ndarray, priority: np.ndarray) -> None:
        """Set new priorities, except for rows that were overwritten since they were drawn."""
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
        """Give rows that became final the highest priority, and overwritten rows none."""
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
        """Exclude rows of tasks that are no longer drawn from; rows of other tasks return as new ones."""
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
            "leaves": self.tree.leaves,
            "highest": self.highest,
            "batches": self.batches,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.tree.load(np.asarray(state["leaves"]))
        self.highest, self.batches = state["highest"], state["batches"]
        self._oldest = self.storage.oldest
        self.storage.changes = []


def _only_neighbours(index: Tensor) -> int | None:
    """The first of rows that follow each other without a gap, int64 `[n]`; None: they do not."""
    for part, after in zip(index.split(_PART), index[1:].split(_PART), strict=False):
        if not bool((after - part[: len(after)] == 1).all()):
            return None
    return int(index[0])


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
