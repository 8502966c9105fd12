"""The loop: what it asks of a session and tells a supervisor, in which order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from antelope.launcher.learn.callbacks import Callbacks
from antelope.launcher.loop import learn_task, run


class Session:
    """Two tasks of two collections each; every call is noted in `events`.

    Args:
        taken: Steps per collection, each of which one learning step follows on.
    """

    def __init__(self, events: list[str], *, taken: int = 1):
        self.events, self.taken = events, taken
        self.task = self.collected = 0
        self.replay = self.log = None
        self.progress = SimpleNamespace(owes="")
        self.own_tasks, self.callbacks = 2, Callbacks({})
        self.rest = SimpleNamespace(
            end=lambda: events.append("wake"), begin=lambda: events.append("rest")
        )
        self.learner = SimpleNamespace(step=lambda replay, log: events.append("learn"))

    def tasks_left(self) -> Iterator[int]:
        while self.task < 2:
            yield self.task

    def begin(self, task: int) -> None:
        self.events.append(f"begin {task}")
        self.collected = 0

    def task_is_over(self) -> bool:
        return self.collected == 2

    def collect(self) -> int:
        self.events.append("collect")
        self.collected += 1
        return self.taken

    def learning_steps(self, taken: int) -> int:
        return taken

    def row_due(self, taken: int) -> bool:
        return self.collected == 2

    def training_row(self) -> dict[str, Any]:
        return {"loss": 1.0}

    def evaluation_due(self, taken: int) -> bool:
        return self.collected == 1

    def evaluate(self) -> dict[str, Any]:
        self.events.append("evaluate")
        return {"accuracy": 0.5}

    def end(self, task: int) -> dict[str, Any]:
        self.events.append(f"end {task}")
        self.task += 1
        return {"accuracy": 1.0}


class Supervisor:
    """Notes what it is told.

    Args:
        stops_at: The check at which a signal has come.
    """

    def __init__(self, events: list[str], *, stops_at: int | None = None):
        self.events, self.stops_at, self.checks = events, stops_at, 0
        self.stopped_by = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.events.append("watch")
        yield
        self.events.append("watched")

    def begin_task(self) -> None:
        pass

    def recover(self, error: Exception) -> bool:
        return False

    def check(self) -> None:
        self.checks += 1
        if self.checks == self.stops_at:
            raise KeyboardInterrupt

    def stepped(self) -> None:
        self.events.append("stepped")

    def write(self, mode: str, row: dict[str, Any]) -> None:
        self.events.append(f"write {mode}")

    def evaluated(self, row: dict[str, Any]) -> None:
        self.events.append("evaluated")

    def task_ended(self, task: int) -> None:
        self.events.append(f"ended {task}")

    def save_task(self) -> None:
        self.events.append("saved")


def learnt(task: int) -> list[str]:
    """What happens in one task."""
    return [
        f"begin {task}",
        *("collect", "learn", "stepped", "evaluate", "evaluated"),
        *("collect", "learn", "stepped", "write train"),
        *("write train", f"end {task}", "write eval", f"ended {task}", "saved"),
    ]


def test_tasks_are_begun_learnt_and_ended_one_after_another() -> None:
    events: list[str] = []
    run(Session(events), Supervisor(events))  # type: ignore[arg-type]
    assert events == ["wake", "watch", *learnt(0), *learnt(1), "watched", "rest"]


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_as_many_learning_steps_follow_as_the_session_says(taken: int) -> None:
    events: list[str] = []
    learn_task(0, Session(events, taken=taken), Supervisor(events))  # type: ignore[arg-type]
    assert events.count("collect") == 2
    assert events.count("learn") == 2 * taken


def test_an_interruption_falls_between_two_steps() -> None:
    events: list[str] = []
    session, supervisor = Session(events), Supervisor(events, stops_at=2)
    with pytest.raises(KeyboardInterrupt):
        run(session, supervisor)  # type: ignore[arg-type]
    assert session.collected == 1
    # The first step and all that belongs to it; no half of another.
    assert events[-1] == "evaluated"
    assert "rest" not in events
