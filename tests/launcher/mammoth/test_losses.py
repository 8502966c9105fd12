"""The losses of contrastive learning and of distillation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from antelope.launcher import mammoth as m


def test_the_contrastive_loss_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    features = F.normalize(torch.randn(3, 2, 4), dim=2)
    labels = torch.tensor([0, 1, 0])
    rows = torch.cat([features[:, 0], features[:, 1]])
    kinds = labels.repeat(2)
    total = 0.0
    for i in range(6):
        scores = [math.exp(float(rows[i] @ rows[a]) / 0.5) for a in range(6)]
        below = sum(scores[a] for a in range(6) if a != i)
        alike = [p for p in range(6) if p != i and kinds[p] == kinds[i]]
        total -= sum(math.log(scores[p] / below) for p in alike) / len(alike)
    loss = m.SupConLoss(temperature=0.5, base_temperature=0.5)
    assert float(loss(features, labels)) == pytest.approx(total / 6, rel=1e-5)
    whole = m.SupConLoss(temperature=0.5, base_temperature=0.5, reduction="sum")
    assert float(whole(features, labels)) == pytest.approx(total / 2, rel=1e-5)
    # Without labels each row is alike its own other view.
    assert torch.allclose(loss(features), loss(features, torch.arange(3)))
    assert torch.allclose(loss(features), loss(features, mask=torch.eye(3)))
    with pytest.raises(ValueError, match=r"features \[B, views, \.\.\.\], not \[3, 2\]"):
        loss(features[:, :, 0])


def test_similarities_that_agree_cost_nothing() -> None:
    torch.manual_seed(0)
    rows = torch.randn(4, 3)
    assert float(m.SPKDLoss("batchmean")(rows, 3 * rows)) == pytest.approx(0, abs=1e-9)
    teacher, student = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    # Similarities: the identity, and halves: four differences of 1/2, squared, over 2^2.
    assert float(m.SPKDLoss("batchmean")(teacher, student)) == pytest.approx(0.25)
    assert float(m.SPKDLoss("sum")(teacher, student)) == pytest.approx(1.0)
