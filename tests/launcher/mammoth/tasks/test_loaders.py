"""Loaders of a model's own rows."""

from __future__ import annotations

from argparse import Namespace

import torch

from antelope.launcher import mammoth as m


def test_loaders_are_seeded() -> None:
    rows = torch.utils.data.TensorDataset(torch.arange(20))
    args = Namespace(seed=3, num_workers=0)
    one, two = (
        [int(x) for (part,) in m.create_seeded_dataloader(args, rows, shuffle=True) for x in part]
        for _ in range(2)
    )
    assert one == two != list(range(20))
