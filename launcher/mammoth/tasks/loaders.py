"""Batches of a task's rows, and of a data set of the model's own."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class Readable(Protocol):
    """Rows that are read in batches: `TaskRows`, or `OwnRows`."""

    train: bool

    def __len__(self) -> int: ...

    def read(self, places: Tensor) -> tuple[Tensor, ...]:
        """A batch of the rows at these places, int64 `[B]`."""


R = TypeVar("R", bound=Readable)


class TaskLoader(Generic[R]):
    """Batches of a task's rows: `(inputs, labels, not_aug_inputs, ...)` to learn from, `(inputs, labels)`
    to evaluate with.

    Training batches come in a new random order each time, augmented.

    Args:
        dataset: The rows.
        batch_size: int, rows in a batch; the last may have fewer.

    Attributes:
        dataset: The rows: `TaskRows`, or `OwnRows` for a user's own data set.
    """

    def __init__(self, dataset: R, batch_size: int):
        self.dataset, self.batch_size = dataset, batch_size

    def __len__(self) -> int:
        """Batches."""
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        rows = self.dataset
        # On the host, from torch's global stream, as a `DataLoader` shuffles.
        order = torch.randperm(len(rows)) if rows.train else torch.arange(len(rows))
        for places in order.split(self.batch_size):
            yield rows.read(places)


class TaskData(DataLoader[Any]):
    """Batches of a task's rows, as selected by `store_masked_loaders`."""


def create_seeded_dataloader(
    args: Namespace | None,
    dataset: Dataset[Any] | Readable,
    non_verbose: bool = False,
    **dataloader_args: Any,
) -> DataLoader[Any]:
    """A `DataLoader` whose order is drawn from `args.seed`.

    Args:
        args: Has `seed`, None for torch's global stream, and `num_workers`, by default 0: a run's rows are
            in memory, where worker processes only add cost.
        dataset: The rows.
        non_verbose: Has no effect: nothing is printed.
        **dataloader_args: Arguments of `DataLoader`, such as `batch_size`.
    """
    said = {} if args is None else vars(args)
    dataloader_args.setdefault("num_workers", said.get("num_workers") or 0)
    if (seed := said.get("seed")) is not None:
        dataloader_args.setdefault("generator", torch.Generator().manual_seed(int(seed)))
    return DataLoader(cast("Dataset[Any]", dataset), **dataloader_args)
