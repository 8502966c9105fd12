"""How a model acts: its own way, or by its forward, with exploration while it learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from antelope.launcher.assembly.model import Model
from antelope.launcher.learn.actor import Actor, checked_action
from antelope.launcher.learn.learner import Learner
from antelope.replay import ConfigError, Observations, Space, Spec

OBS = Space((2,))
CHOICE = Space((3,), torch.int64, discrete=True)
CHOICES = Space((5,), torch.int64, discrete=True, nvec=(2, 3))
BINARY = Space((2,), torch.int64, discrete=True, binary=True)
LOW, HIGH = torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 1.0])
BOX = Space((2,), low=LOW, high=HIGH)
FREE = Space((2,), low=torch.full((2,), -torch.inf), high=torch.full((2,), torch.inf))
N = 4000


class Fixed(nn.Module):
    """Gives the same output for all observations."""

    def __init__(self, output: Any):
        super().__init__()
        self.output = output

    def forward(self, obs: Tensor) -> Any:
        def repeated(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: repeated(part) for name, part in value.items()}
            return torch.tensor(value).expand(len(obs), -1)

        return repeated(self.output)

    def learn(self, replay: Any) -> None: ...


def act(agent: nn.Module, action: Any, *, training: bool = True, n: int = N, **more: Any) -> Any:
    torch.manual_seed(0)
    model = Model(agent.train(training), Spec(OBS, action), torch.device("cpu"), **more)
    learner = Learner(model, supervised=False)
    actor = Actor(learner, Observations(OBS).observe)
    return actor(np.zeros((n, 2), np.float32), np.zeros(n, bool))


@pytest.mark.parametrize(
    ("space", "output", "best"),
    [
        (CHOICE, [0.0, 2.0, 1.0], 1),
        (CHOICES, [1.0, 0.0, 0.0, 0.0, 1.0], [0, 2]),
        (BINARY, [-0.1, 0.1], [0, 1]),
        (BOX, [5.0, 0.5], [2.0, 0.5]),
        (FREE, [5.0, -7.0], [5.0, -7.0]),
    ],
)
def test_evaluation_takes_the_best(space: Space, output: Any, best: Any) -> None:
    action, extras = act(Fixed(output), space, training=False, n=3)
    assert action.tolist() == [best] * 3
    assert action.dtype == (np.int64 if space.discrete else np.float32)
    assert extras == {}


def test_a_tenth_of_the_choices_is_random_while_learning() -> None:
    action, _ = act(Fixed([0.0, 2.0, 1.0]), CHOICE)
    # Each other one in a thirtieth of all: 133 expected, with a deviation of 11.
    counts = np.bincount(action, minlength=3)
    assert abs(counts[0] - 133) < 50
    assert abs(counts[2] - 133) < 50


def test_several_choices_are_random_together() -> None:
    action, _ = act(Fixed([1.0, 0.0, 0.0, 0.0, 1.0]), CHOICES)
    other = (action != [0, 2]).any(1)
    # A tenth is drawn, of which one in six is the best again: 333 expected, deviation 17.
    assert abs(int(other.sum()) - 333) < 70
    assert set(map(tuple, action[other].tolist())) == {(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)}
    action, _ = act(Fixed([-0.1, 0.1]), BINARY)
    assert abs(int((action != [0, 1]).any(1).sum()) - 300) < 70


def test_values_have_noise_within_their_bounds_while_learning() -> None:
    action, _ = act(Fixed([0.0, 0.5]), BOX)
    assert action.std(0) == pytest.approx([0.2, 0.05], rel=0.1)  # A tenth of half the range.
    assert action.mean(0) == pytest.approx([0.0, 0.5], abs=0.02)
    action, _ = act(Fixed([1.95, 0.0]), BOX)
    assert action.max(0).tolist() == [2.0, pytest.approx(0.2, abs=0.1)]
    assert action.min(0).tolist()[1] == 0
    action, _ = act(Fixed([5.0, -7.0]), FREE)
    assert action.std(0) == pytest.approx([0.1, 0.1], rel=0.1)


def test_dicts_part_by_part() -> None:
    output = {"arm": {"move": [9.0, 9.0]}, "mode": [0.0, 0.0, 1.0]}
    action, _ = act(Fixed(output), {"arm": {"move": BOX}, "mode": CHOICE}, training=False, n=2)
    assert action["arm"]["move"].tolist() == [[2, 1], [2, 1]]
    assert action["mode"].tolist() == [2, 2]


class Own(nn.Module):
    """Acts by a function."""

    def __init__(self, function: Any):
        super().__init__()
        self.function = function

    def act(self, obs: Tensor) -> Any:
        assert not torch.is_grad_enabled()
        return self.function(obs)


def test_own_actions_become_the_types_of_the_space() -> None:
    for given in (
        torch.tensor([1, 2], dtype=torch.int32),
        np.array([1, 2], np.uint8),
        [1, 2],
        torch.tensor([1, 2]),
    ):
        action, _ = act(Own(lambda obs, given=given: given), CHOICE, n=2)
        assert (action.dtype, action.tolist()) == (np.int64, [1, 2])
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64):
        made = torch.ones(2, 2, dtype=dtype)
        action, _ = act(Own(lambda obs, made=made: made), BOX, n=2)
        assert (action.dtype, action.tolist()) == (np.float32, [[1, 1], [1, 1]])


def test_yes_and_no_are_choices_too() -> None:
    action, _ = act(Own(lambda obs: torch.ones(2, 2, dtype=torch.bool)), BINARY, n=2)
    assert (action.dtype, action.tolist()) == (np.int64, [[1, 1], [1, 1]])


def test_extras_are_arrays_with_a_row_for_each_environment() -> None:
    extras = {
        "value": torch.ones(2, dtype=torch.bfloat16),
        "features": torch.zeros(2, 3, requires_grad=True),
        "both": {"a": np.zeros(2)},
    }
    _, kept = act(Own(lambda obs: (torch.zeros(2, dtype=torch.long), extras)), CHOICE, n=2)
    assert (kept["value"].dtype, kept["value"].shape) == (np.float32, (2,))
    assert kept["features"].shape == (2, 3)
    assert kept["both"]["a"].shape == (2,)
    wrong = {"both": {"a": torch.zeros(3)}}
    with pytest.raises(ConfigError, match=r"Own.act returned the extra `both/a` \[3\] for 2"):
        act(Own(lambda obs: (torch.zeros(2, dtype=torch.long), wrong)), CHOICE, n=2)


def test_low_precision_is_for_the_forward_alone() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, obs: Tensor) -> Tensor:
            out = self.layer(obs)
            assert out.dtype == torch.bfloat16
            return out

        def learn(self, replay: Any) -> None: ...

    action, _ = act(Half(), BOX, n=2, precision="bf16")
    assert action.dtype == np.float32


@pytest.mark.parametrize(
    ("action", "space", "message"),
    [
        (
            torch.zeros(2),
            CHOICE,
            "M.act returned float32 actions; expected whole numbers: one of 3",
        ),
        (
            torch.zeros(2, 1).long(),
            CHOICE,
            r"M.act returned actions \[2, 1\] for 2 .* expected \[2\]",
        ),
        (torch.zeros(3).long(), CHOICE, r"returned actions \[3\] for 2 observations"),
        (torch.zeros(2, 5), CHOICES, r"expected \[2, 2\]: one of 2 and one of 3"),
        (torch.zeros(2, 3), BOX, r"expected \[2, 2\]: float32 2"),
        (torch.zeros(2, 2), {"a": BOX}, r"M.act returned a Tensor; expected a dict with \['a'\]"),
        ({"b": 1}, {"a": BOX}, r"M.act returned \['b'\]; expected a dict with \['a'\]"),
        ({"a": torch.zeros(2)}, {"a": BOX}, r"M \(a\).act returned actions \[2\]"),
    ],
)
def test_other_actions_are_refused(action: Any, space: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked_action(action, space, 2, "M")
