"""SI: the loss that a task has cost is shared out among the weights, and holds them after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import Batch, ConfigError
from antelope.agents.continual import importance, si
from antelope.agents.continual.si import SI
from antelope.agents.continual.strategy import Strategy

from .course import WIDTH, Course, Idle, Shallow, permuted_digits
from .resuming import Crashing, check_resuming

STEPS = 12

# ----------------------------------------------------------------------------------- the heart


class Witness(Strategy):
    """Watches the same run, and works everything out by itself, in double precision.

    The gradient of the model's own loss is computed anew; that of what others add, `added`, too.
    """

    def __init__(self, strategy: SI, added: Any = None):
        self.strategy, self.added = strategy, added
        self.omega: dict[str, Tensor] = {}
        self.anchor: dict[str, Tensor] = {}
        self.path: dict[str, Tensor] = {}
        self.penalties: list[float] = []

    def begin_task(self, agent: nn.Module, replay: Any) -> None:
        self.start = weights_of(agent)
        self.path = {name: torch.zeros_like(weight) for name, weight in self.start.items()}

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        own = F.cross_entropy(agent(batch.obs), batch.label)
        if self.added is not None:
            own = own + self.added(agent)
        penalty = sum(
            float((self.omega[name] * (weight - self.anchor[name]).square()).sum())
            for name, weight in weights_of(agent).items()
            if self.omega
        )
        torch.testing.assert_close(
            loss.detach(), (own + self.strategy.importance * penalty).detach()
        )
        self.penalties.append(penalty)
        gradients = torch.autograd.grad(own, list(agent.parameters()))
        self.gradient = {name: g.double() for name, g in zip(self.start, gradients, strict=True)}
        self.before = weights_of(agent)
        return loss

    def after_step(self, agent: nn.Module, batch: Batch) -> None:
        for name, weight in weights_of(agent).items():
            self.path[name] -= self.gradient[name] * (weight - self.before[name])

    def end_task(self, agent: nn.Module, replay: Any) -> None:
        self.anchor = weights_of(agent)
        for name, path in self.path.items():
            way = self.anchor[name] - self.start[name]
            new = path / (way.square() + self.strategy.damping)
            self.omega[name] = (self.omega.get(name, 0) + new).clamp(min=0)
            torch.testing.assert_close(
                self.strategy.omega[name].double(), self.omega[name], rtol=1e-4, atol=1e-5
            )


class Both(Strategy):
    """Strategies one after the other, as in a run."""

    def __init__(self, *parts: Any):
        self.parts = parts

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "context":
            for part in self.parts:
                part.context = value

    def begin_task(self, agent: nn.Module, replay: Any) -> None:
        for part in self.parts:
            part.begin_task(agent, replay)

    def end_task(self, agent: nn.Module, replay: Any) -> None:
        for part in self.parts:
            part.end_task(agent, replay)

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        for part in self.parts:
            loss = part.after_loss(agent, batch, loss)
        return loss

    def after_backward(self, agent: nn.Module) -> None:
        self.parts[0].after_backward(agent)

    def after_step(self, agent: nn.Module, batch: Batch) -> None:
        for part in self.parts:
            part.after_step(agent, batch)


class Other:
    """A second penalty, which is part of the loss as far as SI is concerned."""

    def __call__(self, agent: nn.Module) -> Tensor:
        return 0.05 * sum((weight - 1).square().sum() for weight in agent.parameters())


class WithOther(SI):
    """SI, and after it another strategy that adds to the loss."""

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        return super().after_loss(agent, batch, loss) + Other()(agent)


class Net(nn.Sequential):
    def __init__(self, outputs: int):
        super().__init__(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, outputs))


def weights_of(agent: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().double() for name, weight in agent.named_parameters()}


def check(strategy: SI, *, other: bool = False, **settings: Any) -> Witness:
    """Three tasks, in which loss, path and importance are those of the equations at every step."""
    witness = Witness(strategy, Other() if other else None)
    Course(Both(strategy, witness), **settings).learn(0, 1, 2, steps=STEPS)
    assert max(witness.penalties[:STEPS]) == 0
    assert min(witness.penalties[STEPS + 1 : 2 * STEPS]) > 0
    return witness


def test_path_and_importance_are_those_of_the_equations() -> None:
    check(SI(importance=2, damping=0.05))


def test_what_other_strategies_add_is_part_of_the_loss() -> None:
    check(WithOther(importance=2, damping=0.05), other=True)


def test_the_path_is_that_of_the_optimiser_whatever_it_is() -> None:
    check(SI(importance=2), optim=lambda parameters: torch.optim.Adam(parameters, 1e-2))


def test_importance_is_never_negative() -> None:
    def uphill(parameters: Any) -> Any:
        return torch.optim.SGD(parameters, 0.05, momentum=0.99)

    strategy = SI(importance=0.1, damping=0.05)
    check(strategy, optim=uphill)
    assert all(bool((omega >= 0).all()) for omega in strategy.omega.values())
    assert any(bool((path < -0.05).any()) for path in strategy.path.values())


def no_penalty(*arguments: Any) -> Tensor:
    return 0 * penalty(*arguments)


def half(*arguments: Any) -> Tensor:
    return penalty(*arguments) / 2


penalty = importance.penalty


@pytest.mark.parametrize("broken", [no_penalty, half])
def test_the_check_objects_to_another_penalty(broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(si, "penalty", broken)
    with pytest.raises(AssertionError):
        check(SI(importance=2, damping=0.05))


class AllAlike(SI):
    def end_task(self, agent: nn.Module, replay: Any) -> None:
        super().end_task(agent, replay)
        self.omega = {name: torch.ones_like(omega) for name, omega in self.omega.items()}


class PenaltyIncluded(SI):
    """The gradient of the penalty is taken for one of the task."""

    def after_backward(self, agent: nn.Module) -> None:
        omega, self.omega = self.omega, {}
        super().after_backward(agent)
        self.omega = omega


class OldAnchor(SI):
    def end_task(self, agent: nn.Module, replay: Any) -> None:
        anchor = dict(self.anchor)
        super().end_task(agent, replay)
        self.anchor = anchor


class PathOfAllTasks(SI):
    def begin_task(self, agent: nn.Module, replay: Any) -> None:
        path = self.path
        super().begin_task(agent, replay)
        self.path = path or self.path


class Unbounded(SI):
    def end_task(self, agent: nn.Module, replay: Any) -> None:
        damping, self.damping = self.damping, 1e-12
        super().end_task(agent, replay)
        self.damping = damping


@pytest.mark.parametrize(
    "broken", [AllAlike, PenaltyIncluded, OldAnchor, PathOfAllTasks, Unbounded]
)
def test_the_check_objects_to(broken: type[SI]) -> None:
    with pytest.raises(AssertionError):
        check(broken(importance=2, damping=0.05))


def test_the_path_adds_up_to_the_fall_of_the_loss() -> None:
    """In small steps over the same rows: Zenke et al., eq. 3."""
    strategy, losses = SI(), []

    class Watch(Strategy):
        def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
            losses.append(loss.item())
            return loss

        def begin_task(self, agent: nn.Module, replay: Any) -> None: ...
        def end_task(self, agent: nn.Module, replay: Any) -> None: ...
        def after_step(self, agent: nn.Module, batch: Batch) -> None: ...

    course = Course(
        Both(strategy, Watch()),
        batch_size=80,
        optim=lambda parameters: torch.optim.SGD(parameters, 0.01),
    )
    course.begin(0).steps(151)
    fall = losses[0] - losses[-1]
    assert fall > 0.5
    assert sum(float(path.sum()) for path in strategy.path.values()) == pytest.approx(
        fall, rel=0.02
    )


# ---------------------------------------------------------------------------------- in a learner


def test_without_strength_it_is_naive_to_the_bit() -> None:
    def weights(strategy: Any) -> dict[str, Tensor]:
        course = Course(
            strategy,
            optim=lambda parameters: torch.optim.SGD(
                parameters, 0.1, momentum=0.9, weight_decay=0.01
            ),
        )
        return course.learn(0, 1, 2).weights()

    naive, without = weights(Idle()), weights(SI(importance=0))
    assert all(torch.equal(naive[name], without[name]) for name in naive)
    held = weights(SI(importance=1))
    assert not any(torch.equal(naive[name], held[name]) for name in naive)


def test_the_first_task_is_learnt_as_without_it() -> None:
    naive = Course(Idle()).learn(0).weights()
    run = Course(SI(importance=1e6)).learn(0).weights()
    assert all(torch.equal(naive[name], run[name]) for name in naive)


def test_a_clipped_gradient_counts_as_it_was_before() -> None:
    witness = Witness(SI())
    course = Course(Both(witness.strategy, witness))
    course.learner.clip_grad = 1e-2
    course.learn(0, 1)


def test_a_step_that_is_left_out_for_its_overflow_counts_for_nothing() -> None:
    strategy = SI()
    course = Course(strategy).begin(0).steps(1)
    path = {name: value.clone() for name, value in strategy.path.items()}
    for weight in course.agent.parameters():
        weight.grad = torch.full_like(weight, torch.inf)
    strategy.after_backward(course.agent)
    strategy.after_step(course.agent, course.rows(0))
    assert all(torch.equal(value, path[name]) for name, value in strategy.path.items())


class Partly(Net):
    """A weight that takes part in nothing, and one that is frozen."""

    def __init__(self, outputs: int):
        super().__init__(outputs)
        self.unused = nn.Parameter(torch.ones(2))
        self[0].bias.requires_grad_(False)


def test_weights_without_gradient_have_no_importance() -> None:
    strategy = SI()
    course = Course(strategy, Partly).learn(0)
    assert "0.bias" not in strategy.omega
    assert bool((strategy.omega["unused"] == 0).all())
    course.agent[0].bias.requires_grad_(True)
    course.learn(1, 2)
    assert bool((strategy.omega["0.bias"] > 0).any())


def test_less_is_forgotten(tmp_path: Path) -> None:
    naive, held = (permuted_digits(words, tmp_path) for words in ("naive", "si 1"))
    assert held["forgetting"] < naive["forgetting"] / 2
    assert held["accuracy"] > naive["accuracy"] + 0.01


class Stops(Crashing, Shallow): ...


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    check_resuming(["strategy=si"], Stops, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"importance": -1}, r"si.importance is -1; it must be a number of at least 0"),
        ({"damping": 0}, r"si.damping is 0; it must be a number of at least 1e-12"),
    ],
)
def test_numbers_out_of_bounds_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SI(**arguments)
