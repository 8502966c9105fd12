"""MAS: a weight matters as much as the outputs depend on it, whatever the labels are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from antelope import Batch, ConfigError
from antelope.agents.continual import importance, mas
from antelope.agents.continual.mas import MAS

from .course import WIDTH, Course, Idle, permuted_digits


class Affine(nn.Module):
    """The model that the formula is worked out for."""

    def __init__(self, outputs: int):
        super().__init__()
        self.layer = nn.Linear(WIDTH, outputs)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs)


# ----------------------------------------------------------------------------------- the heart


def check(strategy: MAS, scenario: str = "class") -> None:
    """After each of three tasks, penalty and pull are those of the equations.

    For f = W x + b: |d ||f||^2 / d W_kj| = |2 f_k x_j|, and |2 f_k| for b; 0 for outputs that do not
    belong to the task, where it is told.
    """
    course = Course(strategy, Affine, scenario=scenario)
    weight, bias = course.agent.parameters()
    omega = [torch.zeros_like(weight), torch.zeros_like(bias)]
    loss = torch.tensor(3.0)
    assert strategy.after_loss(course.agent, course.rows(0), loss) is loss
    for task in range(3):
        course.learn(task, steps=5)
        x = course.rows(task).obs
        f = course.agent(x).detach()
        if scenario == "task":
            own = torch.zeros(f.shape[1])
            own[course.context.classes[task]] = 1
            f = f * own
        omega[0] += (2 * f[:, :, None] * x[:, None]).abs().mean(0)
        omega[1] += (2 * f).abs().mean(0)
        anchor = [weight.detach().clone(), bias.detach().clone()]
        with torch.no_grad():
            weight += 0.1 * torch.randn_like(weight)
            bias += 0.1 * torch.randn_like(bias)
        weight.grad = bias.grad = None
        total = strategy.after_loss(course.agent, course.rows(task), loss)
        total.backward()
        expected = loss
        for i, moving in enumerate((weight, bias)):
            moved = moving.detach() - anchor[i]
            expected = expected + strategy.importance * (omega[i] * moved.square()).sum()
            torch.testing.assert_close(moving.grad, 2 * strategy.importance * omega[i] * moved)
        torch.testing.assert_close(total.detach(), expected)


@pytest.mark.parametrize("scenario", ["class", "task", "domain"])
def test_penalty_and_pull_are_those_of_the_equations(scenario: str) -> None:
    check(MAS(importance=0.1), scenario)


def no_penalty(*arguments: Any) -> Tensor:
    return 0 * penalty(*arguments)


def all_weights_alike(agent: nn.Module, *_: Any, **__: Any) -> dict[str, Tensor]:
    return {name: torch.ones_like(weight) for name, weight in agent.named_parameters()}


def of_the_mean(agent: nn.Module, replay: Any, value: Any, **_: Any) -> dict[str, Tensor]:
    """The gradient of a whole batch, in which rows cancel each other."""
    batch = next(iter(replay.once(10_000)))
    mean = value(agent(batch.obs), batch).mean()
    gradients = torch.autograd.grad(mean, list(agent.parameters()))
    named = zip(agent.named_parameters(), gradients, strict=True)
    return {name: gradient.abs() for (name, _), gradient in named}


def squared(*arguments: Any, of: Any, **more: Any) -> dict[str, Tensor]:
    return mean_over_rows(*arguments, of=torch.square, **more)


def nowhere(agent: nn.Module) -> dict[str, Tensor]:
    return {name: torch.zeros_like(weight) for name, weight in agent.named_parameters()}


penalty, mean_over_rows = importance.penalty, importance.mean_over_rows


@pytest.mark.parametrize(
    ("part", "broken"),
    [
        ("penalty", no_penalty),
        ("mean_over_rows", all_weights_alike),
        ("mean_over_rows", of_the_mean),
        ("mean_over_rows", squared),
        ("copied", nowhere),
    ],
)
def test_the_check_objects_to(part: str, broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mas, part, broken)
    with pytest.raises(AssertionError):
        check(MAS(importance=0.1))


class LastTaskOnly(MAS):
    def end_task(self, agent: nn.Module, replay: Any) -> None:
        self.omega = {}
        super().end_task(agent, replay)


class AllOutputs(MAS):
    def _squared_norm(self, output: Tensor, batch: Batch) -> Tensor:
        return output.square().sum(1)


@pytest.mark.parametrize("broken", [LastTaskOnly, AllOutputs])
def test_the_check_objects_to_wrong_sums(broken: type[MAS]) -> None:
    with pytest.raises(AssertionError):
        check(broken(importance=0.1), "task")


# ------------------------------------------------------------------------------------- in a run


def test_labels_do_not_matter() -> None:
    strategy = MAS()
    course = Course(strategy).learn(0)
    omega = {name: value.clone() for name, value in strategy.omega.items()}
    course.label[course.task_of == 0] = 1 - course.label[course.task_of == 0]
    strategy.omega = {}
    strategy.end_task(course.agent, course.replay)
    assert all(torch.equal(value, omega[name]) for name, value in strategy.omega.items())


def test_without_strength_it_is_naive_to_the_bit() -> None:
    def weights(strategy: Any) -> dict[str, Tensor]:
        return Course(strategy).learn(0, 1, 2).weights()

    naive, without = weights(Idle()), weights(MAS(importance=0))
    assert all(torch.equal(naive[name], without[name]) for name in naive)
    held = weights(MAS(importance=1e-3))
    assert not any(torch.equal(naive[name], held[name]) for name in naive)


def test_the_first_task_is_learnt_as_without_it() -> None:
    naive = Course(Idle()).learn(0).weights()
    run = Course(MAS(importance=1e6)).learn(0).weights()
    assert all(torch.equal(naive[name], run[name]) for name in naive)


def test_less_is_forgotten(tmp_path: Path) -> None:
    naive, held = (permuted_digits(words, tmp_path) for words in ("naive", "mas 0.03"))
    assert held["forgetting"] < naive["forgetting"] / 2
    assert held["accuracy"] > naive["accuracy"] + 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"importance": -1}, r"mas.importance is -1; it must be a number of at least 0"),
        ({"samples": 0}, r"mas.samples is 0; it must be a number of at least 1"),
    ],
)
def test_numbers_out_of_bounds_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MAS(**arguments)
