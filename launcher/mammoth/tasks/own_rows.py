"""A task's rows of a user's own data set, as models read and replace them: the data set itself."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ....replay import (ConfigError, Table)
from .own_items import (Drawn, Items, read_all)
from .rows import (check_classes, check_lengths)

if TYPE_CHECKING:
    from .sequence import ContinualDataset


class OwnRows:
    """The data set of a task, with `data`, `targets`, and whatever else it has, to be read and replaced.

    What a model puts there is read, with the data set's own transform, in place of what was.

    Args:
        sequence: That the task belongs to.
        part: The data set, of which a copy is kept, so that another run finds it as it was.
        chosen: Which of its rows are meant, bool `[N]`.
        task: The task's number.
        train: Whether they are to learn from.
    """

    extra_return_fields: tuple[str, ...] = ()

    def __init__(
        self, sequence: ContinualDataset, part: Any, chosen: Tensor, task: int, *, train: bool
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
        values = {"_sequence": sequence, "_part": own, "_task": task, "train": train}
        values["_held"] = {name: getattr(own, name, None) for name in ("data", "targets")}
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.__dict__["_part"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._part, name, value)

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, place: int) -> Any:
        return self._part[place]

    def read(self, places: Tensor) -> tuple[Tensor, ...]:
        """A batch of the rows at these places, int64 `[B]`, where the model is."""
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
        """Whether other rows or labels were put here than the data set had."""
        return any(getattr(self._part, name, None) is not held for name, held in self._held.items())

    def reset(self) -> None:
        """Be the data set's own rows again."""
        for name, held in self._held.items():
            if held is not None:
                setattr(self._part, name, held)

    def table(self) -> Table:
        """All rows, to learn from.

        Raises:
            ConfigError: If there are more rows than labels, or labels of no class.
        """
        part = self._part
        check_lengths(len(part.data), len(part.targets))
        labels = torch.as_tensor(np.asarray(part.targets)).long()
        check_classes(labels, self._sequence.N_CLASSES)
        shape = tuple(self._sequence.spec.obs.shape)
        if self._sequence.parts.rows.augment is None:  # Nothing is drawn: once is enough.
            return Table(**read_all(self._items(), shape))
        return Drawn(self._items(), shape, labels, task=self._task)

    def _items(self) -> Items:
        return Items([self._part], type(self._part).__name__, parts_of_item=3 if self.train else 2)


def rows_of(data: Any, chosen: np.ndarray[Any, Any]) -> Any:
    """Some rows of an array, a tensor or a list."""
    if isinstance(data, Tensor):
        return data[torch.from_numpy(chosen)]
    if isinstance(data, (list, tuple)):
        return [row for row, keep in zip(data, chosen, strict=True) if keep]
    return data[chosen]
