"""A task's rows in a user's own data set: models read and replace the attributes of the data set itself."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ....replay import ConfigError, DataError, LazyColumn, Table
from .rows import Tasks, check_classes, check_lengths


class OwnRows:
    """The data set of a task, whose `data`, `targets` and other attributes a model may read and replace.

    Rows that a model substitutes are read with the data set's own transform.

    Args:
        sequence: The sequence that the task belongs to.
        part: The data set; it is copied, so that another run finds the original unchanged.
        chosen: bool `[N]`, which of its rows belong to the task.
        task: int, the task's number.
        train: Whether the rows are for training.
        drawn: Whether the transform is random, so that rows must be read again for every batch.
    """

    extra_return_fields: tuple[str, ...] = ()

    def __init__(
        self,
        sequence: Tasks,
        part: Any,
        chosen: Tensor,
        task: int,
        *,
        train: bool,
        drawn: bool,
    ):
        own = copy.copy(part)
        if not bool(chosen.all()):
            if not (hasattr(own, "data") and hasattr(own, "targets")):
                raise ConfigError(
                    "validation= needs `data` and `targets` to hold rows out, which "
                    f"{type(part).__name__} lacks."
                )
            own.data = rows_of(own.data, chosen.numpy())
            own.targets = rows_of(np.asarray(own.targets), chosen.numpy())
        values = {
            "_sequence": sequence,
            "_part": own,
            "_task": task,
            "train": train,
            "_drawn": drawn,
        }
        values["_held"] = _arrays(own)
        # Past `__setattr__`, which writes to the data set.
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        # `copy` and `pickle` look for special methods before there is a `_part`: no endless recursion.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.__dict__["_part"], name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._part, name, value)

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, place: int) -> Any:
        return self._part[place]

    def read(self, places: Tensor) -> tuple[Tensor, ...]:
        """A batch of the rows at these places, int64 `[B]`, on the model's device."""
        device = self._sequence.device
        items = self._items()
        read = [items[i] for i in places.tolist()]
        inputs = torch.stack([item[0] for item in read]).to(device)
        labels = torch.tensor([item[1] for item in read]).to(device)
        if not self.train:
            return inputs, labels
        return inputs, labels, torch.stack([item[2] for item in read]).to(device)

    @property
    def changed(self) -> bool:
        """Whether a model has replaced the rows or the labels of the data set."""
        # By identity: comparing by value would need a second copy of all rows.
        now = _arrays(self._part)
        return any(now[name] is not held for name, held in self._held.items())

    def reset(self) -> None:
        """Restore the data set's own rows."""
        for name, held in self._held.items():
            if held is not None:
                setattr(self._part, name, held)

    def table(self) -> Table:
        """All rows, to learn from.

        Raises:
            ConfigError: If rows and labels differ in number, or a label is out of range.
        """
        part = self._part
        check_lengths(len(part.data), len(part.targets))
        labels = torch.as_tensor(np.asarray(part.targets)).long()
        check_classes(labels, self._sequence.N_CLASSES)
        shape = tuple(self._sequence.spec.obs.shape)
        if not self._drawn:  # Items never change: they are read once.
            return Table(**read_all(self._items(), shape))
        return Drawn(self._items(), shape, labels, task=self._task)

    def _items(self) -> Items:
        return Items([self._part], type(self._part).__name__, parts_of_item=3 if self.train else 2)


def _arrays(part: Dataset[Any]) -> dict[str, Any]:
    """The `data` and the `targets` of a data set, each None if it has none."""
    data = part.data if hasattr(part, "data") else None
    return {"data": data, "targets": part.targets if hasattr(part, "targets") else None}


def rows_of(data: Any, chosen: np.ndarray[Any, Any]) -> Any:
    """The chosen rows (bool `[N]`) of an array, a tensor or a list."""
    if isinstance(data, Tensor):
        return data[torch.from_numpy(chosen)]
    if isinstance(data, (list, tuple)):
        return [row for row, keep in zip(data, chosen, strict=True) if keep]
    return data[chosen]


class Drawn(Table):
    """Rows that are read, and randomly transformed, for every batch.

    Args:
        items: The rows.
        shape: Shape of an input.
        labels: int64 `[N]`.
        task: int, the task whose rows they replace; None if they replace none.
    """

    def __init__(
        self, items: Items, shape: tuple[int, ...], labels: Tensor, *, task: int | None = None
    ):
        options: dict[str, Any] = {"shape": shape, "dtype": torch.float32, "changes": True}
        obs, raw = (LazyColumn(items, itemgetter(place), **options) for place in (0, 2))
        super().__init__(obs=obs, raw=raw, label=labels)
        self._items, self._shape, self.task = items, shape, task

    def gather(self, index: Tensor, *, empty: Any = None) -> dict[str, Tensor]:
        # An item is read once for both of its parts: they come from one random draw.
        items = [self._items[i] for i in index.tolist()]
        obs, raw = (torch.stack([item[k] for item in items]) for k in (0, 2))
        return {"obs": obs, "raw": raw, "label": self._take["label"](index)}

    def saved(self) -> dict[str, Any]:
        # The rows themselves, not their inputs: these are drawn again in every batch.
        part = self._items.parts[0]
        return {"task": self.task, "data": part.data, "label": self.columns["label"]}

    def restored(self, saved: dict[str, Any]) -> Table:
        if "task" not in saved:  # Saved from a table that is not read again for every batch.
            return super().restored(saved)
        part = copy.copy(self._items.parts[saved["task"]])
        part.data, part.targets = saved["data"], saved["label"].numpy()
        items = Items([part], self._items.name, parts_of_item=3)
        return Drawn(items, self._shape, saved["label"], task=saved["task"])


class Items:
    """The items of all tasks, one task after another, checked when they are read.

    An item is `(input, label)`, for training `(input, label, input without augmentation)`.

    Args:
        parts: The data sets of the tasks.
        name: What messages call the data.
        parts_of_item: int, 2 or 3, how many parts an item must have.

    Raises:
        DataError: If a task has no rows.
    """

    def __init__(self, parts: list[Any], name: str, *, parts_of_item: int):
        self.parts, self.name, self.needed = parts, name, parts_of_item
        sizes = np.array([len(part) for part in parts])
        self.first = np.concatenate([[0], sizes.cumsum()])
        # Said here: an empty task would otherwise fail much later, with an index out of range.
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

    def _tensor(self, part: object, i: int, k: int) -> Tensor:
        if isinstance(part, np.ndarray):
            part = torch.from_numpy(part)
        if not isinstance(part, Tensor):
            which = "TRANSFORM and TEST_TRANSFORM end" if k == 0 else "not_aug_transform ends"
            raise DataError(
                f"Item {i} of {self.name} holds a {type(part).__name__} instead of a tensor. Make sure "
                f"that {which} with ToTensor()."
            )
        return part.float()


def _described(item: object) -> str:
    if isinstance(item, (tuple, list)):
        return f"({', '.join(type(part).__name__ for part in item)})"
    return f"a {type(item).__name__}"


def read_all(items: Items, shape: Sequence[int]) -> dict[str, Tensor]:
    """All items, read once: `obs` `[N, *shape]`, `label` `[N]`, and `raw` where they have a third part."""
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
