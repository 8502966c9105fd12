"""One learning step, on a model of one weight: what the learner makes of what `learn` returns."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from antelope import ConfigError, Diverged
from antelope.launcher.assembly.model import Model
from antelope.launcher.assembly.optimisation import Average
from antelope.launcher.learn.learner import Learner
from antelope.launcher.record.log import Log
from antelope.replay import Replay, Space, Spec, Table

SPEC = Spec(Space((1,)), Space((2,), torch.int64, discrete=True))
LR = 0.5


class Slope(nn.Module):
    """Its losses are `slope * weight`, so that each gradient is the next of its slopes."""

    def __init__(self, *slopes: float):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.slopes = iter(slopes)

    def learn(self, replay: Any) -> Tensor:
        return next(self.slopes) * self.weight


class Itself(nn.Module):
    """Updates itself: its learning step takes one from the weight, and returns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def learn(self, replay: Any, log: Any) -> None:
        with torch.no_grad():
            self.weight -= 1
        log.loss = self.weight.detach()


def learner_of(agent: nn.Module, **options: Any) -> Learner:
    optimizer = SGD(agent.parameters(), LR)
    return Learner(Model(agent, SPEC, torch.device("cpu")), optimizer=optimizer, **options)


@pytest.fixture
def replay() -> Replay:
    rows = Table(obs=torch.zeros(4, 1), label=torch.zeros(4, dtype=torch.int64))
    return Replay(rows, lambda fields: fields, batch_size=2)


def weight(learner: Learner) -> float:
    found: nn.Parameter = learner.agent.weight  # type: ignore[assignment]
    return found.item()


def weights(learner: Learner, replay: Replay, steps: int) -> list[float]:
    """The weight after each of so many steps."""
    found = []
    for _ in range(steps):
        learner.step(replay, Log())
        found.append(weight(learner))  # type: ignore[arg-type]
    return found


def test_a_loss_that_is_returned_steps_the_optimiser(replay: Replay) -> None:
    learner, log = learner_of(Slope(1.0)), Log()
    learner.step(replay, log)
    assert weight(learner) == 1 - LR
    assert log.last("loss") == 1.0  # As it was before the step.
    assert (learner.steps, learner.optimised, learner.lr) == (1, True, LR)


def test_gradients_do_not_outlast_their_step(replay: Replay) -> None:
    assert weights(learner_of(Slope(1.0, 0.0)), replay, 2) == [1 - LR, 1 - LR]


def test_a_model_that_returns_nothing_has_updated_itself(replay: Replay) -> None:
    learner, log = learner_of(Itself()), Log()
    learner.step(replay, log)
    assert weight(learner) == 0
    assert log.last("loss") == 0.0
    assert (learner.optimised, learner.lr) == (False, None)


@pytest.mark.parametrize(
    ("loss", "advice"),
    [
        (lambda w: w.item(), "Return the loss tensor itself"),
        (lambda w: w.expand(3), "Return a scalar loss"),
        (lambda w: w.detach(), "without a graph"),
    ],
)
def test_what_is_no_loss_is_an_error(
    loss: Callable[[Tensor], Any], advice: str, replay: Replay
) -> None:
    agent = Slope()
    agent.learn = lambda replay: loss(agent.weight)  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=advice):
        learner_of(agent).step(replay, Log())


def test_accumulated_losses_step_by_their_mean(replay: Replay) -> None:
    learner = learner_of(Slope(1.0, 3.0, 4.0, 6.0), accumulate=2)
    assert weights(learner, replay, 4) == [1, 1 - LR * 2, 1 - LR * 2, 1 - LR * (2 + 5)]


def test_what_is_left_of_a_task_is_stepped_by_its_own_mean(replay: Replay) -> None:
    learner = learner_of(Slope(1.0, 3.0), accumulate=4)
    assert weights(learner, replay, 2) == [1, 1]
    learner.flush(replay)
    assert weight(learner) == 1 - LR * 2
    learner.flush(replay)  # Nothing is left.
    assert weight(learner) == 1 - LR * 2


def test_gradients_are_clipped_to_their_norm(replay: Replay) -> None:
    # torch divides by the norm plus 1e-6.
    learner = learner_of(Slope(8.0, 0.5), clip_grad=2.0)
    assert weights(learner, replay, 2) == pytest.approx([1 - LR * 2, 1 - LR * 2.5], abs=1e-5)


@pytest.mark.parametrize(("value", "word"), [(math.nan, "NaN"), (math.inf, "infinite")])
def test_a_loss_that_is_no_number_ends_the_run_at_its_step(
    value: float, word: str, replay: Replay
) -> None:
    learner = learner_of(Slope(1.0, value))
    learner.step(replay, Log())
    before = weight(learner)
    with pytest.raises(Diverged, match=f"became {word} at learning step 2"):
        learner.step(replay, Log())
    assert weight(learner) == before


def test_an_error_in_learn_says_in_which_step_and_with_which_batch(replay: Replay) -> None:
    class Fails(Slope):
        def learn(self, replay: Any) -> Tensor:
            batch = next(replay)
            raise ValueError(f"{len(batch)} rows")

    with pytest.raises(ValueError, match="2 rows") as failed:
        learner_of(Fails()).step(replay, Log())
    (note,) = failed.value.__notes__
    assert "In Fails.learn, learning step 1" in note
    assert "obs float32 [2, 1]" in note


def test_evaluation_is_with_averaged_weights_and_leaves_modes_as_they_were(replay: Replay) -> None:
    agent = Slope(1.0)
    agent.frozen = nn.Dropout().eval()
    learner = learner_of(agent, average=Average(agent, decay=0.5))
    learner.step(replay, Log())
    with learner.evaluating():
        assert agent.weight.item() == 1 - LR / 2
        assert not agent.training
        assert not torch.is_grad_enabled()
    assert agent.weight.item() == 1 - LR
    assert agent.training
    assert not agent.frozen.training


def test_a_state_goes_on_between_accumulated_losses(replay: Replay) -> None:
    slopes = (1.0, 3.0, 4.0, 6.0)
    through = learner_of(Slope(*slopes), accumulate=2, average=None)
    expected = weights(through, replay, 4)
    first = learner_of(Slope(*slopes[:3]), accumulate=2)
    weights(first, replay, 3)
    second = learner_of(Slope(*slopes[3:]), accumulate=2)
    second.load_state_dict(first.state_dict())
    assert second.steps == 3
    assert weights(second, replay, 1) == expected[3:]


def test_a_run_without_strategies_costs_the_model_no_hook() -> None:
    agent = Slope()
    assert not learner_of(agent).strategies.active
    assert not agent._forward_hooks
