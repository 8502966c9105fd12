"""The default agent: a network of the right shape, trained by the right loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from antelope import agents
from antelope.agents import AC2Agent
from antelope.agents.ac2agent import Residual, supervised_loss
from antelope.replay import Batch, Space, Spec

CLASSES = Space((5,), torch.int64, low=0, high=4, discrete=True)


@pytest.mark.parametrize("shape", [(3,), (1, 8, 8), (3, 32, 20), (2, 4, 4), (4, 3, 3), (6, 7), ()])
@pytest.mark.parametrize("action", [CLASSES, Space((2,)), Space((1,))])
def test_output_has_the_shape_of_the_spec(shape: tuple[int, ...], action: Space) -> None:
    agent = AC2Agent(Spec(Space(shape), action), hidden=8)
    assert agent(torch.zeros(3, *shape)).shape == (3, *action.shape)


def test_the_narrowest_network_runs() -> None:
    agent = AC2Agent(Spec(Space((1, 8, 8)), CLASSES), hidden=1)
    assert agent(torch.zeros(2, 1, 8, 8)).shape == (2, 5)


def test_images_meet_convolutions_and_the_rest_does_not() -> None:
    def convolutions(shape: tuple[int, ...]) -> int:
        agent = AC2Agent(Spec(Space(shape), CLASSES), hidden=8)
        return sum(isinstance(module, nn.Conv2d) for module in agent.modules())

    assert convolutions((1, 8, 8)) > 0
    assert convolutions((1, 3, 8)) == convolutions((64,)) == 0


def test_values_are_given_in_their_own_units() -> None:
    action = Space((2,), mean=torch.tensor([10.0, -5.0]), stddev=torch.tensor([2.0, 0.0]))
    agent = AC2Agent(Spec(Space((3,)), action), hidden=8)
    for parameter in agent.parameters():
        nn.init.zeros_(parameter)
    assert agent(torch.rand(1, 3)).tolist() == [[10, -5]]
    last = agent.network[-1]
    assert isinstance(last, nn.Linear)
    nn.init.ones_(last.bias)  # One deviation more; a constant target has a deviation of one.
    assert agent(torch.rand(1, 3)).tolist() == [[12, -4]]


def test_learns_by_the_next_batch() -> None:
    agent = AC2Agent(Spec(Space((3,)), CLASSES), hidden=8)
    for parameter in agent.parameters():
        nn.init.zeros_(parameter)
    batches = iter([Batch(obs=torch.rand(4, 3), label=torch.tensor([0, 1, 2, 3]))])
    # All classes alike: the loss is the logarithm of their number.
    assert float(agent.learn(batches).detach()) == pytest.approx(math.log(5))


class Constant(nn.Module):
    def __init__(self, *values: float):
        super().__init__()
        self.values = torch.tensor(values, dtype=torch.float32)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.values.expand(len(obs), -1)


def test_the_loss_of_values_is_one_for_their_mean_whatever_the_units() -> None:
    label = torch.tensor([[1.0, 100.0], [3.0, 300.0]])
    space = Space((2,), mean=label.mean(0), stddev=label.std(0, correction=0))
    batch = Batch(obs=torch.zeros(2, 1), label=label)
    assert float(supervised_loss(Constant(2, 200), batch, space)) == pytest.approx(1)
    # Errors of 0 and 2 (deviation 1) and of 100 and 100 (deviation 100): (0 + 4 + 1 + 1) / 4.
    assert float(supervised_loss(Constant(1, 200), batch, space)) == pytest.approx(1.5)


def test_the_loss_of_a_constant_target_is_finite() -> None:
    space = Space((1,), mean=torch.tensor([7.0]), stddev=torch.tensor([0.0]))
    batch = Batch(obs=torch.zeros(2, 1), label=torch.full((2, 1), 7.0))
    assert float(supervised_loss(Constant(9), batch, space)) == 4


def test_the_loss_of_classes_by_hand() -> None:
    # softmax([log 3, 0]) = [3/4, 1/4].
    batch = Batch(obs=torch.zeros(2, 1), label=torch.tensor([0, 1]))
    space = Space((2,), torch.int64, discrete=True)
    loss = supervised_loss(Constant(math.log(3), 0), batch, space)
    assert float(loss) == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)


def test_a_residual_block_of_silent_convolutions_passes_its_input() -> None:
    block = Residual(2, 2, stride=1).eval()
    for parameter in block.body.parameters():
        nn.init.zeros_(parameter)
    x = torch.tensor([-1.0, 2.0]).view(1, 2, 1, 1)
    assert block(x).flatten().tolist() == [0, 2]
    assert Residual(2, 6, stride=2)(torch.rand(2, 2, 7, 8)).shape == (2, 6, 4, 4)


@pytest.mark.parametrize("name", agents.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert callable(getattr(agents, name))


def test_every_registered_name_is_public() -> None:
    assert set(agents.NAMES["model"]) <= set(agents.__all__)
