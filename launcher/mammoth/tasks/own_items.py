"""The items of a user's data sets, checked, and read whenever a batch needs them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....replay import (DataError, LazyColumn, Table)


class Drawn(Table):
    """Rows that are read and randomly transformed each time.

    Args:
        task: Whose rows they take the place of, if they do.
    """

    def __init__(
        self, items: Items, shape: tuple[int, ...], labels: Tensor, *, task: int | None = None
    ):
        options: dict[str, Any] = {"shape": shape, "dtype": torch.float32, "changes": True}
        obs, raw = (LazyColumn(items, itemgetter(place), **options) for place in (0, 2))
        super().__init__(obs=obs, raw=raw, label=labels)
        self._items, self._shape, self.task = items, shape, task

    def gather(self, index: Tensor, *, empty: Any = None) -> dict[str, Tensor]:
        items = [self._items[i] for i in index.tolist()]  # Each once, for both of its parts.
        obs, raw = (torch.stack([item[k] for item in items]) for k in (0, 2))
        return {"obs": obs, "raw": raw, "label": self._take["label"](index)}

    def saved(self) -> dict[str, Any]:
        part = self._items.parts[0]
        return {"task": self.task, "data": part.data, "label": self.columns["label"]}

    def restored(self, saved: dict[str, Any]) -> Table:
        if "task" not in saved:  # They were read once: nothing in them is drawn.
            return super().restored(saved)
        part = copy.copy(self._items.parts[saved["task"]])
        part.data, part.targets = saved["data"], saved["label"].numpy()
        items = Items([part], self._items.name, parts_of_item=3)
        return Drawn(items, self._shape, saved["label"], task=saved["task"])


class Items:
    """The items of all tasks in turn, checked: `(input, label)` and, to learn from, what is not augmented."""

    def __init__(self, parts: list[Any], name: str, *, parts_of_item: int):
        self.parts, self.name, self.needed = parts, name, parts_of_item
        sizes = np.array([len(part) for part in parts])
        self.first = np.concatenate([[0], sizes.cumsum()])
        if empty := [task for task, size in enumerate(sizes) if not size]:
            raise DataError(f"Task {empty[0]} of {name} has no rows.")

    def __len__(self) -> int:
        return int(self.first[-1])

    def __getitem__(self, i: int) -> tuple[Any, ...]:
        if not 0 <= i < len(self):
            raise IndexError(i)
        task = int(np.searchsorted(self.first, i, side="right")) - 1
        item = self.parts[task][i - int(self.first[task])]
        if not isinstance(item, (tuple, list)) or len(item) < self.needed:
            raise DataError(
                f"Item {i} of {self.name} is {_described(item)}. It must be (input, "
                f"label{', input without augmentation' if self.needed == 3 else ''})."
            )
        tensors = [self._tensor(part, i, k) for k, part in enumerate(item[: self.needed]) if k != 1]
        return (tensors[0], int(item[1]), *tensors[1:])

    def _tensor(self, part: Any, i: int, k: int) -> Tensor:
        if isinstance(part, np.ndarray):
            part = torch.from_numpy(part)
        if not isinstance(part, Tensor):
            which = "TRANSFORM and TEST_TRANSFORM end" if k == 0 else "not_aug_transform ends"
            raise DataError(
                f"Item {i} of {self.name} holds a {type(part).__name__} instead of a tensor. Make sure "
                f"that {which} with ToTensor()."
            )
        return part.float()


def _described(item: Any) -> str:
    if isinstance(item, (tuple, list)):
        return f"({', '.join(type(part).__name__ for part in item)})"
    return f"a {type(item).__name__}"


def read_all(items: Items, shape: Sequence[int]) -> dict[str, Tensor]:
    """All items, read once: `obs`, `label`, and `raw` where they have a third part."""
    n = len(items)
    columns = {"obs": torch.empty(n, *shape), "label": torch.empty(n, dtype=torch.int64)}
    if items.needed == 3:
        columns["raw"] = torch.empty(n, *shape)
    for i in range(n):
        item = items[i]
        for key, k in (("obs", 0), ("raw", 2)):
            if key not in columns:
                continue
            if item[k].shape != columns[key].shape[1:]:
                raise DataError(
                    f"Items of {items.name} differ in shape: {list(shape)} and {list(item[k].shape)} at "
                    f"{i}."
                )
            columns[key][i] = item[k]
        columns["label"][i] = item[1]
    return columns
