"""Mammoth's `Buffer`, on our `Memory`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...replay import ConfigError, Memory
from ...replay.transfer import upload


class Buffer(Memory):
    """Mammoth's name for a reservoir of rows; a `Memory` that is told its fields by position.

    >>> buffer = Buffer(100)
    >>> buffer.add_data(torch.rand(8, 2), labels=torch.arange(8))
    >>> [field.shape for field in buffer.get_data(4)]
    [torch.Size([4, 2]), torch.Size([4])]

    Args:
        buffer_size: Rows, at most.
        device: Where they are kept; None: where the first ones come from.
    """

    attributes = ("examples", "labels", "logits", "task_labels")

    def __init__(self, buffer_size: int, device: torch.device | str | None = None):
        super().__init__(buffer_size)
        self.device = None if device is None else torch.device(device)

    def __getattr__(self, name: str) -> Tensor:
        """The rows held of a field, as they are kept: what is written there stays."""
        columns = self.__dict__.get("_columns", {})
        if (name,) not in columns:
            there = ", ".join(key for (key,) in columns) or "nothing yet"
            raise AttributeError(f"This buffer has no `{name}`; it holds {there}.")
        held: Tensor = columns[(name,)][: len(self)]
        return held

    @property
    def buffer_size(self) -> int:
        return self.capacity

    @property
    def num_seen_examples(self) -> int:
        return self.seen

    @property
    def used_attributes(self) -> list[str]:
        """The fields that rows have."""
        return [name for name in self.attributes if (name,) in self._columns]

    def is_empty(self) -> bool:
        return len(self) == 0

    def is_full(self) -> bool:
        return len(self) == self.capacity

    def to(self, device: torch.device | str) -> Buffer:
        """Keep the rows there."""
        self.device = torch.device(device)
        if self._columns:
            self._move(self.device)
        return self

    def reset(self) -> None:
        """Forget every row."""
        self.clear()

    empty = reset

    def add_data(
        self,
        examples: Tensor,
        labels: Tensor | None = None,
        logits: Tensor | None = None,
        task_labels: Tensor | None = None,
    ) -> None:
        """Offer rows; the first call says which fields rows have.

        Args:
            examples: `[B, *shape]`, kept as float32.
            labels: `[B]`, kept as int64.
            logits: `[B, n]`, kept as float32.
            task_labels: `[B]`, kept as int64.
        """
        fields = {"examples": examples.float()}
        if labels is not None:
            fields["labels"] = labels.long()
        if logits is not None:
            fields["logits"] = logits.float()
        if task_labels is not None:
            fields["task_labels"] = task_labels.long()
        device = self.device or examples.device
        self.add({name: field.to(device) for name, field in fields.items()})

    def get_data(
        self,
        size: int,
        transform: Any = None,
        return_index: bool = False,
        device: torch.device | str | None = None,
    ) -> tuple[Tensor, ...]:
        """`min(size, len(buffer))` different rows: a tensor of each field, after their places if asked.

        Args:
            transform: Of examples: the model's own, of all of them; any other of one after the other.
            device: Where to; None: where they are kept.

        Raises:
            ConfigError: If the buffer is empty.
        """
        if self.is_empty():
            raise ConfigError("The buffer is empty: look at `is_empty()` before drawing from it.")
        places = torch.from_numpy(
            self._streams[1].choice(len(self), min(size, len(self)), replace=False)
        )
        data = self.get_data_by_index(places, transform, device)
        return (places.to(data[0].device), *data) if return_index else data

    def get_data_by_index(
        self, indexes: Tensor, transform: Any = None, device: torch.device | str | None = None
    ) -> tuple[Tensor, ...]:
        """The rows at these places, int64 `[B]`."""
        columns = [self._columns[(name,)] for name in self.used_attributes]
        places = upload(indexes, columns[0].device).to(columns[0].device)
        fields = [column.index_select(0, places).to(device or column.device) for column in columns]
        return _transformed(fields[0], transform), *fields[1:]

    def get_all_data(
        self, transform: Any = None, device: torch.device | str | None = None
    ) -> tuple[Tensor, ...]:
        """Every row held."""
        return self.get_data_by_index(torch.arange(len(self)), transform, device)


def _transformed(rows: Tensor, transform: Any) -> Tensor:
    if transform is None:
        return rows
    if getattr(transform, "takes_batches", False):
        whole: Tensor = transform(rows)
        return whole
    return torch.stack([transform(row) for row in rows]).to(rows.device)
