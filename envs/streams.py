"""An `IterableDataset` as rows by number: read in order, with the last rows kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..replay import DataError
from .item import ItemSource


class StreamRows(Dataset[Any]):
    """The items of a source that can only be iterated over, from its beginning.

    It is read to its end once, for its length and its targets, and again in each pass. Rows are to be
    asked for in order, but for those of one window: what lies further back is read again from the beginning.

    Args:
        source: An iterable of `(input, target)`; each pass over it yields the same items in the same order.
        name: What errors call it.
        window: Number of rows that may be read in any order.

    Attributes:
        targets: The target of each row.

    Raises:
        DataError: If it is empty, or an item is not `(input, target)`.
    """

    in_turn = True

    def __init__(self, source: Any, name: str, window: int):
        self.source, self.name = source, name
        self.targets = [target for _, target in self._items()]
        if not self.targets:
            raise DataError(f"{name} is empty: iterating over it yields nothing.")
        self._held: deque[Any] = deque(maxlen=2 * window)
        self._end = 0  # Rows read in this pass.
        self._left: Iterator[Any] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> Any:
        if not 0 <= i < len(self):
            raise IndexError(i)
        if self._left is None or i < self._end - len(self._held):
            self._held.clear()
            self._left, self._end = self._items(), 0
        while self._end <= i:
            item = next(self._left, None)
            if item is None or not _same(item[1], self.targets[self._end]):
                how = "ended" if item is None else f"had the target {item[1]!r:.40}"
                raise DataError(
                    f"{self.name} differs from one pass to the next: item {self._end} {how}, and had the "
                    f"target {self.targets[self._end]!r:.40} before. Each pass has to yield the same items "
                    "in the same order: leave the shuffling to the run, and close no files that it reads."
                )
            self._held.append(item)
            self._end += 1
        return self._held[i - self._end]

    def _items(self) -> Iterator[tuple[Any, Any]]:
        checked = ItemSource(_One(), self.name)
        for number, item in enumerate(self.source):
            checked.source.item = item
            yield checked[number]


class _One:
    """The item in hand, whatever number it is asked for by."""

    item: Any = None

    def __len__(self) -> int:
        return 1

    def __getitem__(self, i: int) -> Any:
        return self.item


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        one, other = one.numpy(), np.asarray(other)
    return bool(np.array_equal(one, other))
