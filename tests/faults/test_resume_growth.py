"""A run whose model changes while it learns, stopped and resumed, ends as if it had never stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from antelope import CheckpointError, ml

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(160, 6, generator=GENERATOR)
Y = (X[:, 0] > 0).long() + 2 * (X[:, 1] > 0).long()
# 8 rows a batch, two tasks of two classes, 2 epochs each: about 16 steps a task.
RUN: dict[str, Any] = {
    "dataset": (X, Y),
    "epochs": 2,
    "batch_size": 8,
    "save_every": 3,
    "plot": False,
    "progress": False,
    "device": "cpu",
}


class Crash(Exception):
    """Ends a run as a kill would."""


class Base(nn.Module):
    """Counts its steps, and fails in one of them if it is told to."""

    crash_at = 0

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.out_features = out_features
        self.body, self.head = nn.Linear(in_features, 8), nn.Linear(8, out_features)
        self.steps = 0
        self.flat = nn.Flatten()

    def forward(self, obs: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(self.flat(obs))))

    def learn(self, replay: Any) -> Tensor | None:
        self.steps += 1
        if self.steps == Base.crash_at:
            raise Crash
        self.change()
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)

    def change(self) -> None:
        pass


class Unfreezes(Base):
    """The body is frozen at first."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.body.requires_grad_(False)

    def change(self) -> None:
        if self.steps == 7:
            self.body.requires_grad_(True)


class AppendsInTask(Base):
    """A head for each task."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.head = nn.ModuleList([self.head])  # type: ignore[assignment]

    def begin_task(self, task: int) -> None:
        if task:
            self.head.append(nn.Linear(8, self.out_features))  # type: ignore[operator]

    def forward(self, obs: Tensor) -> Tensor:
        return self.head[-1](torch.relu(self.body(self.flat(obs))))  # type: ignore[index]


class WidensInTask(Base):
    """Two more outputs with each task, the earlier ones copied."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.head = nn.Linear(8, 2)

    def begin_task(self, task: int) -> None:
        if task:
            old, self.head = self.head, nn.Linear(8, 2 * task + 2)
            with torch.no_grad():
                self.head.weight[: len(old.weight)] = old.weight
                self.head.bias[: len(old.bias)] = old.bias

    def forward(self, obs: Tensor) -> Tensor:
        out = super().forward(obs)
        return F.pad(out, (0, self.out_features - self.head.out_features), value=-9.0)


class Adapter(nn.Module):
    """Of a class that the model has none of when it is constructed."""

    def __init__(self, width: int):
        super().__init__()
        self.down, self.up = nn.Linear(width, 2), nn.Linear(2, width)
        nn.init.zeros_(self.up.weight)
        self.act = torch.tanh

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.act(self.down(x)))


class InsertsInTask(Base):
    """A dictionary of adapters, empty at first; the body rests from then on."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.adapters = nn.ModuleDict()

    def begin_task(self, task: int) -> None:
        if task:
            self.adapters[f"task{task}"] = Adapter(8)
            self.body.requires_grad_(False)

    def forward(self, obs: Tensor) -> Tensor:
        x = torch.relu(self.body(self.flat(obs)))
        for adapter in self.adapters.values():
            x = adapter(x)
        return self.head(x)


class AppendsInLearn(Base):
    """A layer that grows out of a step, with normalisation; and a bare parameter."""

    extra: nn.Module | None

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.extra = None
        self.scale = None

    def change(self) -> None:
        if self.steps == 5:
            self.extra = nn.Sequential(
                nn.Linear(8, 5), nn.BatchNorm1d(5), nn.GELU(), nn.Linear(5, 8)
            )
        if self.steps == 9:
            self.scale = nn.Parameter(torch.ones(8))

    def forward(self, obs: Tensor) -> Tensor:
        x = torch.relu(self.body(self.flat(obs)))
        if self.extra is not None:
            x = x + self.extra(x)
        return self.head(x if self.scale is None else x * self.scale)


class ReplacesInLearn(Base):
    """A head of another shape, then one without bias."""

    def change(self) -> None:
        if self.steps == 6:
            self.body, self.head = nn.Linear(6, 11), nn.Linear(11, self.out_features)
        if self.steps == 12:
            self.head = nn.Linear(11, self.out_features, bias=False)


class DropsInLearn(Base):
    """One of two branches is cut off."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.branches = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def change(self) -> None:
        if self.steps == 8:
            del self.branches[1]

    def forward(self, obs: Tensor) -> Tensor:
        x = torch.relu(self.body(self.flat(obs)))
        return self.head(sum(branch(x) for branch in self.branches))


