"""Which rows the next batch holds. Each sampler's state is enough to continue it exactly."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, count
from typing import Any

import torch
from torch import Tensor

from .errors import ConfigError

_PATIENCE = 100  # Draws after which to ask whether there is anything to be drawn.


class Epochs:
    """Every row of an index set once per pass, in a new random order each pass.

    The last batch of a pass may be smaller. A remainder of a single row borrows one from the batch
    before it, because BatchNorm cannot train on one: 129 rows in batches of 64 are 64 + 63 + 2.

    Args:
        index: int64 `[n]`, the rows to visit.
        batch_size: Rows per batch, at most.
        generator: Draws the orders; owned by this sampler alone.
        task: The number of the task that the rows are of.
    """

    def __init__(
        self, index: Tensor, *, batch_size: int, generator: torch.Generator, task: int = 0
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
        # Split once a pass: a batch then costs a list access, not a slice.
        rows = torch.index_select(self.index, 0, order.to(self.index.device))
        self._batches = rows.split(self.sizes)
        # Made with the order, so that every batch has a part of its own at no cost.
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

    def tasks(self) -> Tensor:
        """The task of each row of the last batch, int64."""
        return self._tasks[self.position - 1]

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` rows drawn with replacement; the pass does not move on."""
        draw = torch.randint(len(self.index), (n,), generator=generator)
        return self.index[draw.to(self.index.device)]

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
    """Rows drawn uniformly, with replacement, from those of a storage that can be drawn.

    The window of live rows is drawn from and the few rows that are not transitions are rejected: a
    list of drawable rows would have to be kept for every environment.
    """

    epoch = 0
    passes = 0

    def __init__(self, storage: Any, *, batch_size: int, generator: torch.Generator):
        self.storage, self.batch_size, self.generator = storage, batch_size, generator

    def next(self) -> Tensor:
        return self.sample(self.batch_size, self.generator)

    def tasks(self) -> Tensor:
        raise AssertionError("transitions are stored with their task")

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        if len(self.storage) == 0:
            raise ConfigError("There is no transition to draw yet: raise seed_steps.")
        index = self.storage.draw(n, generator)
        for attempt in count(1):
            if (valid := self.storage.drawable(index)).all():
                break
            if attempt == _PATIENCE and self.storage.count() == 0:
                raise ConfigError("The replay holds no transition: raise capacity.")
            wrong = (~valid).nonzero().flatten()
            index[wrong] = self.storage.draw(len(wrong), generator)
        return index

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])


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
