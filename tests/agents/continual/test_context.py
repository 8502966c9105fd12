"""What a strategy may ask of the run it is part of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from antelope.agents.continual.context import Context
from antelope.agents.continual.layers import features
from antelope.replay import Space, Spec


@pytest.mark.parametrize(
    ("scenario", "seen"),
    [("class", [[0, 1], [0, 1, 2, 3]]), ("task", [[0, 1], [0, 1, 2, 3]]), ("domain", [[0, 1]] * 2)],
)
def test_classes_seen_are_those_of_the_tasks_so_far_each_once(
    scenario: str, seen: list[list[int]]
) -> None:
    n = 2 if scenario == "domain" else 4
    every = torch.arange(n)
    context = Context(
        nn.Linear(3, n),
        Spec(Space((3,)), Space((n,), torch.int64, discrete=True)),
        scenario=scenario,
        classes=[every, every] if scenario == "domain" else [every[:2], every[2:]],
        learn=lambda *_: None,
    )
    for task in (0, 1):
        context.task = task
        assert context.seen.tolist() == seen[task]


def test_features_are_what_the_last_call_of_a_layer_is_given() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, obs: Tensor) -> Tensor:
            return self.head(self.head(obs).tanh())

    agent, obs = Twice().train(), torch.randn(5, 3)
    torch.testing.assert_close(features(agent, agent.head, obs), agent.head(obs).tanh().detach())
    assert agent.training
    assert not agent.head._forward_pre_hooks
