"""How runs end: by signals, by errors, without a reader of their output, without their directory."""

from __future__ import annotations

import json
import multiprocessing
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antelope import ConfigError, NotSaved, load, ml
from antelope.launcher.ml import main
from antelope.launcher.record.checkpoint import Checkpoints
from antelope.launcher.record.signals import Signals

from .console import MAIN, NET, ROOT, Console

MODEL = (
    NET
    + """\
    def learn(self, replay):
        time.sleep(0.02)
        print("x" * 9000)  # More than a pipe's reader leaves in the buffer.
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)
"""
)
THREAD = """\
import sys, threading, time
from antelope import ml

def work():
    try:
        ml(*sys.argv[1:])
    finally:
        time.sleep(0.5)
        print("The last words of the thread.", file=sys.stderr)

threading.Thread(target=time.sleep, args=(60,), daemon=True).start()  # Is not waited for.
thread = threading.Thread(target=work, daemon=True)
thread.start()
thread.join()
"""

pytestmark = pytest.mark.usefixtures("workdir")


class Model(nn.Module):
    """Calls `act` in each learning step, with the number of the step."""

    act: Callable[[int], None] = staticmethod(lambda step: None)

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(F.dropout(obs.flatten(1), 0.1, self.training))

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        self.act(replay.step)
        return F.cross_entropy(self(batch.obs), batch.label)


class InEvaluation(Model):
    """Sends SIGTERM in its `at`-th forward of an evaluation."""

    at = forwards = 0

    def forward(self, obs: Tensor) -> Tensor:
        if not self.training:
            InEvaluation.forwards += 1
            if InEvaluation.forwards == self.at:
                os.kill(os.getpid(), signal.SIGTERM)
        return super().forward(obs)


SHORT: dict[str, Any] = {
    "model": Model,
    "dataset": "Digits",
    "train_steps": 9,
    "plot": False,
    "progress": False,
    "path": "run",
}


def status(path: str = "run") -> dict[str, Any]:
    return json.loads(Path(path, "status.json").read_text())


def weights(path: str) -> dict[str, Tensor]:
    state, _ = Checkpoints(Path(path, "checkpoints")).newest()
    assert state is not None
    return state["learner"]["agent"]


def same(path: str, other: str) -> bool:
    """Whether two runs ended with the same weights and rows, to the bit."""
    one, two = weights(path), weights(other)
    rows = [
        [Path(p, f"{mode}.csv").read_bytes() for mode in ("train", "eval")] for p in (path, other)
    ]
    return rows[0] == rows[1] and all(torch.equal(one[name], two[name]) for name in one)


def started(*words: str, steps: int = 3000, **how: Any) -> Console:
    """A run in a process of its own, which has taken its first step, and by default goes on for a minute."""
    Path("model.py").write_text(MODEL)
    usual = [
        f"train_steps={steps}",
        "model=Net",
        "dataset=Digits",
        "plot=false",
        "threads=1",
        "path=run",
    ]
    how = {"stdout": subprocess.DEVNULL, **how}
    return Console(*usual, *words, **how).wait_until(Path("run/status.json").exists)


# ------------------------------------------------------------------------------------------- signals


@pytest.mark.row(3)
@pytest.mark.parametrize(
    ("signals", "code"),
    [
        ((signal.SIGTERM,) * 8, 143),
        ((signal.SIGTERM, signal.SIGINT), 143),
        ((signal.SIGHUP,), 129),
    ],
    ids=["TERM again and again", "TERM then INT", "HUP"],
)
def test_row_03_a_run_is_saved_once_whatever_signals_follow(
    signals: tuple[int, ...], code: int
) -> None:
    """Row 3: also while it saves and while Python ends."""
    ended, _, err = started("progress=false").send(*signals, pause_s=0.1).end()
    assert ended == code, err
    assert "Resume with: ml " in err
    assert "Continue it" not in err  # That is what Python callers are told.
    assert (status()["status"], len(list(Path("run/checkpoints").iterdir()))) == ("interrupted", 1)


@pytest.mark.row(3)
def test_row_03_ctrl_c_also_saves_a_run_in_a_thread() -> None:
    """Row 3: only the main thread receives signals, and Python waits for no daemon thread."""
    _, _, err = started("progress=false", code=THREAD).send(signal.SIGINT).end()
    assert "resume=true" in err
    assert "The last words of the thread." in err
    assert (status()["status"], len(list(Path("run/checkpoints").iterdir()))) == ("interrupted", 1)


