"""The items of a user's own data sets, checked, and read each time a batch needs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...replay import DataError, LazyColumn, Table


class Drawn(Table):
    """Rows that are read, and transformed another way, each time."""

    def __init__(self, items: Items, shape: tuple[int, ...], labels: Tensor):
        options: dict[str, Any] = {"shape": shape, "dtype": torch.float32, "changes": True}
        columns = (LazyColumn(items, lambda item, k=k: item[k], **options) for k in (0, 2))
        super().__init__(obs=next(columns), raw=next(columns), label=labels)
        self._items = items

    def gather(self, index: Tensor, *, empty: Any = None) -> dict[str, Tensor]:
        items = [self._items[i] for i in index.tolist()]  # Each once, for both of its parts.
        obs, raw = (torch.stack([item[k] for item in items]) for k in (0, 2))
        return {"obs": obs, "raw": raw, "label": self._take["label"](index)}


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
                f"Item {i} of {self.name} is {_described(item)}. It has to be (input, label"
                f"{', input not augmented' if self.needed == 3 else ''})."
            )
        tensors = [self._tensor(part, i, k) for k, part in enumerate(item[: self.needed]) if k != 1]
        return (tensors[0], int(item[1]), *tensors[1:])

    def _tensor(self, part: Any, i: int, k: int) -> Tensor:
        if isinstance(part, np.ndarray):
            part = torch.from_numpy(part)
        if not isinstance(part, Tensor):
            which = "TRANSFORM and TEST_TRANSFORM end" if k == 0 else "not_aug_transform ends"
            raise DataError(
                f"Item {i} of {self.name} holds a {type(part).__name__} where a tensor has to be: "
                f"see that {which} with ToTensor()."
            )
        return part.float()


def _described(item: Any) -> str:
    if isinstance(item, (tuple, list)):
        return f"({', '.join(type(part).__name__ for part in item)})"
    return f"a {type(item).__name__}"
