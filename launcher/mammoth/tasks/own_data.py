"""Reads the data sets of a user's own `ContinualDataset`, and checks what they hold."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ....agents.traits import hook
from ....replay import ConfigError, DataError, Space, Spec, Table
from ....replay.randomness import forked_randomness
from .loaders import TaskData
from .own_rows import Drawn, Items, read_all
from .own_sequence import data_below, store_masked_loaders
from .sequence import ContinualDataset
from .transform import Rows

_READ_TWICE = 60  # Items: a transform that draws in one of ten is missed once in 500 times.
_SAMPLED = 300  # Rows that statistics are computed from.


@dataclass
class OwnData:
    """The data sets of a sequence, read and checked.

    Attributes:
        train, test: Tables of all rows, those of the first task first.
        ends: For training and for held-out data, where each task's rows begin and end in its table.
        rows: Turns rows into batches.
        spec: Describes rows and labels.
        sets: The data sets of each task, for training and held out.
    """

    train: Table
    test: Table
    ends: tuple[list[tuple[int, int]], list[tuple[int, int]]]
    rows: Rows
    spec: Spec
    sets: tuple[list[Any], list[Any]]

    def part_of(self, table: Table, index: Tensor, task: int) -> tuple[Any, Tensor]:
        """The data set of a task that rows of a table come from, and which of its rows they are.

        Args:
            table: `train` or `test`.
            index: int64 `[B]`, places in the table.

        Returns:
            The data set, and bool `[N]`: whether each of its rows is meant.
        """
        which = 0 if table is self.train else 1
        first, end = self.ends[which][task]
        chosen = torch.zeros(end - first, dtype=torch.bool)
        chosen[index.cpu() - first] = True
        return self.sets[which][task], chosen


def read_data(sequence: ContinualDataset, name: str) -> OwnData:
    """The data sets of all tasks, with the transforms of their class.

    Raises:
        ConfigError: If the class lacks a transform, or its normalisation cannot be undone.
        DataError: If a data set cannot be read, or an item or a label is invalid.
    """
    train: list[Any] = []
    test: list[Any] = []
    assert sequence.args is not None
    with data_below(_base_path(sequence)), forked_randomness(sequence.args.seed or 0):
        for task in range(sequence.N_TASKS):
            # `store_masked_loaders` advances it, as in Mammoth.
            sequence.c_task = task - 1
            for parts, part in zip((train, test), _loaded(sequence, name), strict=True):
                parts.append(part)
        sequence.c_task = -1
        items = Items(train, name, parts_of_item=3)
        held_out = Items(test, f"held-out {name}", parts_of_item=2)
        # Reading an item twice is the only way to tell whether a user's transform is random.
        changes = any(
            not torch.equal(items[i][0], items[i][0])
            for i in np.linspace(0, len(items) - 1, _READ_TWICE).astype(int).tolist()
        )
        sample = [items[i] for i in np.linspace(0, len(items) - 1, _SAMPLED).astype(int).tolist()]
        obs, raw = (torch.stack([item[k] for item in sample]) for k in (0, 2))
        if obs.shape != raw.shape:
            raise DataError(
                f"Items of {name} are {list(obs.shape[1:])} with augmentation and {list(raw.shape[1:])} "
                "without. TRANSFORM and not_aug_transform must return the same size."
            )
        ends = _ends(sequence, raw)
        # Bytes can be restored exactly from normalised rows: see `Rows.unit`.
        bytes_only = bool(torch.equal((raw * 255).round() / 255, raw))
        rows = Rows(_transform(sequence), ends, augments=changes, bytes_only=bytes_only)
        n = sequence.N_CLASSES
        if changes:
            labels = _labels(items)
            table: Table = Drawn(items, tuple(obs.shape[1:]), labels)
        else:
            columns = read_all(items, obs.shape[1:])
            labels = columns["label"]
            # Where inputs are only normalised, rows without augmentation follow from them: half the memory.
            if torch.allclose(rows.normalise(columns["raw"]), columns["obs"], atol=1e-5):
                del columns["raw"]
            table = Table(**columns)
        held = read_all(held_out, obs.shape[1:])
    for part, found in ((items, labels), (held_out, held["label"])):
        _check_labels(sequence, part, found)
    space = _space(obs, ends)
    names = _class_names(sequence)
    spec = Spec(space, Space((n,), torch.int64, 0, n - 1, discrete=True, names=names), len(train))
    ends_of = tuple(
        list(zip(part.first[:-1].tolist(), part.first[1:].tolist(), strict=True))
        for part in (items, held_out)
    )
    sets = (train, test)
    return OwnData(table, Table(**held), (ends_of[0], ends_of[1]), rows, spec, sets)


def _loaded(sequence: ContinualDataset, name: str) -> Sequence[Any]:
    """The current task's data sets, for training and held out, as `get_data_loaders` returns them."""
    load = hook(sequence, "get_data_loaders")
    assert load is not None  # It is what makes a class one with its own data.
    try:
        pair = load()
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{name}.get_data_loaders raised {type(error).__name__}: {error} (base_path: "
            f"{_base_path(sequence) or 'the default'})"
        ) from error
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise DataError(
            f"{name}.get_data_loaders must return two data sets, for training and for testing."
        )
    if not isinstance(pair[0], DataLoader):
        pair = store_masked_loaders(pair[0], pair[1], sequence)
    elif not isinstance(pair[0], TaskData):
        warnings.warn(
            f"{name}: only the data sets of its own DataLoaders are used; their samplers have no effect.",
            stacklevel=2,
        )
    return [loader.dataset for loader in pair]


