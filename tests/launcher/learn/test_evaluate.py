"""Evaluation: of the averaged weights, of all rows however they are cut, and without a trace in training."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import Run, ml
from antelope.agents.traits import Traits
from antelope.envs import Digits
from antelope.envs import held_out as rows_held_out

QUIET: dict[str, Any] = {"plot": False, "progress": False, "batch_size": 32, "epochs": 1}


@pytest.fixture(autouse=True)
def _here(workdir: Path) -> None:
    """Every test in a folder of its own."""


class Net(nn.Module):
    """Remembers its weights at every forward, apart for training and evaluation."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        self.trained: list[Tensor] = []
        self.evaluated: list[tuple[int, Tensor]] = []  # After so many learning steps.

    def forward(self, obs: Tensor) -> Tensor:
        weight = self.layer.weight.detach().clone()
        if self.training:
            self.trained.append(weight)
        else:
            self.evaluated.append((len(self.trained), weight))
        return self.layer(obs.flatten(1))


# ------------------------------------------------------------------------------ averaged weights


@pytest.mark.parametrize("strategy", [None, "er"])
def test_what_is_evaluated_in_mid_run_are_the_averaged_weights(strategy: str | None) -> None:
    settings = QUIET | {"model": Net, "dataset": "Digits", "ema": 0.5, "eval_every": 7, "lr": 0.01}
    net = ml(strategy=strategy, tasks=2, **settings).agent
    checked = 0
    average = net.trained[0].clone()
    for step in range(1, len(net.trained)):
        average.lerp_(net.trained[step], 0.5)
        for taken, weight in net.evaluated:
            if taken == step:
                torch.testing.assert_close(weight, average)
                assert not torch.allclose(weight, net.trained[step])
                checked += 1
    assert checked > 4


def test_the_metrics_are_those_of_the_averaged_weights() -> None:
    # decay 1 keeps the initial weights for ever, whatever is learnt.
    settings = QUIET | {"model": Net, "dataset": "Digits", "eval_every": 10, "lr": 0.1}
    still, moving = (ml(path=f"{ema}", ema=ema, **settings) for ema in (1.0, None))
    losses = [row["loss"] for row in still.history if row["mode"] == "eval"]
    assert len(losses) > 3
    assert losses == pytest.approx([losses[0]] * len(losses))
    assert moving.metrics["loss"] < losses[0] / 2
    trained = [row["loss"] for row in still.history if row["mode"] == "train"]
    assert trained[-1] < losses[0] / 2  # It has learnt all the same.


# ------------------------------------------------------------------------------- several batches


def held_out(run: Run) -> tuple[Tensor, Tensor]:
    """What the metrics of a run are of."""
    from antelope.launcher.assembly.world import build_world
    from antelope.launcher.settings.compose import compose
    from antelope.launcher.settings.plan import make_plan

    world = build_world(make_plan(compose([], {"dataset": "Digits"})))
    rows = world.test.gather(world.tasks[0].test)
    return rows["obs"].float(), rows["label"]


@pytest.mark.parametrize("rows", [1, 7, 100, 1000])
def test_metrics_are_of_all_rows_however_many_are_looked_at_together(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_held_out, "_ROWS", rows)
    run = ml(model=Net, dataset="Digits", lr=0.01, standardize=False, **QUIET)
    obs, label = held_out(run)
    assert len(label) % 7
    assert len(label) % 100
    with torch.no_grad():
        scale = Digits().tensors[0].max() if obs.max() > 1 else 1
        outputs = run.agent.layer(obs.flatten(1) / scale)
    assert run.metrics["accuracy"] == pytest.approx(
        float((outputs.argmax(1) == label).float().mean())
    )
    assert run.metrics["loss"] == pytest.approx(float(F.cross_entropy(outputs, label)), rel=1e-5)


def test_values_are_scored_over_all_rows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ml(dataset="Diabetes", path="whole", **QUIET).metrics
    monkeypatch.setattr(rows_held_out, "_ROWS", 11)
    parts = ml(dataset="Diabetes", path="parts", **QUIET).metrics
    assert parts == pytest.approx(whole)  # An r2 of a few rows is another number.


def test_tasks_are_scored_over_all_rows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = QUIET | {"dataset": "Digits", "tasks": 5, "model": Net, "strategy": "packnet"}
    whole = ml(path="whole", **settings)
    monkeypatch.setattr(rows_held_out, "_ROWS", 11)
    parts = ml(path="parts", **settings)
    np.testing.assert_allclose(parts.accuracy_matrix, whole.accuracy_matrix)
    np.testing.assert_allclose(parts.task_il_matrix, whole.task_il_matrix)


