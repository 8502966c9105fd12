"""Batches of a data set of the model's own."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader


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