def _base_path(sequence: ContinualDataset) -> str | None:
    path: str | None = vars(sequence.args).get("base_path")
    return path


def _class_names(sequence: ContinualDataset) -> tuple[str, ...] | None:
    """Names of the classes, if the user's class names all of them."""
    kind, names = type(sequence), None
    if kind.class_names is not ContinualDataset.class_names:
        names = sequence.class_names
    if kind.get_class_names is not ContinualDataset.get_class_names:
        names = sequence.get_class_names()
    if names is None or len(names) != sequence.N_CLASSES:
        return None
    return tuple(map(str, names))


def _transform(sequence: ContinualDataset) -> Callable[[Tensor], Tensor]:
    """Turns a row in [0, 1] into the input that a model learns from."""
    if type(sequence).get_transform is not ContinualDataset.get_transform:
        own: Callable[[Tensor], Tensor] | None = sequence.get_transform()
        return own or _as_it_is
    from torchvision.transforms import Compose, ToPILImage

    if not hasattr(sequence, "TRANSFORM"):
        raise ConfigError(f"{type(sequence).__name__} has no TRANSFORM, and no get_transform().")
    made: Callable[[Tensor], Tensor] = Compose([ToPILImage(), sequence.TRANSFORM])
    return made


def _as_it_is(row: Tensor) -> Tensor:
    return row


def _ends(sequence: ContinualDataset, raw: Tensor) -> tuple[Tensor, Tensor]:
    """The images of a row of zeros and of a row of ones, which determine an affine normalisation.

    Args:
        raw: float32 `[B, *shape]` in [0, 1], some rows to try it on.
    """
    kind = type(sequence)
    if kind.get_normalization_transform is not ContinualDataset.get_normalization_transform:
        normalise = sequence.get_normalization_transform()
    elif hasattr(sequence, "MEAN") and hasattr(sequence, "STD"):
        from torchvision.transforms import Normalize

        normalise = Normalize(sequence.MEAN, sequence.STD)
    else:
        raise ConfigError(
            f"{kind.__name__} has no MEAN and STD, and no get_normalization_transform() (which may "
            "return None)."
        )
    if normalise is None:
        return torch.zeros(raw.shape[1:]), torch.ones(raw.shape[1:])
    row = raw[0]
    low, high, found = (normalise(x) for x in (torch.zeros_like(row), torch.ones_like(row), row))
    if not torch.allclose(row * (high - low) + low, found, atol=1e-4):
        raise ConfigError(
            f"{kind.__name__}.get_normalization_transform() must only shift and scale each value, so that "
            "it can be undone. Move everything else to TRANSFORM and TEST_TRANSFORM."
        )
    return low, high


def _space(obs: Tensor, ends: tuple[Tensor, Tensor]) -> Space:
    spread = (2, 3) if obs.dim() == 4 else ()
    return Space(
        tuple(obs.shape[1:]),
        torch.float32,
        float(ends[0].min()),
        float(ends[1].max()),
        obs.mean((0, *spread)),
        obs.std((0, *spread)),
    )


def _labels(items: Items) -> Tensor:
    """The labels, int64 `[N]`: those in `targets` if some items agree, since reading all may be slow."""
    if all(hasattr(part, "targets") for part in items.parts):
        listed = np.concatenate([np.asarray(part.targets) for part in items.parts])
        places = np.linspace(0, len(items) - 1, _SAMPLED).astype(int).tolist()
        if all(items[i][1] == int(listed[i]) for i in places):
            return torch.from_numpy(listed.astype(np.int64))
    return torch.tensor([items[i][1] for i in range(len(items))])


def _check_labels(sequence: ContinualDataset, items: Items, labels: Tensor) -> None:
    """Raise DataError if a task has a row of a class that does not belong to it."""
    for task in range(len(items.parts)):
        first, end = sequence.get_offsets(task)
        rows = labels[int(items.first[task]) : int(items.first[task + 1])]
        if bool(((rows < first) | (rows >= end)).any()):
            wrong = int(rows[(rows < first) | (rows >= end)][0])
            raise DataError(
                f"Task {task} of {items.name} should have classes {first} to {end - 1} "
                f"(N_CLASSES_PER_TASK), but holds a row of class {wrong}. __getitem__ must read "
                "`data[index]` and `targets[index]`, which hold the task's own rows."
            )
