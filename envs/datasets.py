"""A data set as arrays, whatever form it comes in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from ..replay import DataError, LazyColumn, Table
from .items import as_tensor, decode, torchvision_columns
from .labels import as_targets, check_finite, check_labels
from .layout import channels_first


@dataclass
class Arrays:
    """A data set in memory.

    Attributes:
        inputs: `[N, *shape]`, images channels-first; uint8, bool, int64, float32 or float64.
        targets: int64 `[N]` classes, or float32 or float64 `[N, *shape]` values.
        high: The largest value an integer input can take, where the source says so.
        num_classes: As the source declares it, or None.
        alterations: The source's own method of that name, which makes it a sequence of tasks
            (`sequences`), or None.
    """

    inputs: Tensor | LazyColumn
    targets: Tensor
    name: str
    high: float | None = None
    num_classes: int | None = None
    alterations: Callable[..., Any] | None = None

    @property
    def discrete(self) -> bool:
        return self.targets.dtype == torch.int64

    def __len__(self) -> int:
        return len(self.targets)

    def table(self) -> Table:
        return Table(obs=self.inputs, label=self.targets)


def read(source: Any, *, name: str, image_size: int | None = None) -> Arrays:
    """The arrays of a data set, checked.

    Args:
        source: A map-style `Dataset`, or a pair `(inputs, targets)` of arrays or tensors.
        name: What errors call it.
        image_size: Side in pixels that decoded images are resized to.

    Raises:
        DataError: If it is empty, holds NaN, its labels are not classes or values, its items
            differ in shape, or it is no data set.
    """
    inputs: Tensor | LazyColumn
    if is_pair(source):
        inputs, targets = as_tensor(source[0], name), as_tensor(source[1], name)
    elif isinstance(source, TensorDataset) and len(source.tensors) >= 2:
        inputs, targets = source.tensors[:2]
    elif (columns := torchvision_columns(source)) is not None:
        inputs, targets = columns
    else:
        inputs, targets = decode(source, name, image_size)
    # Tensors may be on a device already; where the rows are to be is for the run to decide.
    inputs, targets = inputs.cpu() if isinstance(inputs, Tensor) else inputs, targets.cpu()
    if len(targets) == 0 or len(inputs) == 0:
        raise DataError(f"{name} is empty: there is nothing to learn from.")
    if len(inputs) != len(targets):
        raise DataError(f"{name} has {len(inputs)} inputs but {len(targets)} targets.")
    if isinstance(inputs, Tensor):
        inputs = channels_first(inputs)
        check_finite(inputs, f"inputs of {name}")
    arrays = Arrays(inputs, as_targets(targets, name), name, high=getattr(source, "high", None))
    arrays.alterations = getattr(source, "alterations", None)
    if arrays.discrete:
        classes = getattr(source, "classes", None)
        arrays.num_classes = len(classes) if classes is not None else None
        check_labels(arrays.targets, arrays.num_classes, name)
    return arrays


def held_out_fifth(arrays: Arrays) -> tuple[Tensor, Tensor]:
    """Row numbers for training and for testing, the same for every seed."""
    n = len(arrays)
    if n < 2:
        raise DataError(f"{arrays.name} has {n} row: too few to hold some out. Give test_dataset=.")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    held_out = max(1, n // 5)
    return order[held_out:].sort().values, order[:held_out].sort().values


def take_rows(arrays: Arrays, index: Tensor) -> Arrays:
    """Some rows of a data set."""
    inputs: Tensor | LazyColumn
    if isinstance(arrays.inputs, Tensor):
        inputs = arrays.inputs.index_select(0, index)
    else:
        inputs = LazyColumn(
            _Reindexed(arrays.inputs.source, index.tolist()),
            arrays.inputs.convert,
            shape=arrays.inputs.shape[1:],
            dtype=arrays.inputs.dtype,
        )
    return replace(arrays, inputs=inputs, targets=arrays.targets.index_select(0, index))


def take_classes(arrays: Arrays, classes: list[int]) -> Arrays:
    """Only these classes, renumbered in the order given.

    Raises:
        DataError: If a class is not in the data.
    """
    if not arrays.discrete:
        raise DataError(f"{arrays.name} has no classes to take a subset of.")
    present = set(arrays.targets.unique().tolist())
    if wrong := [c for c in classes if c not in present]:
        raise DataError(f"subset={classes}: {arrays.name} has no class {wrong[0]}.")
    renumber = torch.full((int(arrays.targets.max()) + 1,), -1)
    renumber[torch.tensor(classes)] = torch.arange(len(classes))
    rows = (renumber[arrays.targets] >= 0).nonzero().flatten()
    kept = take_rows(arrays, rows)
    kept.targets, kept.num_classes = renumber[kept.targets], len(classes)
    return kept


class _Reindexed:
    """Some items of an indexable, in another order."""

    def __init__(self, source: Any, index: list[int]):
        self.source, self.index = source, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> Any:
        return self.source[self.index[i]]


def is_pair(source: Any) -> bool:
    return (
        isinstance(source, (tuple, list))
        and len(source) == 2
        and all(hasattr(part, "shape") and hasattr(part, "dtype") for part in source)
    )
