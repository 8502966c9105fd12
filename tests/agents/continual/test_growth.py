"""What strategies know of weights, when these are replaced by more, by fewer, or by others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ConfigError, Memory, ml
from antelope.agents.continual.importance import fit
from antelope.agents.continual.strategy import Strategy

from .resuming import Crashing, check_same_end, resumed


class Two(nn.Module):
    def __init__(self, outputs: int = 2):
        super().__init__()
        self.body, self.head = nn.Linear(3, 2), nn.Linear(2, outputs)


def kept(agent: nn.Module) -> dict[str, Tensor]:
    return {name: torch.full_like(p.detach(), 5.0) for name, p in agent.named_parameters()}


class TestFit:
    def test_keeps_the_rows_that_there_were(self) -> None:
        known = kept(Two())
        fit(Two(3), known)
        assert known["head.weight"].tolist() == [[5, 5], [5, 5], [0, 0]]
        assert known["head.bias"].tolist() == [5, 5, 0]
        assert (known["body.weight"] == 5).all()

    def test_begins_new_rows_at_what_they_are(self) -> None:
        known, agent = kept(Two()), Two(3)
        fit(agent, known, now=True)
        assert torch.equal(known["head.weight"][2], agent.head.weight[2])
        assert (known["head.weight"][:2] == 5).all()

    def test_forgets_what_is_gone_and_what_has_other_inputs(self) -> None:
        known, agent = kept(Two()), Two()
        agent.head = nn.Linear(7, 2, bias=False)
        fit(agent, known)
        assert known.keys() == {"body.weight", "body.bias"}

    def test_forgets_what_has_fewer_rows(self) -> None:
        known = kept(Two())
        fit(Two(1), known)
        assert known.keys() == {"body.weight", "body.bias"}


class Heads(nn.Module):
    """A head for each task, the newest of which answers."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(in_features, 32), nn.ReLU())
        self.n, self.heads = out_features, nn.ModuleList([nn.Linear(32, out_features)])

    def begin_task(self, task: int) -> None:
        if task:
            self.heads.append(nn.Linear(32, self.n))

    def forward(self, obs: Tensor) -> Tensor:
        return self.heads[-1](self.body(obs))


class Wider(nn.Module):
    """One head, which gets two outputs with each task."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(in_features, 32), nn.ReLU())
        self.n, self.head = out_features, nn.Linear(32, 2)

    def begin_task(self, task: int) -> None:
        if task:
            old, self.head = self.head, nn.Linear(32, 2 * task + 2)
            with torch.no_grad():
                self.head.weight[: len(old.weight)] = old.weight
                self.head.bias[: len(old.bias)] = old.bias

    def forward(self, obs: Tensor) -> Tensor:
        out = self.head(self.body(obs))
        return nn.functional.pad(out, (0, self.n - self.head.out_features), value=-9.0)


RUN: dict[str, Any] = {
    **{"dataset": "Digits", "tasks": 5, "epochs": 1, "lr": 1e-2},
    **{"plot": False, "progress": False, "device": "cpu"},
}
ANY = ["er", "er_ace", "derpp", "ewc", "ewc_online", "si", "mas", "lwf", "gem", "agem", "gdumb"]
ON_OUTPUTS = ["cwr", "icarl", "packnet"]


class Watch(Strategy):
    """Notes what it hears, and what the newest head is when it comes."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.born: list[Tensor] = []

    def parameters_changed(self, agent: nn.Module) -> None:
        self.heard.append(self.context.task)
        newest = [*agent.parameters()][-2]
        self.born.append(newest.detach().clone())


@pytest.mark.parametrize(
    ("model", "strategy"),
    [(m, s) for m in (Heads, Wider) for s in ANY] + [(Heads, s) for s in ON_OUTPUTS],
)
def test_every_task_is_learnt_with_a_growing_model(model: Any, strategy: str) -> None:
    watch = Watch()
    if strategy == "gdumb":  # Fewer rows and passes than it has by default: this is about growth.
        words: Any = {"strategy": {"_target_": "gdumb", "capacity": 200, "passes": 24}}
    else:
        words = {"strategy": [strategy, watch]}
    run = ml(model=model, **words, **RUN)
    assert run.task_il_matrix.diagonal().mean() > 0.7
    if strategy != "gdumb":
        assert watch.heard == [1, 2, 3, 4]
        newest = [*run.agent.parameters()][-2]
        assert not torch.equal(newest, watch.born[-1])


def test_lwf_asks_the_head_that_each_task_had() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Probe(Strategy):
        recalls = True

        def __init__(self) -> None:
            self.before: dict[str, Tensor] = {}
            self.rows = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
            self.answers = torch.zeros(0)

        def end_task(self, agent: Any, replay: Any) -> None:
            self.before = self.context.snapshot()
            self.answers = self.context.recall(self.before, self.rows, self.context.task)

        def after_step(self, agent: Any, batch: Any) -> None:
            if self.before and len(seen) < self.context.task:
                seen.append((self.answers, self.context.recall(self.before, self.rows)))

    ml(model=Heads, strategy=Probe, **RUN)
    assert len(seen) == 4
    assert all(torch.equal(then, now) for then, now in seen)