class OwnOptimiser(AppendsInLearn):
    """Steps itself, and adds what it has grown to its own optimiser."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.optim = torch.optim.Adam(self.parameters(), lr=0.01)

    def learn(self, replay: Any) -> None:
        loss = super().learn(replay)
        known = {id(p) for group in self.optim.param_groups for p in group["params"]}
        if new := [p for p in self.parameters() if id(p) not in known]:
            self.optim.add_param_group({"params": new, "lr": 0.02})
        assert loss is not None
        self.optim.zero_grad()
        loss.backward()
        self.optim.step()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    Base.crash_at = 0


def resumed(model: Any, step: int, **settings: Any) -> tuple[Any, Any]:
    """A run that was left alone, and one that crashed in a step and was resumed."""
    settings = RUN | settings
    whole = ml(model=model, path="whole", **settings)
    Base.crash_at = step
    with pytest.raises(Crash):
        ml(model=model, path="run", **settings)
    Base.crash_at = 0
    return whole, ml(model=model, path="run", resume=True, **settings)


def assert_same(run: Any, whole: Any) -> None:
    ours, theirs = run.agent.state_dict(), whole.agent.state_dict()
    assert list(ours) == list(theirs)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    for one, other in zip(run.agent.parameters(), whole.agent.parameters(), strict=True):
        assert one.requires_grad == other.requires_grad
    assert run.history == whole.history


class NormsInTask(Base):
    """A parametrisation, of a class that torch makes on the way."""

    def begin_task(self, task: int) -> None:
        if task:
            nn.utils.parametrizations.weight_norm(self.body)


class PrunesInLearn(Base):
    """With a hook, which nothing but the call itself can put there again."""

    def change(self) -> None:
        if self.steps == 5:
            prune.l1_unstructured(self.body, "weight", 0.5)


class TiesInTask(Base):
    """A second head that shares the first one's weight, and a part under two names."""

    def begin_task(self, task: int) -> None:
        if task:
            self.second = nn.Linear(8, self.out_features)
            self.second.weight = self.head.weight
            self.trunk = self.body

    def forward(self, obs: Tensor) -> Tensor:
        x = torch.relu(self.body(self.flat(obs)))
        return self.head(x) + (self.second(x) if hasattr(self, "second") else 0)


class WidensData(Base):
    """The data of a weight is replaced, not the parameter."""

    def change(self) -> None:
        if self.steps == 6:
            for tensor in (self.body.weight, self.body.bias):
                tensor.data = torch.cat([tensor.data, torch.zeros_like(tensor.data[:3])])
            self.head.weight.data = torch.cat([self.head.weight.data, torch.ones(4, 3)], 1)


class Observes(nn.Module):
    """In the way of Mammoth, with an optimiser for each task."""

    steps = 0

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(in_features, 8), nn.ReLU(), nn.Linear(8, out_features))
        self.opt = torch.optim.Adam(self.net.parameters(), lr=0.01)

    def forward(self, obs: Tensor) -> Tensor:
        return self.net(obs)

    def begin_task(self, dataset: Any) -> None:
        if dataset.c_task:
            self.net[0], self.net[2] = nn.Linear(6, 13), nn.Linear(13, 4)
            self.opt = torch.optim.Adam(self.net.parameters(), lr=0.01)

    def observe(self, inputs: Tensor, labels: Tensor) -> float:
        self.steps += 1
        if self.steps == Base.crash_at:
            raise Crash
        self.opt.zero_grad()
        loss = F.cross_entropy(self.net(inputs), labels)
        loss.backward()
        self.opt.step()
        return loss.item()


