"""Columns of progressive networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from antelope.launcher.mammoth import (
    MNISTMLP_PNN,
    resnet18_pnn,
)


@pytest.mark.parametrize("kind", ["mlp", "resnet"])
def test_a_progressive_column_reads_the_earlier_ones_and_leaves_them(kind: str) -> None:
    torch.manual_seed(0)
    x = torch.rand(4, 3, 8, 8)

    def column(old: list[Any]) -> Any:
        if kind == "mlp":
            return MNISTMLP_PNN(3 * 8 * 8, 5, old)
        return resnet18_pnn(5, 4, old, x.shape)

    columns = [column([])]
    columns.append(column(columns))
    third = column(columns).eval()
    output = third(x)
    assert output.shape == (4, 5)
    before = [p.clone() for c in columns for p in c.parameters()]
    learnt = [p for p in third.parameters() if p.requires_grad]
    output.square().sum().backward()
    own = [p for name, p in third.named_parameters() if "alpha" in name and p.requires_grad]
    assert own
    assert all(p.grad is not None and bool(p.grad.any()) for p in own)
    torch.optim.SGD(learnt, lr=0.1).step()
    after = [p for c in columns for p in c.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    # What an earlier column computes makes a difference.
    with torch.no_grad():
        moved = third(x)
        next(iter(third.columns[0].parameters())).mul_(2)
        assert not torch.equal(third(x), moved)
