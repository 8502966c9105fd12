"""Attention over sets: neither the order nor what is masked matters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from antelope.agents.blocks import SetAttention
from antelope.replay import ConfigError


@pytest.fixture
def model() -> SetAttention:
    torch.manual_seed(0)
    return SetAttention((5, 3), 4, width=16)


@pytest.fixture
def obs() -> Tensor:
    return torch.randn(2, 5, 3)


def test_the_order_of_the_items_does_not_matter(model: SetAttention, obs: Tensor) -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(model(obs[:, order]), model(obs))


def test_every_item_matters(model: SetAttention, obs: Tensor) -> None:
    for item in range(5):
        changed = obs.clone()
        changed[:, item] += 1
        assert not torch.allclose(model(changed), model(obs), atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_masked_items_are_as_if_they_were_not_there(
    model: SetAttention, obs: Tensor, training: bool
) -> None:
    mask = torch.tensor([[True, True, False, True, False], [False, True, True, True, True]])
    model.train(training)
    with torch.set_grad_enabled(training):
        out = model(obs, mask)
        for row in range(2):
            alone = model(obs[row : row + 1, mask[row]])
            torch.testing.assert_close(out[row : row + 1], alone, atol=1e-5, rtol=1e-4)


def test_a_set_may_be_empty(model: SetAttention, obs: Tensor) -> None:
    mask = torch.zeros(2, 5, dtype=torch.bool)
    out = model(obs, mask)
    torch.testing.assert_close(out[0], out[1])
    assert out.isfinite().all()


def test_items_may_be_numbers_or_of_any_shape(obs: Tensor) -> None:
    assert SetAttention((5,), 4)(obs[..., 0]).shape == (2, 4)
    assert SetAttention((5, 1, 3), 4)(obs[:, :, None]).shape == (2, 4)
    with pytest.raises(ConfigError, match="SetAttention needs sets"):
        SetAttention((), 4)


def test_learns_the_largest_item(model: SetAttention) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(80):
        obs = torch.randn(64, 5, 3)
        loss = (model(obs)[:, 0] - obs[..., 0].amax(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.15  # The variance of the largest of five is 0.45.