OPTIMISERS: list[dict[str, Any]] = [
    {"optim": "AdamW", "lr": 0.01, "ema": 0.9, "clip_grad": 0.5},
    {"optim": {"_target_": "SGD", "lr": 0.1, "momentum": 0.9}, "clip_grad": 0.3},
]


@pytest.mark.parametrize("settings", OPTIMISERS, ids=["adamw-ema-clip", "momentum-clip"])
@pytest.mark.parametrize(
    "model",
    [Unfreezes, AppendsInLearn, ReplacesInLearn, DropsInLearn, WidensData],
    ids=lambda m: m.__name__,
)
def test_changes_in_learn(model: Any, settings: dict[str, Any]) -> None:
    whole, run = resumed(model, 17, **settings)
    assert_same(run, whole)


@pytest.mark.parametrize("settings", OPTIMISERS, ids=["adamw-ema-clip", "momentum-clip"])
@pytest.mark.parametrize(
    "model",
    [AppendsInTask, WidensInTask, InsertsInTask, NormsInTask, TiesInTask],
    ids=lambda m: m.__name__,
)
def test_changes_in_begin_task(model: Any, settings: dict[str, Any]) -> None:
    whole, run = resumed(model, 30, tasks=2, **settings)
    assert_same(run, whole)


STRATEGIES = [
    "ewc",
    "ewc_online",
    "si",
    "mas",
    "lwf",
    "icarl",
    "cwr",
    "packnet",
    "gdumb",
    "agem",
    "der",
]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("model", [AppendsInTask, InsertsInTask], ids=lambda m: m.__name__)
def test_strategies_go_on_with_what_they_hold(model: Any, strategy: str) -> None:
    few = {"strategy.passes": 4} if strategy == "gdumb" else {}
    settings = {"tasks": 5, "dataset": "Digits", "epochs": 1, "batch_size": 32, **few}
    whole, run = resumed(model, 42, strategy=strategy, **settings)
    assert_same(run, whole)
    np.testing.assert_array_equal(run.accuracy_matrix, whole.accuracy_matrix)


def test_an_optimiser_of_the_models_own_holds_what_it_held() -> None:
    whole, run = resumed(OwnOptimiser, 17)
    assert_same(run, whole)
    groups = run.agent.optim.param_groups
    assert [len(group["params"]) for group in groups] == [4, 6, 1]
    assert [group["lr"] for group in groups] == [0.01, 0.02, 0.02]


def test_a_model_that_observes_makes_its_optimiser_again() -> None:
    whole, run = resumed(Observes, 30, tasks=2)
    assert_same(run, whole)
    ours, theirs = (r.agent.opt.state_dict()["state"] for r in (run, whole))
    assert all(torch.equal(ours[i]["exp_avg"], theirs[i]["exp_avg"]) for i in theirs)


def test_what_cannot_be_made_again_is_named() -> None:
    with pytest.raises(
        CheckpointError, match=r"`body` was added to PrunesInLearn .* Create it in __init__, or in"
    ):
        resumed(PrunesInLearn, 17)


def test_another_model_is_still_refused() -> None:
    ml(model=AppendsInTask, path="run", tasks=2, **RUN)
    with pytest.raises(CheckpointError, match="does not fit Base"):
        ml(model=Base, path="run", resume=True, tasks=2, **RUN)


def test_weights_of_a_model_that_has_grown_are_loaded() -> None:
    run = ml(model=WidensInTask, path="run", tasks=2, **RUN)
    still: dict[str, Any] = {"optim": {"_target_": "SGD", "lr": 0.0}, "train_steps": 1}
    started = ml(model=WidensInTask, path="next", load="run", **RUN | still)
    assert torch.equal(started.agent.head.weight, run.agent.head.weight)
