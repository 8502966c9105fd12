"""Mammoth's `Buffer`, on our `Memory`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...replay import ConfigError, Memory
from ...replay.transfer import upload
from ..settings.compose import did_you_mean
from .augmentations import apply_transform
from .loaders import create_seeded_dataloader
from .selection import NAMES, make_selection

_ROOM = 64  # Rows of an unlimited buffer at first.


class Buffer(Memory):
    """Mammoth's name for a reservoir of rows; a `Memory` whose fields are given by position.

    >>> buffer = Buffer(100)
    >>> buffer.add_data(torch.rand(8, 2), labels=torch.arange(8))
    >>> [field.shape for field in buffer.get_data(4)]
    [torch.Size([4, 2]), torch.Size([4])]

    Called with a number where the strategy's name comes, as GSS's own buffer is,
    `Buffer(size, device, minibatch_size, model)`, it makes a `GradientBuffer`.

    Args:
        buffer_size: Rows, at most.
        device: Where they are kept; None: where the first ones come from.
        sample_selection_strategy: Which rows a full buffer drops: `reservoir`, `lars` (low loss), `labrs`
            (also large classes), `abs` (for noisy labels; needs `dataset=`),
            `balancoir` (keeps classes balanced), or `unlimited` (keeps everything).
        dataset: The sequence of tasks, for `abs`.

    Attributes:
        sample_selection_fn: The strategy, whose `update(indexes, scores)` changes rows' scores.

    Raises:
        ConfigError: If there is no such strategy.
    """

    attributes = ("examples", "labels", "logits", "task_labels", "true_labels")

    def __new__(cls, *args: Any, **kwargs: Any) -> Buffer:
        if cls is Buffer and (
            (len(args) > 2 and not isinstance(args[2], str))
            or {"minibatch_size", "model"} & {*kwargs}
        ):
            from .gradient_buffer import GradientBuffer

            return super().__new__(GradientBuffer)
        return super().__new__(cls)

    def __init__(
        self,
        buffer_size: int,
        device: torch.device | str | None = None,
        sample_selection_strategy: str = "reservoir",
        *,
        dataset: Any = None,
    ):
        name = str(sample_selection_strategy).lower()
        if name not in NAMES:
            raise ConfigError(
                f"Buffer: no sample_selection_strategy {sample_selection_strategy!r}."
                f"{did_you_mean(name, NAMES)} There are {', '.join(NAMES)}."
            )
        self.sample_selection_strategy = name
        super().__init__(_ROOM if name == "unlimited" else buffer_size)
        self._wanted = None if device is None else torch.device(device)
        self.sample_selection_fn = make_selection(name, self.capacity, dataset)

    def __getattr__(self, name: str) -> Tensor:
        """A field of the stored rows, as a view: writes to it persist."""
        columns = self.__dict__.get("_columns", {})
        if (name,) not in columns:
            there = ", ".join(key for (key,) in columns) or "nothing yet"
            raise AttributeError(f"This buffer has no `{name}`; it holds {there}.")
        held: Tensor = columns[(name,)][: len(self)]
        return held

    def __setattr__(self, name: str, value: Any) -> None:
        """Replace a field of the stored rows, `buffer.logits = logits`, or set any other attribute."""
        if name not in type(self).attributes:
            object.__setattr__(self, name, value)
            return
        if len(value) != len(self):
            raise ConfigError(
                f"Buffer: {len(value)} {name} for {len(self)} stored rows. Use add_data to add rows."
            )
        kept = torch.as_tensor(value, dtype=_dtype(name), device=self.device)
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
        """Random stream for which rows are kept."""
        if not self._streams:
            self._start_streams()
        return self._streams[0]

    @property
    def buffer_size(self) -> int:
        return self.capacity

    @buffer_size.setter
    def buffer_size(self, value: int) -> None:
        if self.sample_selection_strategy != "unlimited":
            self._resize(value)

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

    def is_full(self) -> bool:
        return len(self) == self.capacity and self.sample_selection_strategy != "unlimited"

    def to(self, device: torch.device | str) -> Buffer:
        """Move the rows to a device."""
        self._wanted = torch.device(device)
        if self._columns:
            self._move(self._wanted)
        return self

    def reset(self) -> None:
        """Delete all rows."""
        self.clear()

    empty = reset

    def add_data(
        self,
        examples: Tensor,
        labels: Tensor | None = None,
        logits: Tensor | None = None,
        task_labels: Tensor | None = None,
        attention_maps: Any = None,
        true_labels: Tensor | None = None,
        sample_selection_scores: Tensor | None = None,
    ) -> None:
        """Offer rows; the first call says which fields rows have.

        Fields may have more rows than there are examples: the first ones count.

        Args:
            examples: `[B, *shape]`, kept as float32.
            labels: `[B]`, kept as int64.
            logits: `[B, n]`, kept as float32.
            task_labels: `[B]`, kept as int64.
            true_labels: `[B]`, kept as int64: of rows with noisy labels.
            sample_selection_scores: `[B]`, by which rows are chosen: losses for `abs`, for `lars` and
                `labrs` minus losses.

        Raises:
            ConfigError: If a field is missing that rows have or the strategy needs.
        """
        if attention_maps is not None:
            raise ConfigError(
                "Buffer.add_data: attention_maps are not supported. Keep them in the model."
            )
        given = {"labels": labels, "logits": logits, "task_labels": task_labels}
        given |= {"true_labels": true_labels}
        rows = len(examples)
        fields = {"examples": examples.float()}
        for name, field in given.items():
            if field is not None:
                fields[name] = field[:rows].to(_dtype(name))
        device = self._wanted or examples.device
        fields = {name: field.to(device) for name, field in fields.items()}
        strategy, scores = self.sample_selection_fn, sample_selection_scores
        if strategy.labelled and labels is None:
            raise ConfigError(f"Buffer.add_data: {self.sample_selection_strategy} needs labels=.")
        if strategy.scored and scores is None:
            raise ConfigError(
                f"Buffer.add_data: {self.sample_selection_strategy} needs sample_selection_scores=, "
                + (
                    "the rows' losses."
                    if self.sample_selection_strategy == "abs"
                    else "minus the rows' losses."
                )
            )
        if self.sample_selection_strategy == "unlimited" and len(self) + rows > self.capacity:
            self._resize(max(2 * self.capacity, len(self) + rows))
        if not (strategy.scored or strategy.labelled):
            self.add(fields)
            return
        assert labels is not None
        self._add_chosen(fields, labels[:rows].tolist(), scores)

    def _add_chosen(
        self, fields: Mapping[str, Tensor], labels: list[int], scores: Tensor | None
    ) -> None:
        """Offer rows one after another: each choice looks at what the one before it left."""
        checked = self._checked(fields, {})
        if not labels:
            return
        if not self._columns:
            self._make(checked, next(iter(checked.values())).device)
        strategy, values = (
            self.sample_selection_fn,
            None if scores is None else scores.detach().cpu(),
        )
        for row, label in enumerate(labels):
            if self._size < self.capacity:
                place = self._size
                self._size += 1
            else:
                place = strategy.select(self, label)
            self.seen += 1
            if place >= 0:
                self._write(checked, {place: row})
                if values is not None:
                    strategy.update(place, values[row])

    def get_data(
        self,
        size: int,
        transform: Any = None,
        return_index: bool = False,
        device: torch.device | str | None = None,
        mask_task_out: int | None = None,
        cpt: int | None = None,
        return_not_aug: bool = False,
        not_aug_transform: Any = None,
        force_indexes: Any = None,
    ) -> tuple[Tensor, ...]:
        """`min(size, len(buffer))` different rows: a tensor of each field, after their places if asked.

        Args:
            transform: Of examples: the model's own, of all of them; any other of one after the other.
            device: Where to; None: where they are kept.
            mask_task_out: A task of which no row is given, by `task_labels`, else by `labels // cpt`.
            return_not_aug: Give the examples without `transform` too, before those with it.
            not_aug_transform: Of these.
            force_indexes: The places of the rows to give.

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
        self, size: int, transform: Any = None, n_classes: int = -1
    ) -> tuple[Tensor, ...]:
        """Rows of `n_classes` random classes, of each as many; -1: of all that are held."""
        if self.is_empty():
            raise ConfigError("The buffer is empty. Check `is_empty()` before sampling.")
        labels = self.labels.cpu().numpy()
        stream = self._draws
        classes = stream.permutation(np.unique(labels))[: n_classes if n_classes > 0 else None]
        # Classes with few rows give all of them, and the others what is then left.
        rows = {c: stream.permutation(np.flatnonzero(labels == c)) for c in classes}
        places: list[int] = []
        for left, label in enumerate(sorted(classes, key=lambda c: len(rows[c]))):
            share = -(-(size - len(places)) // (len(classes) - left))
            places += rows[label][: max(share, 0)].tolist()
        return self.get_data_by_index(torch.tensor(places), transform)

    def get_data_by_index(
        self, indexes: Tensor, transform: Any = None, device: torch.device | str | None = None
    ) -> tuple[Tensor, ...]:
        """The rows at these places, int64 `[B]`."""
        columns = [self._columns[(name,)] for name in self.used_attributes]
        places = upload(torch.as_tensor(indexes), columns[0].device).to(columns[0].device)
        fields = [column.index_select(0, places).to(device or column.device) for column in columns]
        return apply_transform(fields[0], transform), *fields[1:]

    def get_all_data(
        self, transform: Any = None, device: torch.device | str | None = None
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
        args: Any,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        transform: Any = None,
        sampler: Any = None,
    ) -> Any:
        """Batches of the rows held now, in a `DataLoader`."""
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
        return {name: getattr(self, name).to(out_device) for name in self.used_attributes}

    def __iter__(self) -> Iterator[list[Tensor]]:
        return (self[place] for place in range(len(self)))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "scores": self.sample_selection_fn.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        # It may have grown, or a model may have changed it, since it was made.
        self._resize(state.get("capacity", self.capacity))
        super().load_state_dict(state)
        self.sample_selection_fn.load(state.get("scores"))

    @property
    def _draws(self) -> np.random.Generator:
        """The random stream that says which rows are drawn."""
        if not self._streams:
            self._start_streams()
        return self._streams[1]

    def _tasks(self, cpt: int | None) -> Tensor:
        """The task of each row held."""
        if ("task_labels",) in self._columns:
            return self.task_labels
        if cpt is None or ("labels",) not in self._columns:
            raise ConfigError(
                "Buffer: mask_task_out needs rows with task_labels, or with labels and cpt=, the number of "
                "classes per task."
            )
        return self.labels // cpt

    def _resize(self, capacity: int) -> None:
        """Change the capacity, keeping the first rows."""
        if capacity == self.capacity:
            return
        held = {path: column[: min(self._size, capacity)] for path, column in self._columns.items()}
        self.capacity, self._size = capacity, min(self._size, capacity)
        if held:
            self._make(held, next(iter(held.values())).device)
            for path, column in self._columns.items():
                column[: self._size] = held[path]
        if (scores := self.sample_selection_fn.state()) is not None:
            kept = scores.new_full((capacity,), -torch.inf)
            kept[: self._size] = scores[: self._size]
            self.sample_selection_fn.load(kept)


def _dtype(name: str) -> torch.dtype:
    """As Mammoth keeps a field: labels of any kind as integers."""
    return torch.int64 if name.endswith("labels") else torch.float32