@pytest.mark.row(3)
def test_row_03_a_signal_while_a_run_is_built_ends_it_at_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Row 3: there is nothing to save, nothing to resume, and nothing is left behind."""
    Path("model.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n" + MODEL)
    with pytest.raises(SystemExit) as ended:
        main(["model=model.py:Net", "dataset=Digits", "path=run"])
    assert ended.value.code == 143
    assert "there is nothing to resume" in capsys.readouterr().err
    assert not Path("run").exists()


@pytest.mark.row(3)
def test_row_03_a_signal_before_the_first_step_finds_nothing_to_save(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Row 3: and says so once."""
    Path("model.py").write_text(
        MODEL + "\n    def begin_task(self, task):\n        os.kill(os.getpid(), 15)\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["model=model.py:Net", "dataset=Digits", "path=run"])
    assert ended.value.code == 143
    out, err = capsys.readouterr()
    assert "Interrupted by SIGTERM before its first step." in out
    assert "not saved" not in out
    assert err == "Interrupted; there is nothing to resume.\n"
    assert not Path("run").exists()


def test_a_signal_that_was_handed_on_does_not_stop_what_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As between the tasks of `ml.tasks`, where the signal is the caller's."""
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        signals = Signals()
        with signals.caught():
            signals.note_only()
            os.kill(os.getpid(), signal.SIGINT)
        with signals.caught():
            signals.note_only()
            assert signals.arrived() is None
            os.kill(os.getpid(), signal.SIGINT)  # The first, not the second.
            assert signals.arrived() == signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, before)
    assert received == [signal.SIGINT] * 2


