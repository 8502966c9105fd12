"""DRQN's equations on numbers of one's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope.agents import DRQN
from antelope.replay import Batch, ConfigError, Space

CHOICE = Space((2,), torch.int64, discrete=True)


class Table(nn.Module):
    """Q-values that are the observation, times a weight, plus the state."""

    def __init__(self, weight: float):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, obs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.weight * obs + state[0][:, None], state


class FakeReplay:
    def __init__(self, **fields: Any):
        self.batch = Batch(**fields)

    def __next__(self) -> Batch:
        return self.batch


def fields(**changed: Any) -> dict[str, Any]:
    """One sequence of two steps, of which the second may not count."""
    return {
        "obs": torch.tensor([[[1.0, 2.0], [3.0, 1.0]]]),
        "next_obs": torch.tensor([[[3.0, 1.0], [0.0, 5.0]]]),
        "action": torch.tensor([[0, 1]]),
        "reward": torch.tensor([[0.5, 2.0]]),
        "discount": torch.tensor([[0.9, 0.0]]),
        "mask": torch.tensor([[True, True]]),
        "state": torch.full((1, 1, 1), 10.0),
        **changed,
    }


@pytest.fixture
def agent() -> DRQN:
    agent = DRQN(Space((2,)), CHOICE, tau=0.0)
    agent.network, agent.target = Table(1.0), Table(-1.0).requires_grad_(False)
    return agent


def learn(agent: DRQN, **changed: Any) -> Tensor:
    return agent.learn(FakeReplay(**fields(**changed)), SimpleNamespace())  # type: ignore[arg-type]


def test_the_target_judges_what_the_network_would_choose(agent: DRQN) -> None:
    # The network takes action 0 at [3, 1], which the target holds for 10 - 3 = 7. The second step
    # terminated. Q of what was done: 10 + 1 and 10 + 1.
    target = torch.tensor([0.5 + 0.9 * 7, 2.0])
    expected = F.smooth_l1_loss(torch.tensor([11.0, 11.0]), target)
    torch.testing.assert_close(learn(agent).detach(), expected)


def test_what_is_no_step_of_the_sequence_does_not_count(agent: DRQN) -> None:
    mask = torch.tensor([[True, False]])
    expected = F.smooth_l1_loss(torch.tensor(11.0), torch.tensor(0.5 + 0.9 * 7))
    torch.testing.assert_close(learn(agent, mask=mask).detach(), expected)
    other = torch.tensor([[0.5, -1e3]])
    torch.testing.assert_close(learn(agent, mask=mask, reward=other).detach(), expected)


def test_gradients_reach_the_network_alone_and_the_target_follows(agent: DRQN) -> None:
    agent.tau = 0.25
    learn(agent).backward()
    assert agent.network.weight.grad is not None
    assert agent.target.weight.item() == -0.5  # A quarter of the way from -1 to 1.
    assert agent.target.weight.grad is None


def test_several_choices_are_refused() -> None:
    space = Space((5,), torch.int64, discrete=True, nvec=(2, 3))
    with pytest.raises(ConfigError, match="DRQN takes one choice"):
        DRQN(Space((2,)), space)
