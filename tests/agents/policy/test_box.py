"""Actions between an environment's bounds and [-1, 1]."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from antelope.agents.policy.box import UnitBox
from antelope.replay import ConfigError, Space


def test_actions_are_scaled_to_the_bounds_and_back() -> None:
    box = UnitBox(Space((2,), low=torch.tensor([-2.0, 0.0]), high=torch.tensor([2.0, 10.0])), "SAC")
    unit = torch.tensor([[-1.0, 1.0], [0.0, 0.0], [0.5, -0.5]])
    action = torch.tensor([[-2.0, 10.0], [0.0, 5.0], [1.0, 2.5]])
    torch.testing.assert_close(box.scale(unit), action)
    torch.testing.assert_close(box.unscale(action), unit)


def test_bounds_are_met_exactly() -> None:
    torch.manual_seed(0)
    low = torch.randn(1000)
    high = low + torch.rand(1000)
    box = UnitBox(Space((1000,), low=low, high=high), "SAC")
    for unit in (-1.0, 1.0, *torch.rand(20).mul(2).sub(1).tolist(), 1 - 6e-8, 6e-8 - 1):
        action = box.scale(torch.full((1, 1000), unit))
        assert bool(((action >= low) & (action <= high)).all()), unit
    assert torch.equal(box.scale(torch.ones(1, 1000))[0], high)


@pytest.mark.parametrize("shape", [(), (3, 2), (1,)], ids=str)
def test_any_shape_is_flat_for_the_network(shape: tuple[int, ...]) -> None:
    box = UnitBox(Space(shape, low=-1.0, high=3.0), "SAC")
    action = torch.rand(5, *shape)
    unit = box.unscale(action)
    assert unit.shape == (5, box.size)
    torch.testing.assert_close(box.scale(unit), action)


def test_a_dimension_of_a_single_value_is_no_division_by_zero() -> None:
    box = UnitBox(Space((1,), low=2.0, high=2.0), "SAC")
    assert box.unscale(torch.tensor([[2.0]])).tolist() == [[-1.0]]
    assert box.scale(torch.tensor([[0.3]])).tolist() == [[2.0]]


INT = torch.int64
UNSUITABLE: list[tuple[Any, str]] = [
    (
        Space((4,), INT, discrete=True),
        "TD3 takes continuous.* one of 4.* Take DQN, SAC, PPO or A2C",
    ),
    (Space((5,), INT, discrete=True, nvec=(2, 3)), "one of 2 and one of 3. Take PPO or A2C"),
    (Space((5,), INT, discrete=True, binary=True), "5 of yes or no. Take PPO or A2C"),
    (Space((2,)), "low is None.*Take PPO or A2C, or bound the environment's action_space"),
    (Space((1,), low=0.0, high=torch.tensor([torch.inf])), "low is 0.0"),
    (Space((1,), low=-3.4e38, high=3.4e38), "TD3 acts between bounds"),
    ({"a": Space((1,)), "b": Space((1,))}, "a dict of a, b. PPO and A2C"),
]


@pytest.mark.parametrize(("space", "message"), UNSUITABLE)
def test_a_space_without_bounds_is_an_error_that_says_what_to_take(
    space: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        UnitBox(space, "TD3")