@pytest.mark.row(3)
@pytest.mark.parametrize("settings", [{}, {"strategy": "packnet"}], ids=["plain", "packnet"])
def test_row_03_an_evaluation_is_left_and_done_again(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 3: in mid-task and at a task's end; the resumed run is the same to the bit."""
    settings = {**SHORT, "model": InEvaluation, "tasks": 5, "eval_every": 4, **settings}
    monkeypatch.setattr(InEvaluation, "forwards", 0)
    ml(**{**settings, "path": "straight"})
    seen, total = set(), InEvaluation.forwards
    for at in range(total // 2, total, total // 13):
        path = f"left at {at}"
        monkeypatch.setattr(InEvaluation, "forwards", 0)
        monkeypatch.setattr(InEvaluation, "at", at)
        with pytest.raises(SystemExit):
            ml(**{**settings, "path": path})
        assert (
            InEvaluation.forwards < at + 12
        )  # PackNet predicts a batch with the weights of each task.
        state, _ = Checkpoints(Path(path, "checkpoints")).newest()
        assert state is not None
        seen.add(state["progress"]["owes"])
        monkeypatch.setattr(InEvaluation, "at", 0)
        ml(**{**settings, "path": path}, resume=True)
        assert same(path, "straight")
    assert {"evaluation", "scores"} <= seen


@pytest.mark.row(3)
def test_row_03_a_signal_during_a_save_saves_no_second_time() -> None:
    """Row 3: the callback's state is read while a checkpoint is written."""

    class Signals:
        def on_step(self, run: Any) -> None:
            pass

        def state_dict(self) -> dict[str, Any]:
            os.kill(os.getpid(), signal.SIGTERM)
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            pass

    with pytest.raises(SystemExit):
        ml(**SHORT, save_every=4, callbacks=[Signals()])
    assert [path.name for path in Path("run/checkpoints").iterdir()] == ["000001"]
    assert (status()["status"], status()["step"]) == ("interrupted", 4)


@pytest.mark.row(3)
def test_row_03_environments_outlive_the_signal_that_their_run_receives_too() -> None:
    """Row 3: a cluster sends SIGTERM to every process of a job."""

    class Terminates:
        def on_step(self, run: Any) -> None:
            if run.step >= 20:
                for process in multiprocessing.active_children():
                    os.kill(process.pid or 0, signal.SIGTERM)
                time.sleep(0.1)
                os.kill(os.getpid(), signal.SIGTERM)

    job = {"env": "CartPole-v1", "vectorization": "async", "num_envs": 2, "train_steps": 100}
    quiet = {"plot": False, "progress": False, "eval_episodes": 0, "path": "run"}
    with pytest.raises(SystemExit):
        ml(**job, **quiet, callbacks=[Terminates()])
    assert status()["status"] == "interrupted"
    assert Path("run/checkpoints/000001").is_dir()
    left = multiprocessing.active_children()
    assert not [
        each for each in left if not each.name.startswith("LokyProcess")
    ]  # joblib keeps those.


def test_a_signal_that_the_process_ignores_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under `nohup`."""
    monkeypatch.setattr(Model, "act", lambda self, step: os.kill(os.getpid(), signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        ml(**SHORT)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert status()["status"] == "finished"


def test_sys_exit_in_the_users_code_is_no_finished_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("model.py").write_text(MODEL.replace('print("x" * 9000)', "raise SystemExit(0)"))
    with pytest.raises(SystemExit) as ended:
        main(["model=model.py:Net", "dataset=Digits", "path=run", "progress=false"])
    assert ended.value.code == 1
    assert "before the run had finished" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------- errors


@pytest.mark.row(17)
def test_row_17_an_error_leaves_a_checkpoint_beside_those_to_resume_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row 17: the error names both, and the resumed run is the same to the bit."""

    def fail(self: Model, step: int) -> None:
        if step == 6:
            raise ValueError("a bad batch")

    straight = ml(**{**SHORT, "path": "straight"})
    monkeypatch.setattr(Model, "act", fail)
    with pytest.raises(ValueError, match="a bad batch") as raised:
        ml(**SHORT, save_every=4)
    notes = "\n".join(raised.value.__notes__)
    assert "In Model.learn, learning step 6. Batch: obs float32 [32, 1, 8, 8]" in notes
    assert "run/checkpoints/crash, for load=." in notes
    assert "checkpoints/000001. resume=true continues from there." in notes
    assert (status()["status"], status()["reason"]) == ("failed", "ValueError: a bad batch")
    assert load("run/checkpoints/crash", model=Model).agent.layer.in_features == 64

    monkeypatch.setattr(Model, "act", lambda self, step: None)
    assert ml(**SHORT, resume=True).metrics == straight.metrics
    assert same("run", "straight")


class Hot(gymnasium.Env[Any, Any]):
    """An environment that fails in the middle of its second episode."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: object) -> Any:
        self.steps += 1
        if self.steps == 15:
            raise RuntimeError("the motor is hot")
        return self.observation_space.sample(), 1.0, self.steps % 10 == 0, False, {}


@pytest.mark.row(17)
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_row_17_so_does_that_of_an_environment(vectorization: str) -> None:
    """Row 17: an environment's error is a ConfigError, whose message the console prints alone."""
    job = {"env": Hot, "vectorization": vectorization, "train_steps": 40, "save_every": 4}
    quiet = {"plot": False, "progress": False, "eval_episodes": 0, "path": "run"}
    with pytest.raises(ConfigError, match="the motor is hot") as raised:
        ml(**job, **quiet)
    assert raised.value.exit_code == 1
    assert "run/checkpoints/crash, for load=." in str(raised.value)
    assert "checkpoints/000003. resume=true continues from there." in str(raised.value)
    assert load("run/checkpoints/crash").spec.action.n == 2
    assert status()["status"] == "failed"
    assert "crash" not in status()["reason"]


@pytest.mark.row(34)
@pytest.mark.parametrize("ends", ["well", "badly", "nested", "in a thread", "by a signal"])
def test_row_34_a_run_leaves_no_trace_in_the_process(
    ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 34: random streams, torch's defaults, handlers, directory, path, warnings, streams."""

    def act(self: Model, step: int) -> None:
        random.random(), np.random.rand(), torch.rand(1)
        if ends == "badly" and step == 3:
            raise ValueError
        if ends == "by a signal" and step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        if ends == "nested" and step == 3 and not Path("inner").exists():
            ml(**{**SHORT, "path": "inner", "seed": 5})

    monkeypatch.setattr(Model, "act", act)
    ml(**{**SHORT, "path": "first", "train_steps": 1})  # Whatever is imported is imported now.
    before = traces()
    if ends == "in a thread":
        thread = threading.Thread(target=lambda: ml(**SHORT, deterministic=True))
        thread.start()
        thread.join()
    elif ends in ("well", "nested"):
        ml(**SHORT, deterministic=True)
    else:
        with pytest.raises((ValueError, SystemExit)):
            ml(**SHORT, deterministic=True)
    assert traces() == before


def traces() -> dict[str, Any]:
    """What a run may change in the process."""
    streams = np.random.get_state()
    return {
        "random": (random.getstate(), streams[1].tolist(), streams[2:], torch.initial_seed()),
        "torch random": torch.get_rng_state().tolist(),
        "torch": (
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.get_float32_matmul_precision(),
        ),
        "handlers": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "process": (os.getcwd(), list(sys.path), list(sys.argv), sys.stdout, sys.stderr),
        "environments": len(gymnasium.registry),
    }


# ----------------------------------------------------------------- output that nobody reads any more


@pytest.fixture
def closed_pipe() -> Iterator[int]:
    """The end to write to of a pipe without a reader."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.row(42)
def test_row_42_a_run_goes_on_when_nobody_reads_its_output(closed_pipe: int) -> None:
    """Row 42: neither its own lines nor what the model prints end it; it is said once."""
    code, _, err = started("eval_every=2", steps=8, stdout=closed_pipe).end()
    assert (code, status()["status"]) == (0, "finished")
    assert err == "The output cannot be written any more (Broken pipe). The run continues.\n"


@pytest.mark.row(42)
def test_row_42_a_run_goes_on_when_its_terminal_is_gone() -> None:
    """Row 42: as after `disown`, without a SIGHUP."""
    outer, inner = pty.openpty()
    run = started(steps=80, stdout=inner)
    os.close(inner)
    os.close(outer)
    code, _, err = run.end()
    assert (code, status()["status"]) == (0, "finished")
    assert err == "The output cannot be written any more (Input/output error). The run continues.\n"


@pytest.mark.row(40)
def test_row_40_a_log_is_readable_without_a_terminal_colours_or_utf_8() -> None:
    """Row 40: 40 columns, through a pipe, in ASCII, in a directory whose name is not."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "NO_COLOR": "1"}
    words = ["dataset=Digits", "train_steps=4", "eval_every=2", "plot=false", "path='a run ü'"]
    run = subprocess.run(
        [sys.executable, "-B", "-c", MAIN, *words],
        capture_output=True,
        timeout=120,
        env={**os.environ, **plain, "COLUMNS": "40", "PYTHONPATH": str(ROOT)},
    )
    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout.isascii()
    assert b"\x1b" not in run.stdout
    assert b"\nstep 2  accuracy 0." in run.stdout
    assert status("a run ü")["status"] == "finished"


# ----------------------------------------------------------------------------- without its directory


@pytest.mark.row(52)
@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_row_52_a_run_whose_directory_is_gone_ends(
    how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row 52: with exit code 1 and a word, and without a trace in what is there instead."""

    def act(self: Model, step: int) -> None:
        if step == 3 and how == "removed":
            shutil.rmtree("run")
        if step == 3 and how == "replaced":
            Path("run").rename("elsewhere")
            Path("run").mkdir()

    monkeypatch.setattr(Model, "act", act)
    with pytest.raises(NotSaved, match="was removed or moved while the run was writing"):
        ml(**SHORT, log_every=1)
    assert "status.json could not be written" in capsys.readouterr().err
    assert not Path("run").exists() or not list(Path("run").iterdir())


@pytest.mark.row(52)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user, whom modes bind")
def test_row_52_a_run_whose_directory_becomes_read_only_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Row 52: once its patience is over, saying where the last good checkpoint is."""
    nobody = 65534

    def act(self: Model, step: int) -> None:
        if step == 5:
            os.seteuid(nobody)

    monkeypatch.setattr(Model, "act", act)
    for folder in (tmp_path, *tmp_path.parents[:-1]):
        if os.stat(folder).st_uid == 0 and str(folder).startswith("/tmp/"):
            os.chmod(folder, 0o755)
    try:
        with pytest.raises(NotSaved, match=r"Permission denied.*run/checkpoints/000002"):
            ml(**SHORT, log_every=1, save_every=2, save_patience=2)
    finally:
        os.seteuid(0)
    assert "status.json could not be written" in capsys.readouterr().err
