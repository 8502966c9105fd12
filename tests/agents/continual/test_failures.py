"""Whatever fails in whichever forward of a strategy, the model is as it was before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from antelope.agents import continual
from antelope.agents.continual import NAMES

from .course import WIDTH, Course

STRATEGIES = [name for name in NAMES["strategy"] if name not in ("naive", "joint", "cumulative")]
ARGUMENTS: dict[str, dict[str, Any]] = {"gdumb": {"passes": 2}}


class Fragile(nn.Module):
    """A layer under two names and in a list, statistics, dropout, a frozen weight; and it fails."""

    fails: dict[int, BaseException]  # By the number of the call.

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, 8)
        self.same, self.listed = self.first, nn.ModuleList([self.first])
        self.norm = nn.BatchNorm1d(8)
        self.middle = nn.Linear(8, 8)
        self.middle.bias.requires_grad_(False)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(8, outputs)
        self.calls, self.fails = 0, {}

    def forward(self, obs: Tensor) -> Tensor:
        hidden = self.norm(self.same(obs)).relu()
        hidden = self.drop(self.middle(hidden)).relu()
        self.calls += 1
        if self.calls in self.fails:
            raise self.fails[self.calls]
        out: Tensor = self.head(hidden)
        return out


class Looking:
    """Everything of a model that a strategy could leave changed."""

    def __init__(self, agent: nn.Module) -> None:
        named = dict((*agent.named_parameters(), *agent.named_buffers()))
        self.objects = {name: id(tensor) for name, tensor in named.items()}
        self.leaf = all(isinstance(p, nn.Parameter) for p in agent.parameters())
        self.training = {name: m.training for name, m in agent.named_modules()}
        self.learns = {name: p.requires_grad for name, p in agent.named_parameters()}
        self.hooks = {
            name: [
                len(getattr(m, kind))
                for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
            ]
            for name, m in agent.named_modules()
        }
        self.forward = "forward" in vars(agent)
        self.values = {name: tensor.detach().clone() for name, tensor in named.items()}
        self.gradients = {
            name: None if p.grad is None else p.grad.clone() for name, p in agent.named_parameters()
        }


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(
        (a is None) == (b is None) and (a is None or torch.equal(a, b))
        for a, b in zip(first.values(), second.values(), strict=True)
    )


def course(name: str) -> Course:
    arguments = ARGUMENTS.get(name, {})
    strategy = getattr(continual, NAMES["strategy"][name])(**arguments)
    scenario = "task" if name in ("pnn", "packnet") else "class"
    return Course(strategy, Fragile, tasks=2, scenario=scenario, batch_size=20)


def acts(it: Course) -> list[tuple[str, Any]]:
    """Two tasks, and predictions with and without the task told."""
    found: list[tuple[str, Any]] = []
    for task in (0, 1):
        found += [
            ("begin", lambda t=task: it.begin(t)),
            ("step", lambda: it.steps(1)),
            ("step", lambda: it.steps(1)),
            ("predict", lambda: it.predict(None)),
            ("end", lambda: it.end()),
            ("predict", lambda t=task: it.predict(t)),
        ]
    return found


@pytest.mark.filterwarnings("ignore:No loss reaches")
@pytest.mark.parametrize(
    "error", [RuntimeError("no"), KeyboardInterrupt()], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize("name", STRATEGIES)
def test_after_a_failure_the_model_is_as_before(name: str, error: BaseException) -> None:
    whole = course(name)
    for _, act in acts(whole):
        act()
    calls = whole.agent.calls
    assert calls >= 8
    failed = set()
    for number in {*range(1, min(calls, 24) + 1), *range(24, calls, 7), calls}:
        it = course(name)
        it.agent.fails = {it.agent.calls + number: error}  # type: ignore[assignment]
        for kind, act in acts(it):
            before = Looking(it.agent)
            try:
                act()
            except type(error):
                failed.add(kind)
                break
        else:
            continue
        after = Looking(it.agent)
        assert after.leaf
        assert after.objects == before.objects, (kind, number)
        assert after.training == before.training, (kind, number)
        assert after.learns == before.learns
        assert after.hooks == before.hooks
        assert after.forward == before.forward
        if (name, kind) in {("gdumb", "end"), ("packnet", "end"), ("pnn", "begin")}:
            continue  # In the middle of learning.
        learnt = dict(it.agent.named_parameters())
        assert same({n: before.values[n] for n in learnt}, {n: after.values[n] for n in learnt})
        if kind != "step":
            assert same(before.values, after.values), (kind, number)
            assert same(before.gradients, after.gradients), (kind, number)
    assert {"step", "predict"} <= failed
