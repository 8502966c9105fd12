"""A task's rows, which Mammoth's models read and replace: `dataset.train_loader.dataset`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ....replay import ConfigError, Spec, Table
from ....replay.transfer import upload
from .transform import Normalise, Transform, transformed


class Tasks(Protocol):
    """What `TaskRows` and `OwnRows` need of their sequence of tasks, a `ContinualDataset`."""

    N_CLASSES: int
    spec: Spec
    device: torch.device
    transform: Transform
    alter: Callable[[Tensor, int | Tensor], Tensor] | None

    def get_transform(self) -> Transform: ...

    def get_normalization_transform(self) -> Normalise: ...

    def labels(self, label: Tensor) -> Tensor: ...

    def own_labels(self, label: Tensor) -> Tensor: ...


class TaskRows:
    """The rows of a task, which a model may read, replace, and add fields to.

    An added field comes last in every batch, and `observe` receives it if it has a parameter of that name:

        rows = dataset.train_loader.dataset
        rows.add_extra_return_field("logits", logits)

    Args:
        sequence: The sequence that the task belongs to.
        table: The table that holds the rows.
        index: int64 `[N]`, their places in the table.
        task: int, number of the task, for sequences that alter rows.
        train: Whether the rows are for training.

    Attributes:
        indexes: Places of the rows in the whole data set, int64 `[N]`.
        extra_return_fields: Names of the fields that were added.
        transform: Converts rows in [0, 1] to the model's inputs. Replacing it affects this loader only.
    """

    def __init__(
        self,
        sequence: Tasks,
        table: Table,
        index: Tensor,
        task: int,
        *,
        train: bool,
    ):
        self.train, self.indexes = train, index.cpu()
        self.extra_return_fields: tuple[str, ...] = ()
        self._sequence, self._table, self._task = sequence, table, task
        # Both are made when first read: most models never do, and a copy of the rows costs memory.
        self._data: Any = None
        self._targets: Any = None
        self._assigned = False
        self._usual = sequence.get_transform() if train else sequence.get_normalization_transform()
        self.transform = self._usual

    @property
    def data(self) -> Any:
        """The rows as they are stored, in host memory: grey images as a tensor `[N, H, W]`, colour images
        as an array `[N, H, W, 3]`, other data as a tensor `[N, *obs.shape]`.
        """
        if self._data is None:
            self._data = self._presented(self._stored())
        return self._data

    @data.setter
    def data(self, data: object) -> None:
        self._data, self._assigned = data, True

    @property
    def targets(self) -> Any:
        """The labels in the order in which classes come, int64 `[N]`, in host memory."""
        if self._targets is None:
            self._targets = self._labels()
        return self._targets

    @targets.setter
    def targets(self, targets: object) -> None:
        self._targets, self._assigned = targets, True

    def __len__(self) -> int:
        return len(self.indexes) if self._data is None else len(self._data)

    def __getitem__(self, place: int) -> tuple[Any, ...]:
        """`(input, label, not_aug_input, ...)` of a row; a label is a number."""
        if not -len(self) <= place < len(self):
            raise IndexError(f"Row {place} is out of range for {len(self)} rows.")
        row = self.read(torch.tensor([int(place) % len(self)]))
        label = row[1][0]
        return row[0][0], label.item() if label.dim() == 0 else label, *(x[0] for x in row[2:])

    def __getitems__(self, places: list[int]) -> list[tuple[Any, ...]]:
        """Many rows at once: a `DataLoader` calls this instead of `__getitem__`."""
        return list(zip(*self.read(torch.as_tensor(places)), strict=True))

    def __deepcopy__(self, memo: dict[int, Any]) -> TaskRows:
        """The same rows, to be replaced independently; the table that holds them is shared."""
        other = copy.copy(self)
        # Shared: they hold the run's data, or compare by identity (`transform_is_usual`).
        own = {"_sequence", "_table", "_usual", "transform"}
        for name, value in vars(self).items():
            if name not in own:
                setattr(other, name, copy.deepcopy(value, memo))
        return other

    def add_extra_return_field(self, field_name: str, field_value: object) -> None:
        """Add a field: a tensor or an array `[N, ...]` with a value for each row."""
        setattr(self, field_name, field_value)
        self.extra_return_fields += (field_name,)

    def data_of(self, rows: Tensor) -> Any:
        """Converts rows in [0, 1], `[B, *obs.shape]`, such as a buffer's, to the form that `data` has."""
        sequence = self._sequence
        if sequence.spec.obs.ids is None:
            rows = sequence.transform.stored(rows)
        return self._presented(rows.to(self._dtype))

    def read(self, places: Tensor) -> tuple[Tensor, ...]:
        """A batch of the rows at these places, int64 `[B]`, on the model's device."""
        transform, device = self._sequence.transform, self._sequence.device
        if self._data is None:
            obs = self._gathered(places, device)
        else:
            data, places_there = self._as_stored(), places
            obs = upload(data.index_select(0, places_there), device)
        # The run's own path from stored rows to inputs, so that both are equal to the bit.
        obs = transform.plain.without_augmentation({"obs": obs})["obs"]
        rows = transform.undone(obs)
        same = self.transform is self._usual and (transform.augment is None or not self.train)
        inputs = obs if same else transformed(rows, self.transform)
        labels = self._of_label(places).to(device)
        if not self.train:
            return inputs, labels
        return inputs, labels, rows, *(value.to(device) for value in self._fields(places))

    @property
    def changed(self) -> bool:
        """Whether a model has replaced rows or labels, or added fields.

        Raises:
            ConfigError: If `transform` is still replaced, which training would ignore.
        """
        if not self.transform_is_usual:
            raise ConfigError(
                "train_loader.dataset.transform was replaced, but training still uses the run's own "
                "(aug=..., standardize=...). Restore it after reading the rows, or pass it as aug=."
            )
        # Cheaper than comparing, which copies the rows.
        if self._assigned or self.extra_return_fields:
            return True
        pairs = [(self._data, self._presented(self._stored()) if self._data is not None else None)]
        pairs += [(self._targets, self._labels() if self._targets is not None else None)]
        # A model may also have written into the arrays that it read.
        return any(
            held is not None and not np.array_equal(np.asarray(held), np.asarray(fresh))
            for held, fresh in pairs
        )

    @property
    def transform_is_usual(self) -> bool:
        """Whether `transform` is the run's own."""
        return self.transform is self._usual

    def state_dict(self) -> dict[str, Any]:
        """The replaced rows as they are stored, labels in the order in which classes come, and fields."""
        every = torch.arange(len(self))
        fields = dict(zip(self.extra_return_fields, self._fields(every), strict=True))
        data = None if self._data is None else self._as_stored()
        return {"data": data, "targets": self._of_label(every), "fields": fields}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._data = None if state["data"] is None else self._presented(state["data"])
        self._targets, self._assigned = state["targets"], True
        self.extra_return_fields = tuple(state["fields"])
        for name, value in state["fields"].items():
            setattr(self, name, value)

    def reset(self) -> None:
        """Restore the run's own rows."""
        self._data = self._targets = None
        self._assigned, self.extra_return_fields = False, ()

    def columns(self) -> dict[str, Tensor]:
        """All rows as columns of a `Table`, altered for the task: `obs`, `label`, and added fields.

        Labels are in the order of the data's classes.

        Raises:
            ConfigError: If replaced rows, labels or fields do not fit the data or each other.
        """
        every = torch.arange(len(self))
        obs = self._gathered(every, None) if self._data is None else self._as_stored()
        label = self._sequence.own_labels(self._of_label(every))
        fields = dict(zip(self.extra_return_fields, self._fields(every), strict=True))
        return {"obs": obs, "label": label, **fields}

    def table(self) -> Table:
        """The same columns as a table to learn from."""
        return Table(**self.columns())

    def _stored(self) -> Tensor:
        return self._gathered(torch.arange(len(self.indexes)), None).cpu()

    def _gathered(self, places: Tensor, device: torch.device | None) -> Tensor:
        """The run's own rows at these places, altered for the task."""
        index = self.indexes.index_select(0, places).to(self._table.device)
        obs = self._table.gather(index)["obs"]
        if device is not None:
            obs = upload(obs, device)
        alter = self._sequence.alter
        return obs if alter is None else alter(obs, self._task)

    def _labels(self) -> Tensor:
        column = self._table.columns["label"]
        assert isinstance(column, Tensor)
        return self._sequence.labels(column.cpu().index_select(0, self.indexes))

    def _of_label(self, places: Tensor) -> Tensor:
        targets = torch.as_tensor(self.targets).cpu()
        check_lengths(len(self), len(targets))
        taken = targets.index_select(0, places)
        if not self._sequence.spec.discrete:
            return taken.float()
        taken = taken.long()
        check_classes(taken, self._sequence.N_CLASSES)
        return taken

    def _fields(self, places: Tensor) -> Iterator[Tensor]:
        for name in self.extra_return_fields:
            value = torch.as_tensor(getattr(self, name)).cpu()
            if len(value) == len(self):
                yield value.index_select(0, places)
            # A value for each row of the whole data set, of which `indexes` are the task's.
            elif self._data is None and len(value) == len(self._table):
                yield value.index_select(0, self.indexes.index_select(0, places))
            else:
                raise ConfigError(
                    f"train_loader.dataset.{name} has {len(value)} values; there are {len(self)} rows."
                )

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._table.columns["obs"].dtype
        return dtype

    def _presented(self, stored: Tensor) -> Any:
        """Stored rows `[N, *obs.shape]` in the layout of `data`: torchvision's."""
        stored = stored.cpu()
        if len(self._sequence.spec.obs.shape) != 3:
            return stored
        if stored.shape[1] == 1:
            return stored[:, 0]
        return stored.permute(0, 2, 3, 1).numpy() if stored.shape[1] == 3 else stored

    def _as_stored(self) -> Tensor:
        """`data` in the form in which rows are stored.

        Raises:
            ConfigError: If its shape or its dtype does not fit.
        """
        shape = tuple(self._sequence.spec.obs.shape)
        stored = torch.as_tensor(self._data).cpu()
        if len(shape) == 3 and shape[0] == 1 and stored.shape[1:] == shape[1:]:
            stored = stored[:, None]
        elif len(shape) == 3 and shape[0] == 3 and stored.shape[1:] == (*shape[1:], 3):
            stored = stored.permute(0, 3, 1, 2)
        if stored.shape[1:] != shape:
            raise ConfigError(
                f"train_loader.dataset.data has rows of shape {list(stored.shape[1:])} instead of "
                f"{list(shape)}."
            )
        # Rows in [0, 1] would all become black or nearly so.
        if stored.is_floating_point() and not self._dtype.is_floating_point:
            raise ConfigError(
                f"train_loader.dataset.data is {stored.dtype} instead of {self._dtype}. Convert rows in "
                "[0, 1], such as a buffer's, with train_loader.dataset.data_of(rows)."
            )
        return stored.to(self._dtype)


def check_lengths(rows: int, targets: int) -> None:
    """Raise ConfigError unless there are as many labels as rows."""
    if rows != targets:
        raise ConfigError(
            f"train_loader.dataset has {rows} rows in `data` and {targets} in `targets`."
        )


def check_classes(labels: Tensor, n: int) -> None:
    """Raise ConfigError unless all labels, int64 `[N]`, are from 0 to n - 1."""
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < n:
        raise ConfigError(
            f"train_loader.dataset.targets has labels from {int(labels.min())} to {int(labels.max())}; "
            f"there are classes 0 to {n - 1}."
        )
