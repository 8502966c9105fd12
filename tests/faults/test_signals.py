"""SIGTERM, SIGINT and SIGKILL from outside, as a person or a cluster sends them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antelope import ml
from antelope.launcher.ml import main
from antelope.launcher.record.checkpoint import Checkpoints

from .console import NET, Console

MODEL = (
    NET
    + """\
    def learn(self, replay):
        time.sleep(float(os.environ.get("PAUSE_S", 0)))
        batch = next(replay)
        return F.cross_entropy(self(F.dropout(batch.obs, 0.1)), batch.label)
"""
)
WORDS = ["model=Net", "train_steps=200", "eval_every=40", "log_every=1", "plot=false"]
RUN = Path("runs/default/Net/Digits/0")


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.setattr("sys.path", list(sys.path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def has_step(step: int) -> bool:
    """Whether train.csv has a row of `step`."""
    rows = RUN / "train.csv"
    return rows.exists() and f"\ntrain,{step}," in rows.read_text()


def ended(*words: str, step: int, signum: int) -> tuple[int, str, str]:
    """Exit code, output and errors of a slow run that receives a signal after a step."""
    return Console(*words, PAUSE_S="0.03").wait_until(partial(has_step, step)).send(signum).end()


def words_to_resume(err: str) -> list[str]:
    """The words after `ml` that the console printed."""
    (line,) = [line for line in err.splitlines() if line.startswith("Resume with: ")]
    command = shlex.split(line.removeprefix("Resume with: "))
    assert command[0] == "ml"
    return command[1:]


def status() -> dict[str, Any]:
    return json.loads((RUN / "status.json").read_text())


@pytest.mark.slow
def test_console_run_terminated_interrupted_and_killed_ends_as_if_it_had_not_been() -> None:
    code, out, err = ended(*WORDS, "experiment=default", step=10, signum=signal.SIGTERM)
    assert code == 143
    assert "Interrupted by SIGTERM at step " in out
    assert "Traceback" not in err
    assert status()["status"] == "interrupted"
    assert len(list((RUN / "checkpoints").iterdir())) == 1
    words = words_to_resume(err)
    assert words == [*WORDS, "experiment=default", "resume=true"]

    step = status()["step"]
    assert 10 <= step < 150
    code, out, err = ended(*words, step=step + 10, signum=signal.SIGINT)
    assert code == 130
    assert f"Resumed at step {step}." in out
    assert "Changed" not in out
    assert "Traceback" not in err
    assert words_to_resume(err) == words  # Not twice `resume=true`.

    step = status()["step"]
    code, _, err = ended(*words, "save_every=5", step=step + 10, signum=signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert err == ""

    code, out, err = Console(*words).end()
    assert (code, err) == (0, "")
    assert status()["status"] == "finished"

    RUN.rename("stopped")
    with pytest.raises(SystemExit) as exit:
        main([*WORDS, "progress=false", "device=cpu"])
    assert exit.value.code == 0
    for name in ("train.csv", "eval.csv"):
        assert Path("stopped", name).read_bytes() == (RUN / name).read_bytes()
    agents = [Checkpoints(p / "checkpoints").newest()[0] for p in (Path("stopped"), RUN)]
    weights, expected = (state["learner"]["agent"] for state in agents if state is not None)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


class Signals(nn.Module):
    """Sends signals to its own process, as many and whichever as the test says, at one step."""

    signals: tuple[int, ...] = ()
    at = 5
    in_evaluation = False

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        self.steps = 0

    def forward(self, obs: Tensor) -> Tensor:
        if self.in_evaluation and not self.training:
            self._send()
        return self.layer(obs.flatten(1))

    def _send(self) -> None:
        if self.steps == self.at:
            self.steps += 1  # Only once in an evaluation of several batches.
            for signum in self.signals:
                os.kill(os.getpid(), signum)

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        self.steps = replay.step
        if not self.in_evaluation:
            self._send()
        return F.cross_entropy(self(batch.obs), batch.label)


SHORT: dict[str, Any] = {"model": Signals, "train_steps": 9, "path": "run", "plot": False}


@pytest.mark.parametrize(
    ("signum", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_signal_in_python_says_how_to_resume(
    signum: int,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Signals, "signals", (signum,))
    with pytest.raises(error):
        ml(**SHORT)
    out, err = capsys.readouterr()
    assert f"Interrupted by {signal.Signals(signum).name} at step 5; saved to" in out
    assert "resume=true" in err
    state, _ = Checkpoints(Path("run/checkpoints")).newest()
    assert state is not None
    assert state["progress"]["step"] == 5


def test_second_interrupt_does_not_wait_for_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Signals, "signals", (signal.SIGINT, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        ml(**SHORT, save_every=2, progress=False)
    state, _ = Checkpoints(Path("run/checkpoints")).newest()
    assert state is not None
    assert state["progress"]["step"] == 4
    monkeypatch.setattr(Signals, "signals", ())
    assert ml(**SHORT, resume=True, progress=False).history[-1]["step"] == 9


def test_interrupt_before_the_first_step_is_over_leaves_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Signals, "signals", (signal.SIGTERM,))
    monkeypatch.setattr(Signals, "at", 1)
    with pytest.raises(SystemExit):
        ml(**SHORT, progress=False)
    state, _ = Checkpoints(Path("run/checkpoints")).newest()
    assert state is not None
    assert state["progress"]["step"] == 1


@pytest.mark.parametrize("in_evaluation", [False, True])
def test_signal_in_the_last_step_or_evaluation_saves_a_learnt_run_once(
    in_evaluation: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Signals, "signals", (signal.SIGTERM,))
    monkeypatch.setattr(Signals, "at", 9)
    monkeypatch.setattr(Signals, "in_evaluation", in_evaluation)
    with pytest.raises(SystemExit) as exit:
        ml(**SHORT, save_every=9, progress=False)
    assert exit.value.code == 128 + signal.SIGTERM
    left = json.loads(Path("run/status.json").read_text())
    # The evaluation of the task's end is left, if it had not begun its last batch.
    expected = ("interrupted", 9, int(in_evaluation))
    assert (left["status"], left["step"], left["task"]) == expected
    assert len(list(Path("run/checkpoints").iterdir())) == 1

    monkeypatch.setattr(Signals, "signals", ())
    resumed = ml(**SHORT, resume=True, progress=False)
    assert [row["step"] for row in resumed.history if row["mode"] == "eval"] == [9]
    assert json.loads(Path("run/status.json").read_text())["status"] == "finished"


def test_previous_handlers_are_back_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    received = []
    before = signal.signal(signal.SIGTERM, lambda *_: received.append("mine"))
    try:
        ml(**SHORT, progress=False)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == ["mine"]
