"""naive, joint and cumulative: what is learnt without a memory, and with all data."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ConfigError, Replay, Run, ml
from antelope.agents.continual import Cumulative, Joint


class MLP(nn.Module):
    """Keeps which rows, of which tasks, it has learnt."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(in_features, 32), nn.ReLU(), nn.Linear(32, out_features)
        )
        self.index: list[int] = []
        self.tasks: list[int] = []
        self.now: list[int] = []

    def forward(self, obs: Tensor) -> Tensor:
        return self.layers(obs)

    def begin_task(self, task: int) -> None:
        self.task = task

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        self.index += batch.index.tolist()
        self.tasks += batch.task.tolist()
        self.now += [self.task] * len(batch)
        return F.cross_entropy(self(batch.obs), batch.label)


def learnt(path: Path, strategy: Any, **settings: Any) -> Run:
    how = {"tasks": 5, "epochs": 2, "batch_size": 16, "optim": "SGD", "lr": 0.1} | settings
    return ml(model=MLP, strategy=strategy, path=path, plot=False, progress=False, **how)


def shares(run: Run) -> np.ndarray:
    """Rows learnt: in each task (row), of each task (column)."""
    counts = np.zeros((5, 5), int)
    np.add.at(counts, (run.agent.now, run.agent.tasks), 1)
    return counts


def sizes(run: Run) -> np.ndarray:
    """Rows of each task's data."""
    label = run.replay.storage.columns["label"]
    return (torch.as_tensor(label).long() // 2).bincount().numpy()


def check_naive(run: Run) -> None:
    """Each task's data in its turn; only the last is known in the end."""
    assert np.array_equal(shares(run), 2 * np.diag(sizes(run)))
    assert (run.accuracy_matrix[-1, :4] < 0.05).all()
    assert run.accuracy_matrix[-1, 4] > 0.9


def check_joint(run: Run) -> None:
    """All data at once, every row once in a pass; then nothing more."""
    expected = np.zeros((5, 5), int)
    expected[0] = 2 * sizes(run)
    assert np.array_equal(shares(run), expected)
    assert (np.bincount(run.agent.index) == 2).all()
    seen = np.tri(5, 5, 1, dtype=bool)
    assert (run.accuracy_matrix == run.accuracy_matrix[-1])[seen].all()
    assert run.accuracy_matrix[-1].min() > 0.7


def check_cumulative(run: Run) -> None:
    """In each task the data of all so far; so the earlier ones more often."""
    assert np.array_equal(shares(run), 2 * np.tril(np.ones((5, 5), int)) * sizes(run))
    assert run.accuracy_matrix[-1].min() > 0.7


CHECKS = {"naive": check_naive, "joint": check_joint, "cumulative": check_cumulative}


@pytest.mark.parametrize("name", CHECKS)
def test_the_data_learnt_is_that_of_the_bound(name: str, tmp_path: Path) -> None:
    run = learnt(tmp_path, name)
    CHECKS[name](run)
    assert len(run.tasks) == 5


@pytest.mark.parametrize(("name", "other"), list(itertools.permutations(CHECKS, 2)))
def test_no_bound_passes_for_another(name: str, other: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        CHECKS[name](learnt(tmp_path, other))


@pytest.mark.parametrize(
    ("name", "kind", "given"),
    [
        ("joint", Joint, lambda replay: range(5)),
        ("joint", Joint, lambda replay: [0, 1, 2, 3] if replay.task == 0 else []),
        ("joint", Joint, lambda replay: [0, 0, 1, 2, 3, 4] if replay.task == 0 else []),
        ("cumulative", Cumulative, lambda replay: range(replay.task)),
        ("cumulative", Cumulative, lambda replay: range(max(0, replay.task - 1), replay.task + 1)),
    ],
)
def test_the_checks_object_to_other_data(
    name: str, kind: Any, given: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin_task(self: Any, agent: nn.Module, replay: Replay) -> None:
        replay.use_tasks(given(replay))

    monkeypatch.setattr(kind, "begin_task", begin_task)
    with pytest.raises(AssertionError):
        CHECKS[name](learnt(tmp_path, name))


def test_joint_mixes_the_tasks(tmp_path: Path) -> None:
    tasks = learnt(tmp_path, "joint", epochs=1).agent.tasks
    first = np.bincount(tasks[:200], minlength=5)
    assert first.min() > 20


@pytest.mark.parametrize("name", ["joint", "cumulative"])
def test_which_task_a_row_is_of_stays_known(name: str, tmp_path: Path) -> None:
    run = learnt(tmp_path, name, scenario="task")
    assert run.metrics["task_il_accuracy"] > 0.9


@pytest.mark.parametrize("name", ["joint", "cumulative"])
def test_all_data_is_no_stream(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"strategy={name} must know where a task ends"):
        learnt(tmp_path, name, online=True, epochs=None)


def test_the_bounds_conflict(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="both choose the data"):
        learnt(tmp_path, ["joint", "cumulative"])
