"""Rows with named fields, stored and drawn through the interface of Mammoth's buffers."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from ...replay import ConfigError, Memory
from ...replay.transfer import upload
from .augmentations import apply_transform
from .tasks.loaders import create_seeded_dataloader


class FieldMemory(Memory):
    """A memory whose fields are attributes, and the tensors of a batch in a fixed order.

    Args:
        capacity: int, the largest number of rows.
        device: Device that stores the rows; None: that of the first rows.
    """

    attributes = ("examples", "labels", "logits", "task_labels", "true_labels")

    def __init__(self, capacity: int, device: torch.device | str | None = None):
        super().__init__(capacity)
        self._wanted = None if device is None else torch.device(device)

    def __getattr__(self, name: str) -> Tensor:
        """A field of the stored rows, as a view: writes to it persist."""
        columns = self.__dict__.get("_columns", {})
        if (name,) not in columns:
            there = ", ".join(key for (key,) in columns) or "nothing yet"
            raise AttributeError(f"This buffer has no `{name}`; it holds {there}.")
        held: Tensor = columns[(name,)][: len(self)]
        return held

    def __setattr__(self, name: str, value: object) -> None:
        """Replace a field of the stored rows, `buffer.logits = logits`, or set any other attribute."""
        if name not in type(self).attributes:
            object.__setattr__(self, name, value)
            return
        kept = torch.as_tensor(value, dtype=dtype_of(name), device=self.device)
        if len(kept) != len(self):
            raise ConfigError(
                f"Buffer: {len(kept)} {name} for {len(self)} stored rows. Use add_data to add rows."
            )
        # Fields are stored with room for all rows, in no graph: a buffer must not keep activations alive.
        column = kept.new_empty((self.capacity, *kept.shape[1:]))
        column[: len(self)] = kept.detach()
        self._columns[(name,)] = column

    @property
    def device(self) -> torch.device:
        """Device of its rows."""
        return self._wanted or self._device

    @device.setter
    def device(self, device: torch.device | str) -> None:
        self.to(device)

    @property
    def choices(self) -> np.random.Generator:
        """Random stream that decides which rows are stored. Draws use another one, and do not disturb it."""
        if not self._streams:
            self._start_streams()
        return self._streams[0]

    @property
    def num_seen_examples(self) -> int:
        return self.seen

    @num_seen_examples.setter
    def num_seen_examples(self, value: int) -> None:
        self.seen = value

    @property
    def used_attributes(self) -> list[str]:
        """Names of the stored fields."""
        return [name for name in self.attributes if (name,) in self._columns]

    def is_empty(self) -> bool:
        return len(self) == 0

    def to(self, device: torch.device | str) -> Self:
        """Move the rows to a device."""
        self._wanted = torch.device(device)
        if self._columns:
            self._move(self._wanted)
        return self

    def reset(self) -> None:
        """Delete all rows."""
        self.clear()

    empty = reset  # Mammoth has both names.

    def get_data(
        self,
        size: int,
        transform: Callable[..., Any] | None = None,
        return_index: bool = False,
        device: torch.device | str | None = None,
        mask_task_out: int | None = None,
        cpt: int | None = None,
        return_not_aug: bool = False,
        not_aug_transform: Callable[..., Any] | None = None,
        force_indexes: Tensor | Sequence[int] | None = None,
    ) -> tuple[Tensor, ...]:
        """`min(size, len(buffer))` different rows, drawn uniformly: a tensor `[B, ...]` of each field.

        Args:
            size: int, rows at most.
            transform: Applied to the examples: the model's own to the whole batch, others row by row.
            return_index: Return the rows' places first, int64 `[B]`.
            device: Device of the result; None: that of the buffer.
            mask_task_out: int, a task to leave out, recognised by `task_labels`, else by `labels // cpt`.
            cpt: int, classes per task, for rows without `task_labels`.
            return_not_aug: Return the examples without `transform` too, before those with it.
            not_aug_transform: Applied to the examples without `transform`.
            force_indexes: int64 `[B]`, the places of the rows to return instead of drawn ones.

        Raises:
            ConfigError: If the buffer is empty, or cannot tell tasks apart.
        """
        if self.is_empty():
            raise ConfigError("The buffer is empty. Check `is_empty()` before sampling.")
        if force_indexes is not None:
            places = torch.as_tensor(force_indexes)
        else:
            there, available = None, len(self)
            if mask_task_out is not None:
                there = np.flatnonzero((self._tasks(cpt) != mask_task_out).cpu().numpy())
                available = len(there)
            drawn = self._draws.choice(available, min(size, available), replace=False)
            places = torch.from_numpy(drawn if there is None else there[drawn])
        data = self.get_data_by_index(places, transform, device)
        if return_not_aug:
            plain = self.get_data_by_index(places, not_aug_transform, device)[0]
            data = (plain, *data)
        return (places.to(data[0].device), *data) if return_index else data

    def get_balanced_data(
        self, size: int, transform: Callable[..., Any] | None = None, n_classes: int = -1
    ) -> tuple[Tensor, ...]:
        """Rows of `n_classes` random classes, equally many of each; -1: of all stored classes."""
        if self.is_empty():
            raise ConfigError("The buffer is empty. Check `is_empty()` before sampling.")
        labels = self.labels.cpu().numpy()
        stream = self._draws
        classes = stream.permutation(np.unique(labels))[: n_classes if n_classes > 0 else None]
        # The smallest classes first: what they lack is divided among the larger ones.
        rows = {c: stream.permutation(np.flatnonzero(labels == c)) for c in classes}
        places: list[int] = []
        for left, label in enumerate(sorted(classes, key=lambda c: len(rows[c]))):
            share = -(-(size - len(places)) // (len(classes) - left))
            places += rows[label][: max(share, 0)].tolist()
        return self.get_data_by_index(torch.tensor(places), transform)

    def get_data_by_index(
        self,
        indexes: Tensor,
        transform: Callable[..., Any] | None = None,
        device: torch.device | str | None = None,
    ) -> tuple[Tensor, ...]:
        """The rows at these places, int64 `[B]`."""
        columns = [self._columns[(name,)] for name in self.used_attributes]
        places = upload(torch.as_tensor(indexes), columns[0].device).to(columns[0].device)
        fields = [column.index_select(0, places).to(device or column.device) for column in columns]
        return apply_transform(fields[0], transform), *fields[1:]

    def get_all_data(
        self, transform: Callable[..., Any] | None = None, device: torch.device | str | None = None
    ) -> tuple[Tensor, ...]:
        """Every row held."""
        return self.get_data_by_index(torch.arange(len(self)), transform, device)

    def __getitem__(self, index: int) -> list[Tensor]:
        """The row at a place."""
        if index >= len(self):
            raise IndexError(index)
        return [field[0] for field in self.get_data_by_index(torch.tensor([index]))]

    def get_dataloader(
        self,
        args: Namespace | None,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        transform: Callable[..., Any] | None = None,
        sampler: Sampler[int] | None = None,
    ) -> DataLoader[Any]:
        """A `DataLoader` of the rows stored now."""
        rows = torch.utils.data.TensorDataset(*self.get_all_data())

        def collate(items: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
            examples, *rest = torch.utils.data.default_collate(items)
            return apply_transform(examples, transform), *rest

        return create_seeded_dataloader(
            args,
            rows,
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            sampler=sampler,
            collate_fn=collate,
        )

    def serialize(self, out_device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """The rows held, by field."""
        return {name: self.__getattr__(name).to(out_device) for name in self.used_attributes}

    def __iter__(self) -> Iterator[list[Tensor]]:
        return (self[place] for place in range(len(self)))

    @property
    def _draws(self) -> np.random.Generator:
        """Random stream of the rows that are drawn."""
        if not self._streams:
            self._start_streams()
        return self._streams[1]

    def _tasks(self, cpt: int | None) -> Tensor:
        """The task of each row held, int64 `[N]`."""
        if ("task_labels",) in self._columns:
            return self.task_labels
        if cpt is None or ("labels",) not in self._columns:
            raise ConfigError(
                "Buffer: mask_task_out needs rows with task_labels, or with labels and cpt=, the number of "
                "classes per task."
            )
        return self.labels // cpt


def dtype_of(name: str) -> torch.dtype:
    """The dtype in which Mammoth stores a field: int64 for labels of any kind, else float32."""
    return torch.int64 if name.endswith("labels") else torch.float32
