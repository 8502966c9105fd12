"""A supervisor saves when it is time, stops when asked to, and says how a run has ended."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from antelope.launcher.record import saving as module
from antelope.launcher.record import supervisor as supervisor_module
from antelope.launcher.record.console import Console
from antelope.launcher.record.progress import Progress
from antelope.launcher.record.signals import Interrupted
from antelope.launcher.record.supervisor import Supervisor
from antelope.replay import ConfigError, Diverged


class Session:
    """What a supervisor sees of a session, with one number for its state."""

    num_tasks, first_step = 1, 0

    def __init__(self, path: Path):
        self.path, self.progress = path, Progress(begun=True)
        self.console = Console(enabled=False)
        self.finite, self.loaded = True, None
        self.report: Any = SimpleNamespace(header=dict, problems=list, costs=lambda task: {})

    @property
    def finished(self) -> bool:
        return self.progress.task == self.num_tasks

    def awake(self) -> AbstractContextManager[None]:
        return nullcontext()

    def state_dict(self) -> dict[str, Any]:
        return {"weight": torch.tensor(float(self.progress.step))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loaded = float(state["weight"])
        self.progress.step = int(self.loaded)

    def model_state(self) -> dict[str, Any]:
        return {}

    def check_finite(self, *, closely: bool = False) -> None:
        if not self.finite:
            raise Diverged("The weight `a` became NaN.", tensor="a", lr=0.1)

    def check_fresh(self) -> None:
        self.loaded = None

    def newest_loss(self) -> None:
        return None

    def config_text(self) -> str:
        return "seed: 0\n"


def plan(**settings: Any) -> Any:
    """Settings of a run that records nothing but its checkpoints."""
    usual = {
        "on_nan": "stop",
        "resume": False,
        "loggers": [],
        "save_every": None,
        "save_patience": 3,
    }
    usual["render_model"] = False
    return SimpleNamespace(**{**usual, **settings}, values={})


@pytest.fixture
def supervise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Supervisor]]:
    """Makes supervisors of one run directory, and closes them."""
    # One number is not the state of a real run.
    monkeypatch.setattr(supervisor_module, "check_structure", lambda state: None)
    made: list[Supervisor] = []

    def make(**settings: Any) -> Supervisor:
        made.append(Supervisor(plan(**settings), Session(tmp_path / "run")))
        made[-1].resume()
        return made[-1]

    yield make
    for supervisor in made:
        supervisor.close()


def step(supervisor: Supervisor) -> None:
    """A step of a run, as the loop takes it."""
    supervisor.check()
    supervisor.progress.step += 1
    supervisor.stepped()


def watched(supervisor: Supervisor, work: Callable[[], None]) -> None:
    """A spell of learning."""
    with supervisor.watching():
        work()


def status(supervisor: Supervisor) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((supervisor.session.path / "status.json").read_text())
    return found


def test_nothing_is_written_before_the_first_step(supervise: Any) -> None:
    supervisor = supervise(save_every=1)
    supervisor.check()
    supervisor.close()
    assert not supervisor.session.path.exists()


def test_a_checkpoint_is_due_after_every_so_many_steps(supervise: Any) -> None:
    supervisor = supervise(save_every=3)
    saved = []
    for _ in range(8):
        step(supervisor)
        saved.append(len(supervisor.checkpoints.numbered()))
    # Between two steps: what follows on the third is done, too.
    assert saved == [0, 0, 0, 1, 1, 1, 2, 2]


def test_without_save_every_a_checkpoint_is_due_after_a_minute(
    supervise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    supervisor = supervise()
    for seconds in (59.0, 61.0, 100.0):
        now[0] = seconds
        step(supervisor)
    assert len(supervisor.checkpoints.numbered()) == 1


def test_ruined_weights_do_not_push_out_a_checkpoint(supervise: Any) -> None:
    supervisor = supervise(save_every=1)
    step(supervisor)
    supervisor.session.finite = False
    with pytest.raises(Diverged, match="`a` became NaN"):
        step(supervisor)
    assert not supervisor.checkpoints.numbered()


def test_a_signal_stops_the_run_between_two_steps_and_is_saved(supervise: Any) -> None:
    supervisor = supervise()

    def work() -> None:
        step(supervisor)
        os.kill(os.getpid(), signal.SIGTERM)
        supervisor.progress.step += 1  # The step that is going on ends.
        step(supervisor)

    with pytest.raises(Interrupted) as stopped:
        watched(supervisor, work)
    assert (stopped.value.signum, stopped.value.saved) == (signal.SIGTERM, True)
    assert supervisor.status == status(supervisor)["status"] == "interrupted"
    supervisor.close()
    resumed = supervise(resume=True)
    assert (resumed.session.loaded, resumed.progress.step) == (2.0, 2)


def test_a_second_signal_does_not_wait(supervise: Any) -> None:
    supervisor, before = supervise(), signal.getsignal(signal.SIGINT)

    def work() -> None:
        step(supervisor)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)  # Two at once may arrive as one where other threads are alive.
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)

    with pytest.raises(KeyboardInterrupt):
        watched(supervisor, work)
    assert status(supervisor)["status"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("error", "ended"),
    [(Diverged("The loss became NaN."), "diverged"), (OSError("full"), "failed")],
)
def test_whatever_goes_wrong_is_the_end_of_the_run(
    supervise: Any, error: Exception, ended: str
) -> None:
    supervisor = supervise(save_every=1)

    def work() -> None:
        step(supervisor)
        step(supervisor)
        raise error

    with pytest.raises(type(error)) as raised:
        watched(supervisor, work)
    assert status(supervisor)["status"] == ended
    if ended == "diverged":
        assert f"The last good checkpoint is {supervisor.checkpoints.numbered()[0]}" in str(
            raised.value
        )
        assert "Try a smaller lr" in str(raised.value)


def test_what_was_learnt_since_the_last_checkpoint_is_saved_on_closing(supervise: Any) -> None:
    supervisor = supervise()
    step(supervisor)
    supervisor.close("The loop was left.")
    found = status(supervisor)
    assert (found["status"], found["reason"]) == ("interrupted", "The loop was left.")
    assert supervise(resume=True).session.loaded == 1.0


def test_a_run_replaced_by_another_is_not_continued(supervise: Any) -> None:
    first = supervise()
    step(first)
    first.close()
    with first.reclaiming():
        pass
    first.directory.close()
    second = supervise()
    step(second)
    second.close()
    with (
        pytest.raises(ConfigError, match=r"another run replaced it.*separate path="),
        first.reclaiming(),
    ):
        pass


def test_a_task_is_counted_and_saved(supervise: Any) -> None:
    supervisor = supervise()
    supervisor.progress.matrix.append([1.0])
    step(supervisor)
    supervisor.progress.task_step = 1
    supervisor.progress.task = 1
    supervisor.session.report.costs = lambda task: {"memory_bytes": 8}
    supervisor.task_ended(0)
    supervisor.save_task()
    (took,) = status(supervisor)["tasks"]
    assert (took["steps"], took["memory_bytes"]) == (1, 8)
    assert len(supervisor.checkpoints.numbered()) == 1


@pytest.mark.parametrize("save_every", [None, 1, 5])
def test_a_signal_in_the_last_step_is_saved_once(supervise: Any, save_every: int | None) -> None:
    supervisor = supervise(save_every=save_every)
    supervisor.progress.matrix.append([1.0])

    def work() -> None:
        step(supervisor)
        os.kill(os.getpid(), signal.SIGTERM)
        supervisor.progress.task = 1
        supervisor.task_ended(0)
        supervisor.save_task()

    with pytest.raises(Interrupted) as stopped:
        watched(supervisor, work)
    supervisor.close()
    assert stopped.value.saved
    found = status(supervisor)
    assert (found["status"], found["task"], len(found["tasks"])) == ("interrupted", 1, 1)
    assert len(supervisor.checkpoints.numbered()) == 1


def test_a_checkpoint_due_in_the_last_step_is_saved_once(supervise: Any) -> None:
    supervisor = supervise(save_every=2)
    supervisor.progress.matrix.append([1.0])
    step(supervisor)
    step(supervisor)
    supervisor.progress.task = 1
    supervisor.task_ended(0)
    supervisor.save_task()
    supervisor.close()
    assert len(supervisor.checkpoints.numbered()) == 1
