"""A session: what begins, how often it learns, what is due when, and what a checkpoint holds of it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from antelope.envs.tasks import DataWorld
from antelope.launcher import session as module
from antelope.launcher.process import Workplace
from antelope.launcher.session import Session
from antelope.launcher.settings.compose import compose
from antelope.launcher.settings.plan import make_plan
from antelope.replay import ConfigError, Diverged

# 40 rows of 4 classes, of which a fifth is held out: 32 to learn from, 4 batches per epoch.
DATA = (np.random.default_rng(0).normal(size=(40, 3)).astype("float32"), np.arange(40) % 4)
USUAL: dict[str, Any] = {"dataset": DATA, "batch_size": 8, "progress": False, "plot": False}


class Linear(nn.Module):
    """Counts the tasks that it is told of."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        self.begun = self.ended = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)
        return out

    def begin_task(self, task: int) -> None:
        self.begun += 1

    def end_task(self, replay: Any) -> None:
        self.ended += 1


@contextmanager
def built(**settings: Any) -> Iterator[Session]:
    """A session within a spell of its workplace, as a run has it."""
    workplace = Workplace()
    with workplace.spell():
        plan = make_plan(compose((), {"model": Linear, **USUAL, **settings}))
        with Session.build(plan, workplace) as session:
            yield session


def step(session: Session) -> int:
    """Collect once and learn as often as that asks for; returns the learning steps."""
    steps = session.learning_steps(session.collect())
    for _ in range(steps):
        session.learner.step(session.replay, session.log)
    return steps


def weights(session: Session) -> torch.Tensor:
    return session.own.layer.weight.detach().clone()  # type: ignore[union-attr, operator]


def test_tasks_are_left_until_they_are_learnt() -> None:
    with built(tasks=2, train_steps=1) as session:
        seen = []
        for task in session.tasks_left():
            seen.append(task)
            session.begin(task)
            step(session)
            session.end(task)
        assert (seen, session.finished) == ([0, 1], True)
        assert [len(row) for row in session.progress.matrix] == [2, 2]


def test_a_task_that_has_begun_is_not_begun_again() -> None:
    with built() as session:
        session.begin(0)
        step(session)
        session.begin(0)  # As a resumed run does, in mid-task.
        assert (session.own.begun, session.progress.task_step) == (1, 1)


@pytest.mark.parametrize(
    ("length", "steps"),
    [({"train_steps": 3}, 3), ({"epochs": 2}, 8), ({"epochs": 1, "train_steps": 9}, 4)],
)
def test_a_task_is_over_after_its_steps_or_epochs(length: dict[str, int], steps: int) -> None:
    with built(**length) as session:
        session.begin(0)
        while not session.task_is_over():
            step(session)
        assert session.progress.step == steps


def test_environments_are_learnt_every_so_many_steps_once_seed_steps_are_taken() -> None:
    several = {"num_envs": 3, "learn_every": 2, "seed_steps": 6, "train_steps": 30, "batch_size": 4}
    with built(model="DQN", dataset=None, env="CartPole-v1", eval_episodes=0, **several) as session:
        session.begin(0)
        # 3, 6, 9, 12, 15 steps; every second one that lies among the last three is learnt after.
        assert [step(session) for _ in range(5)] == [0, 2, 1, 2, 1]


def test_rows_and_evaluations_are_due_every_so_many_steps() -> None:
    with built(train_steps=6, log_every=4, eval_every=3) as session:
        session.begin(0)
        due = []
        while not session.task_is_over():
            step(session)
            due.append((session.row_due(1), session.evaluation_due(1)))
        # No evaluation at the sixth step, whose task ends: that is evaluated in any case.
        assert due == [
            *[(False, False), (False, False), (False, True), (True, False)],
            *[(False, False), (False, False)],
        ]


def test_each_epoch_of_a_single_task_is_evaluated() -> None:
    with built(epochs=3) as session:
        session.begin(0)
        due = []
        while not session.task_is_over():
            step(session)
            due.append(session.evaluation_due(1))
        assert [i for i, now in enumerate(due, 1) if now] == [4, 8]


def test_rows_say_where_the_run_is_and_nothing_twice() -> None:
    with built(train_steps=2) as session:
        session.begin(0)
        step(session)
        row = session.training_row()
        assert (row["step"], row["epoch"], row["task"]) == (1, 0, 0)
        assert row["loss"] > 0
        assert session.training_row() == {}


def test_a_task_may_be_stopped_by_its_evaluations() -> None:
    patience = {"early_stopping": {"patience": 1}, "lr": 1e-9}
    with built(epochs=9, validation=0.25, **patience) as session:
        session.begin(0)
        assert "validation_accuracy" in session.evaluate()
        assert not session.task_is_over()
        session.evaluate()  # Nothing was learnt in between, so nothing is better.
        assert session.task_is_over()


def test_online_tasks_have_no_borders() -> None:
    with built(tasks=2, online=True) as session:
        for task in session.tasks_left():
            session.begin(task)
            while not session.task_is_over():
                step(session)
            session.end(task)
        assert (session.own.begun, session.own.ended) == (1, 1)


def test_a_state_continues_in_mid_task() -> None:
    with built(train_steps=6) as session:
        session.begin(0)
        for _ in range(3):
            step(session)
        state = copy.deepcopy(session.state_dict())
        for _ in range(3):
            step(session)
        whole, place = weights(session), session.progress.place(session.replay.epoch)
    with built(train_steps=6) as session:
        session.load_state_dict(state)
        assert session.first_step == session.progress.step == 3
        session.begin(0)
        while not session.task_is_over():
            step(session)
        assert torch.equal(weights(session), whole)
        assert session.progress.place(session.replay.epoch) == place


def test_a_state_holds_the_weights_that_are_learnt_on_from() -> None:
    with built(train_steps=4, ema=0.5) as session:
        session.begin(0)
        for _ in range(4):
            step(session)
        learnt = weights(session)
        session.rest.begin()
        assert not torch.equal(weights(session), learnt)  # Averaged.
        with session.awake():
            assert torch.equal(session.state_dict()["learner"]["agent"]["layer.weight"], learnt)
        assert session.rest
        session.rest.end()
        assert torch.equal(weights(session), learnt)


def test_a_state_of_another_sequence_is_refused() -> None:
    with built(tasks=2) as session:
        state = session.state_dict()
    with (
        built() as session,
        pytest.raises(ConfigError, match="tasks: 2 -> None"),
    ):
        session.load_state_dict(state)


def test_a_ruined_model_is_not_finite() -> None:
    with built() as session:
        session.check_finite(closely=True)
        with torch.no_grad():
            session.own.layer.bias.fill_(torch.nan)  # type: ignore[union-attr, operator]
        with pytest.raises(Diverged, match=r"weight `layer\.bias` became NaN"):
            session.check_finite()


def test_what_was_opened_is_closed_when_something_cannot_be_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    closed = []
    monkeypatch.setattr(DataWorld, "close", lambda self: closed.append(self))

    def refuses(*_: Any) -> None:
        raise ConfigError("no such path")

    monkeypatch.setattr(module, "check_path", refuses)
    with pytest.raises(ConfigError, match="no such path"), built():
        pass
    assert len(closed) == 1
    with warnings.catch_warnings():
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        with built() as session:
            pass
    assert not session.path.exists()  # Directories are a supervisor's.
