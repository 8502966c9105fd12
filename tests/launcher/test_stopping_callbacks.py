"""A callback that ends a run: its status, its results, and how it continues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from antelope import CheckpointError, ConfigError, Run, ml
from antelope.launcher.live_run import LiveRun
from antelope.launcher.ml import main

pytestmark = pytest.mark.usefixtures("workdir")  # Every test in a folder of its own.

QUIET: dict[str, Any] = {"plot": False, "progress": False, "path": "run"}
ROWS = np.random.RandomState(0).randn(200, 4).astype(np.float32)
DATA: dict[str, Any] = {"dataset": (ROWS, ROWS.argmax(1)), "batch_size": 20}


class Net(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        self.noise = nn.Dropout(0.5)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(self.noise(obs.flatten(1)))


class Stop:
    """Stops at a hook, at a step; counts the steps it has seen."""

    def __init__(self, hook: str = "on_step", step: int = 5):
        setattr(self, hook, lambda run: "stop" if run.step >= step else None)
        self.count = 0
        if hook != "on_step":
            self.on_step = self.counted

    def counted(self, run: LiveRun) -> None:
        self.count += 1

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]


def learn(**settings: Any) -> Run:
    return ml(model=Net, **{**QUIET, **DATA, **settings})


def status() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("run/status.json").read_text())
    return found


def same(one: Run, other: Run) -> bool:
    return all(map(torch.equal, one.agent.parameters(), other.agent.parameters()))


def test_a_stopped_run_is_evaluated_saved_and_told_by_its_status() -> None:
    run = learn(epochs=2, callbacks=Stop())
    assert (status()["status"], status()["reason"], status()["step"]) == (
        "stopped",
        "Stop.on_step",
        5,
    )
    assert run.metrics == status()["metrics"]
    assert 0 < run.metrics["accuracy"] < 1
    assert not run.agent.training
    assert [row["step"] for row in run.history if row["mode"] == "eval"] == [5]
    with pytest.raises(ConfigError, match="stopped: call ml with resume=true"):
        run.learn_task((ROWS, ROWS.argmax(1)))


@pytest.mark.parametrize(
    ("stop", "step"),
    [
        (Stop("on_step", 5), 5),
        (Stop("on_evaluation", 8), 8),
        (Stop("on_begin", 0), 0),
    ],
)
def test_it_continues_to_the_bit(stop: Stop, step: int) -> None:
    whole = learn(epochs=2, path="whole")
    learn(epochs=2, callbacks=stop)
    assert status()["step"] == step
    resumed = learn(epochs=2, resume=True, callbacks=None)
    assert same(whole, resumed)
    assert resumed.metrics == whole.metrics
    assert Path("run/eval.csv").read_bytes() == Path("whole/eval.csv").read_bytes()
    assert Path("run/train.csv").read_bytes() == Path("whole/train.csv").read_bytes()
    assert status()["status"] == "finished"


@pytest.mark.parametrize(("stop", "learnt"), [(Stop("on_task", 1), 1), (Stop("on_step", 11), 1)])
def test_a_sequence_stops_between_tasks_or_within_one(stop: Stop, learnt: int) -> None:
    settings: dict[str, Any] = {"tasks": 2, "strategy": "er", "epochs": 2, "eval_rows": 10}
    whole = learn(**settings, path="whole")
    run = learn(**settings, callbacks=stop)
    assert (status()["status"], status()["task"]) == ("stopped", learnt)
    assert run.accuracy_matrix.shape == (learnt, 2)
    resumed = learn(**settings, resume=True)
    assert same(whole, resumed)
    assert np.array_equal(whole.accuracy_matrix, resumed.accuracy_matrix)


def test_a_loop_over_the_tasks_ends_with_the_run() -> None:
    settings: dict[str, Any] = {**QUIET, **DATA, "model": Net, "tasks": 2, "epochs": 1}
    learnt = []
    tasks = ml.tasks(**settings, callbacks=Stop("on_task", 1))
    for task in tasks:
        learnt.append(task.number)
        task.learn()
    assert learnt == [0]
    assert status()["status"] == "stopped"
    for task in ml.tasks(**settings, resume=True):
        learnt.append(task.number)
        task.learn()
    assert learnt == [0, 1]
    assert status()["status"] == "finished"


def test_an_environments_run_stops_and_continues_to_the_bit() -> None:
    settings: dict[str, Any] = {**QUIET, "env": "CartPole-v1", "agent": "DQN", "train_steps": 120}
    settings |= {"seed_steps": 40, "eval_every": 60, "eval_episodes": 1, "learn_every": 1}
    whole = ml(**{**settings, "path": "whole"})
    run = ml(**settings, callbacks=Stop("on_step", 70))
    assert (status()["status"], status()["step"]) == ("stopped", 70)
    assert "return" in run.metrics
    assert same(whole, ml(**settings, resume=True))


def test_the_last_step_finishes_the_run_all_the_same() -> None:
    learn(epochs=1, callbacks=Stop("on_step", 8))
    assert status()["status"] == "finished"


def test_callbacks_continue_from_their_own_state() -> None:
    stop = Stop("on_evaluation", 8)
    learn(epochs=2, callbacks=stop)
    assert stop.count == 8
    again = Stop("on_evaluation", 99)
    learn(epochs=2, callbacks=again, resume=True)
    assert again.count == 16


def test_callbacks_of_one_class_have_a_state_each_and_the_first_stop_counts() -> None:
    class Other(Stop):
        """Stops at the same step, but second."""

    stops = [Stop("on_evaluation", 99), Stop("on_step", 5), Other("on_step", 5)]
    learn(epochs=2, callbacks=stops)
    assert status()["reason"] == "Stop#2.on_step"
    again = [Stop("on_evaluation", 99), Stop("on_evaluation", 99)]
    again[1].count = -1
    learn(epochs=2, callbacks=again, resume=True)
    assert [stop.count for stop in again] == [16, 11]


def test_a_callback_that_refuses_its_state_is_an_error_that_names_it() -> None:
    class Refuses(Stop):
        def load_state_dict(self, state: dict[str, int]) -> None:
            raise KeyError("other")

    learn(epochs=2, callbacks=Refuses())
    with pytest.raises(CheckpointError, match="callbacks=Refuses: load_state_dict raised KeyError"):
        learn(epochs=2, callbacks=Refuses(), resume=True)


def test_what_on_task_changes_and_logs_is_saved_with_the_stop() -> None:
    class Tasks:
        """Counts and logs the tasks learnt; stops after the first, if wanted."""

        def __init__(self, *, stop: bool):
            self.stop, self.count = stop, 0

        def on_task(self, run: LiveRun) -> str | None:
            self.count += 1
            run.log.learnt = self.count
            return "stop" if self.stop and self.count == 1 else None

        def state_dict(self) -> dict[str, int]:
            return {"count": self.count}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.count = state["count"]

    settings: dict[str, Any] = {"tasks": 2, "epochs": 1}
    whole = learn(**settings, path="whole", callbacks=Tasks(stop=False))
    learn(**settings, callbacks=Tasks(stop=True))
    again = Tasks(stop=False)
    resumed = learn(**settings, callbacks=again, resume=True)
    assert again.count == 2
    assert resumed.history == whole.history
    logged = [(row["task"], row["learnt"]) for row in whole.history if "learnt" in row]
    assert logged == [(1, 1), (1, 2)]  # The first with the next row, the last in one of its own.


def test_a_stop_that_came_too_late_does_not_stop_a_later_task() -> None:
    class Last:
        def on_step(self, run: LiveRun) -> str | None:
            return "stop" if run.step == 8 else None

    run = learn(epochs=1, callbacks=Last())
    more = (ROWS, ROWS.argmax(1))
    run.learn_task(more)
    assert len(run.tasks) == 2
    assert (status()["status"], status()["step"]) == ("finished", 16)


def test_a_stopped_command_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(
        "class Stop:\n    def on_step(self, run):\n        return 'stop' if run.step == 3 else None\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["dataset=Digits", "callbacks=mine.py:Stop", "plot=false", "path=run"])
    assert ended.value.code == 0
    assert "Stopped by Stop.on_step at step 3; resume=true continues" in capsys.readouterr().out