class Generator(nn.Module):
    """Makes observations; the loss of a batch is the number of its rows."""

    antelope_traits = Traits(generates=True)

    def __init__(self, obs_spec: Any) -> None:
        super().__init__()
        self.weight, self.shape = nn.Parameter(torch.zeros(())), obs_spec.shape

    def learn(self, replay: Any) -> Tensor:
        next(replay)
        return self.weight.square()

    def loss(self, batch: Any) -> Tensor:
        return batch.obs.new_tensor(float(len(batch)))

    def sample(self, n: int) -> Tensor:
        return torch.zeros(n, *self.shape)


def test_the_loss_of_a_smaller_last_batch_counts_for_its_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rows_held_out, "_ROWS", 100)
    run = ml(model=Generator, dataset="Digits", **QUIET)
    rows = len(held_out(run)[1])
    whole, rest = divmod(rows, 100)
    assert run.metrics["loss"] == pytest.approx((whole * 100 * 100 + rest * rest) / rows)


# ------------------------------------------------------------------------ the streams of training


class Draws(nn.Module):
    """Draws from every stream, while it learns and while it is evaluated."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        noise = random.random() + float(np.random.rand())
        return self.layer(F.dropout(obs.flatten(1), 0.2)) + 0.1 * noise * self.layer.bias


def weights(run: Run) -> Tensor:
    return torch.cat([p.detach().flatten() for p in run.agent.parameters()])


CROP = {"_target_": "RandomCrop", "padding": 1}
RUNS: dict[str, dict[str, Any]] = {
    "alone": {},
    "augmented": {"aug": CROP},
    "er": {"tasks": 2, "strategy": "er", "aug": CROP},
    "derpp": {"tasks": 2, "strategy": "derpp"},
    "agem": {"tasks": 2, "strategy": "agem"},
    "icarl": {"tasks": 2, "strategy": "icarl"},
    "gdumb": {"tasks": 2, "strategy": "gdumb", "strategy.passes": 2},
    "packnet": {"tasks": 2, "strategy": "packnet"},
    "cwr": {"tasks": 2, "strategy": "cwr"},
    "pnn": {"tasks": 2, "strategy": "pnn"},
    "ema": {"ema": 0.9, "tasks": 2},
    "validation": {"tasks": 2, "validation": 0.2},
}


@pytest.mark.parametrize("name", RUNS)
def test_looking_on_changes_nothing(name: str) -> None:
    settings = QUIET | {"model": Draws, "dataset": "Digits", "optim": "AdamW"} | RUNS[name]
    runs = [ml(path=f"{every}", eval_every=every, **settings) for every in (5, 9, 10_000)]
    evaluations = [sum(row["mode"] == "eval" for row in run.history) for run in runs]
    assert evaluations[0] > evaluations[1] > evaluations[2]
    ends = [weights(run) for run in runs]
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


class Heard(Draws):
    """Remembers what was drawn in each evaluation, after so many learning steps."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.steps, self.drawn = 0, dict[int, list[float]]()

    def forward(self, obs: Tensor) -> Tensor:
        self.steps += self.training
        if not self.training:
            self.drawn.setdefault(self.steps, []).append(random.random())
        return super().forward(obs)


def test_what_is_drawn_depends_on_the_seed_and_the_step_alone() -> None:
    settings = QUIET | {"model": Heard, "dataset": "Digits", "eval_every": 5}
    first, again, other = (
        ml(path=f"{i}", seed=seed, **settings).agent.drawn for i, seed in enumerate((1, 1, 2))
    )
    assert first == again
    each = [tuple(drawn) for number, drawn in first.items() if number]
    assert len(each) > 4
    assert len(set(each)) == len(each)
    assert not set(each) & {tuple(drawn) for number, drawn in other.items() if number == 5}


@pytest.mark.parametrize(
    ("agent", "env", "steps"),
    [("DQN", "CartPole-v1", 240), ("PPO", "CartPole-v1", 300), ("TD3", "Pendulum-v1", 120)],
)
def test_looking_on_in_environments_changes_nothing(agent: str, env: str, steps: int) -> None:
    settings = {"agent": agent, "env": env, "train_steps": steps, "eval_episodes": 1}
    settings |= {"plot": False, "progress": False, "seed_steps": 40}
    runs = [ml(path=f"{every}", eval_every=every, **settings) for every in (steps // 4, 10_000)]
    evaluations = [sum(row["mode"] == "eval" for row in run.history) for run in runs]
    assert evaluations[0] > evaluations[1]
    assert torch.equal(*[weights(run) for run in runs])
