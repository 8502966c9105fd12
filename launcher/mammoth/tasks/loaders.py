"""Batches of a task's rows, and of a data set of the model's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader


class TaskLoader:
    """Batches of a task's rows: `(inputs, labels, not_aug_inputs, ...)` to learn from, `(inputs, labels)`
    to evaluate with.

    Training batches come in a new random order each time, augmented.

    Args:
        dataset: The rows.
        batch_size: Rows in a batch; the last may have fewer.

    Attributes:
        dataset: The rows, `TaskRows`, or the data set of one's own that has them, `OwnRows`.
    """

    def __init__(self, dataset: Any, batch_size: int):
        self.dataset, self.batch_size = dataset, batch_size

    def __len__(self) -> int:
        """Batches."""
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        rows = self.dataset
        order = torch.randperm(len(rows)) if rows.train else torch.arange(len(rows))
        for places in order.split(self.batch_size):
            yield rows.read(places)


class TaskData(DataLoader[Any]):
    """Batches of a task's rows, which `store_masked_loaders` has found."""


def create_seeded_dataloader(
    args: Any, dataset: Any, non_verbose: bool = False, **dataloader_args: Any
) -> DataLoader[Any]:
    """A `DataLoader` whose order is that of `args.seed`.

    Args:
        args: Of it `seed`, None: torch's own, and `num_workers`, None: 0. Data sets of a run are in
            memory, where workers only cost.
        non_verbose: Without effect: nothing is printed.
        **dataloader_args: The `DataLoader`'s own.
    """
    dataloader_args.setdefault("num_workers", getattr(args, "num_workers", None) or 0)
    if (seed := getattr(args, "seed", None)) is not None:
        dataloader_args.setdefault("generator", torch.Generator().manual_seed(int(seed)))
    return DataLoader(dataset, **dataloader_args)