class Large(Memory):
    """One that there is no room for twice."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Memory:
        raise MemoryError


class Remembers(Heads):
    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.past = Large(20)


class Uncopied(Heads):
    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        raise TypeError("cannot pickle this")


def test_to_remember_layers_copies_nothing_large() -> None:
    run = ml(model=Remembers, strategy="lwf", **RUN)
    assert run.task_il_matrix.diagonal().mean() > 0.7


def test_layers_that_cannot_be_remembered_are_not_asked() -> None:
    with pytest.raises(ConfigError, match="no longer available: the model cannot be copied"):
        ml(model=Uncopied, strategy="lwf", **RUN)


def test_packnet_forgets_nothing() -> None:
    run = ml(model=Heads, strategy="packnet", **RUN | {"scenario": "task"})
    matrix = run.task_il_matrix
    for task in range(5):
        assert matrix[4][task] == matrix[task][task]


def _replaced(model: Callable[..., nn.Module]) -> Any:
    class Replaced(model):  # type: ignore[misc, valid-type]
        def begin_task(self, task: int) -> None:
            if task:
                self.body[1] = nn.Linear(self.body[1].in_features, 40)
                self.heads[0] = nn.Linear(40, self.n)

    return Replaced


@pytest.mark.parametrize(
    ("model", "strategy", "why"),
    [
        (
            Heads,
            "pnn",
            r"a column to the model for each task, so its layers must not change: `heads.1",
        ),
        (
            _replaced(Heads),
            "packnet",
            r"keeps weights of earlier tasks in `body.1.weight`, which has an",
        ),
        (_replaced(Heads), "cwr", r"keeps the output layer of earlier tasks, of shape \[10, 32\]"),
    ],
    ids=["pnn", "packnet", "cwr"],
)
def test_what_cannot_be_right_is_an_error(model: Any, strategy: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        ml(model=model, strategy=strategy, **RUN)


class Adapted(Crashing):
    """Gets a layer in the middle of its first task."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.body, self.head = nn.Linear(in_features, 6), nn.Linear(6, out_features)
        self.n = 0

    def forward(self, obs: Tensor) -> Tensor:
        h = self.body(obs).relu()
        return self.head(h + self.more(h) if hasattr(self, "more") else h)

    def learn(self, replay: Any) -> Tensor:
        self.n += 1
        if self.n == 2:
            self.more = nn.Linear(6, 6)
        return super().learn(replay)


def test_what_a_task_left_is_known_after_a_resumption(tmp_path: Path) -> None:
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
    data = (x, (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long())

    def learnt(path: Path, **more: Any) -> Any:
        options = {"tasks": 2, "strategy": "packnet", "epochs": 2, "batch_size": 8, "save_every": 1}
        quiet = {"plot": False, "progress": False}
        return ml(model=Adapted, dataset=data, path=path, lr=0.05, **options, **quiet, **more)

    Adapted.steps = 0
    whole = learnt(tmp_path / "whole")
    run = resumed(learnt, Adapted, Adapted.steps * 3 // 4, tmp_path / "resumed")
    check_same_end(run, whole)
    assert run.history == whole.history  # With the loss of each task.


@pytest.mark.parametrize("strategy", ["gem", "agem"])
def test_a_model_may_freeze_a_part_in_every_other_step(strategy: str) -> None:
    """The strategy calls `learn` too, for the gradient on the rows that it keeps."""

    class Alternates(nn.Module):
        def __init__(self, in_features: int, out_features: int):
            super().__init__()
            self.body, self.head = nn.Linear(in_features, 6), nn.Linear(6, out_features)
            self.n = 0

        def learn(self, replay: Any) -> Tensor:
            self.n += 1
            self.body.requires_grad_(self.n % 2 == 0)
            batch = next(replay)
            return F.cross_entropy(self.head(self.body(batch.obs.flatten(1)).relu()), batch.label)

    run = ml(model=Alternates, strategy=strategy, **RUN)
    assert all(p.isfinite().all() for p in run.agent.parameters())


def test_packnet_trains_further_as_the_run_trains() -> None:
    """With a gradient clipped to nothing, what is not pruned is as the constructor made it."""
    options = {"optim": "SGD", "lr": 1.0, "clip_grad": 1e-12, "seed": 1}
    run = ml(model=Wide, strategy="packnet", **(RUN | options))
    torch.manual_seed(1)
    for weight, first in zip(run.agent.parameters(), Wide(64, 10).parameters(), strict=True):
        assert torch.where(weight.abs() < 1e-6, first, weight).allclose(first, atol=1e-6)


class Wide(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.body, self.head = nn.Linear(in_features, 6), nn.Linear(6, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.head(self.body(obs.flatten(1)).relu())
