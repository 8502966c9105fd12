"""`for task in ml.tasks(...)`: the run that `ml` makes, with the caller's own code between the tasks."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from antelope import ConfigError, Diverged, Run, ml

pytestmark = pytest.mark.usefixtures("workdir")

QUIET: dict[str, Any] = {"progress": False, "plot": False, "epochs": 1}
DIGITS: dict[str, Any] = {"dataset": "Digits", "tasks": 5, "batch_size": 128, **QUIET}
POLES: dict[str, Any] = {
    "env": ["CartPole-v1", "CartPole-v1"],
    "train_steps": 60,
    "seed_steps": 30,
    "eval_episodes": 1,
    "progress": False,
    "plot": False,
}


class Net(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(in_features, 16), nn.Dropout(0.2))
        self.head = nn.Linear(16, out_features)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(obs))


def weights(run: Run) -> list[torch.Tensor]:
    return list(run.agent.state_dict().values())


def equal(a: Run, b: Run) -> bool:
    rows = [
        [(run.path / f"{mode}.csv").read_text() for mode in ("train", "eval")] for run in (a, b)
    ]
    return (
        all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))
        and rows[0] == rows[1]
        and np.array_equal(a.accuracy_matrix, b.accuracy_matrix, equal_nan=True)
    )


def status(path: str | Path = "run") -> Any:
    return json.loads((Path(path) / "status.json").read_text())


def free(path: str | Path = "run") -> bool:
    return not (Path(path) / ".lock").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"model": Net, **DIGITS, "strategy": ["er", "ewc"]},
        {"model": Net, **DIGITS, "strategy": "packnet"},
        {"model": Net, **DIGITS, "ema": 0.9, "scenario": "task", "accumulate": 2},
        {"model": Net, **DIGITS, "online": True, "strategy": "er"},
        {"model": Net, "dataset": "Digits", **QUIET},
        POLES,
    ],
    ids=["er+ewc", "packnet", "ema", "online", "one", "env"],
)
def test_looking_between_the_tasks_changes_nothing(settings: dict[str, Any]) -> None:
    whole = ml(path="whole", **settings)
    threads = torch.get_num_threads()
    tasks = ml.tasks(path="run", **settings)
    for task in tasks:
        task.learn()
        task.evaluate()
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)
        torch.set_num_threads(threads % 2 + 1)
        example = torch.zeros(4, 1, 8, 8, dtype=torch.float32)
        if isinstance(task.agent, Net):
            task.agent(example).sum().backward()
        if task.number == 0:
            ml(model=Net, dataset="Digits", path="other", train_steps=2, **QUIET)
        torch.set_default_dtype(torch.float64)
        task.evaluate()
        torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)
    assert equal(whole, tasks.run)
    assert status()["status"] == "finished"
    assert free()


def test_the_process_is_the_callers_between_the_tasks() -> None:
    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(7)
    handlers = signal.getsignal(signal.SIGINT), warnings.filters[:], torch.get_num_threads()
    drawn = []
    settings = {"model": Net, **DIGITS, "threads": 2, "deterministic": True}
    for task in ml.tasks(path="run", **settings):
        drawn.append(torch.rand(1))
        task.learn()
        task.evaluate()
        now = signal.getsignal(signal.SIGINT), warnings.filters[:], torch.get_num_threads()
        assert now == handlers
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.is_grad_enabled()
    assert torch.equal(torch.cat(drawn)[:4], expected)


def test_a_task_knows_its_name_classes_and_scores() -> None:
    rows = []
    tasks = ml.tasks(model=Net, path="run", **DIGITS, strategy="er")
    assert len(tasks) == 5
    for number, task in enumerate(tasks):
        assert (task.number, task.name) == (number, f"classes {2 * number}-{2 * number + 1}")
        assert task.classes == [2 * number, 2 * number + 1]
        assert f"accuracy/task_{number}" in task.evaluate()
        learnt = task.learn()
        assert not task.agent.training
        assert task.run.agent is task.agent
        assert learnt == task.evaluate()
        assert task.learn() == learnt  # Once is enough.
        rows.append(learnt)
    assert rows[-1].items() >= tasks.run.metrics.items()
    assert tasks.run.accuracy_matrix[2, 1] == rows[2]["accuracy/task_1"]


def learn_the_first(task: Any) -> None:
    if task.number == 0:
        task.learn()


def test_a_task_that_is_not_learnt_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"Task 0 \(classes 0-1\) was skipped.*task.learn\(\)"):
        list(ml.tasks(model=Net, path="run", **DIGITS))
    assert not Path("run").exists()
    with pytest.raises(ConfigError, match="Task 1"):
        list(map(learn_the_first, ml.tasks(model=Net, path="run", **DIGITS)))
    assert status()["status"] == "failed"
    assert free()


def test_mistakes_are_found_before_the_loop() -> None:
    with pytest.raises(ConfigError, match="equal tasks"):
        ml.tasks(model=Net, path="run", **{**DIGITS, "tasks": 3})
    assert not Path("run").exists()


def leave(how: str) -> None:
    for task in ml.tasks(model=Net, path="run", **DIGITS, strategy="ewc"):
        task.learn()
        if task.number == 1:
            if how == "break":
                break
            if how == "interrupt":
                raise KeyboardInterrupt  # What Python itself makes of Ctrl-C there.
            raise IndexError(how)


@pytest.mark.parametrize(
    ("how", "raised"), [("break", None), ("error", IndexError), ("interrupt", KeyboardInterrupt)]
)
def test_a_loop_left_early_is_closed_and_goes_on_when_resumed(how: str, raised: Any) -> None:
    whole = ml(model=Net, path="whole", **DIGITS, strategy="ewc")
    if raised is None:
        leave(how)
    else:
        with pytest.raises(raised):
            leave(how)
    gc.collect()
    assert status()["status"] == "interrupted"
    assert free()
    assert status()["reason"] == "The loop over the tasks ended after 2 of 5."
    tasks = ml.tasks("resume=true", model=Net, path="run", **DIGITS, strategy="ewc")
    assert [task.learn() and task.number for task in tasks] == [2, 3, 4]
    assert equal(whole, tasks.run)
    again = ml.tasks("resume=true", model=Net, path="run", **DIGITS, strategy="ewc")
    assert [task.number for task in again] == []
    assert again.run.metrics == whole.metrics
    assert status()["status"] == "finished"


class Stops(Net):
    """Asks to be interrupted in the second task."""

    steps = 0

    def learn(self, replay: Any) -> torch.Tensor:
        batch = next(replay)
        Stops.steps += 1
        if Stops.steps == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return nn.functional.cross_entropy(self(batch.obs), batch.label)


def test_a_signal_in_mid_task_saves_and_the_rest_of_the_task_is_learnt_later() -> None:
    Stops.steps = 100
    whole = ml(model=Stops, path="whole", **DIGITS)
    Stops.steps = 0
    seen = []

    def learn(task: Any) -> None:
        seen.append(task.number)
        task.learn()

    with pytest.raises(KeyboardInterrupt):
        list(map(learn, ml.tasks(model=Stops, path="run", **DIGITS)))
    assert seen == [0, 1]
    assert status()["status"] == "interrupted"
    assert free()
    tasks = ml.tasks("resume=true", model=Stops, path="run", **DIGITS)
    assert [task.learn() and task.number for task in tasks] == [1, 2, 3, 4]
    assert equal(whole, tasks.run)


class Explodes(Net):
    def learn(self, replay: Any) -> torch.Tensor:
        return self(next(replay).obs).sum() * (1 if replay.step == 1 else torch.inf)


def test_a_run_that_diverged_learns_no_more() -> None:
    tasks = ml.tasks(model=Explodes, path="run", **DIGITS)
    for task in tasks:
        with pytest.raises(Diverged):
            task.learn()
        with pytest.raises(ConfigError, match=r"ended \(diverged\)"):
            task.learn()
        break
    assert status()["status"] == "diverged"


def test_tasks_that_nobody_takes_leave_nothing() -> None:
    tasks = ml.tasks(model=Net, path="run", **DIGITS)
    assert not free()
    del tasks
    gc.collect()
    assert not Path("run").exists()


def test_environments_of_a_run_that_has_ended_are_closed() -> None:
    for task in ml.tasks(path="run", **POLES):
        assert task.classes == []
        assert task.name == "CartPole-v1"
        task.learn()
    with pytest.raises(ConfigError, match="environments are closed"):
        task.evaluate()
