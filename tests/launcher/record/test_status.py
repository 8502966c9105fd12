"""status.json is true: who runs, since when, and whether it still does. A directory has one writer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import antelope
from antelope import ConfigError, NotSaved, Run, ml
from antelope.launcher.live_run import LiveRun
from antelope.launcher.pictures.status import Status, is_alive, read_status, standing

pytestmark = pytest.mark.usefixtures("workdir")  # Every test in a folder of its own.

ROWS = np.random.RandomState(0).randn(200, 4).astype(np.float32)
RUN = Path("run")
QUIET: dict[str, Any] = {"plot": False, "progress": False, "path": "run", "batch_size": 20}


class Net(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs)


class Each:
    """Calls a function at each step."""

    def __init__(self, function: Any):
        self.function = function

    def on_step(self, run: LiveRun) -> object:
        return self.function(run)


def learn(*words: str, **settings: Any) -> Run:
    return ml(*words, **{"model": Net, "dataset": (ROWS, ROWS.argmax(1)), **QUIET, **settings})


def status() -> Status:
    found = standing(RUN)
    assert found is not None
    return found


def write(**fields: Any) -> None:
    """Change what status.json says."""
    path = RUN / "status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_status_names_the_process_and_the_times() -> None:
    seen: list[Status] = []
    began = datetime.now(UTC)
    learn(callbacks=Each(lambda run: seen.append(status())))
    assert {s.status for s in seen} == {"running"}
    for found in (*seen, status()):
        assert (found.host, found.pid, found.attempt) == (socket.gethostname(), os.getpid(), 1)
        assert found.started is not None
        assert found.updated is not None
        assert began <= found.started <= found.updated <= datetime.now(UTC)
    assert status().status == "finished"
    assert status().metrics["accuracy"] >= 0


def test_an_attempt_is_counted_whenever_a_run_is_resumed() -> None:
    stop = Each(lambda run: "stop")
    assert [learn(callbacks=stop, resume=True) and status().attempt for _ in range(3)] == [1, 2, 3]
    learn()  # Another run, in its place.
    assert status().attempt == 1


def test_a_status_is_brought_up_to_date_between_checkpoints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("_SHOW_SECONDS", "_ALIVE_SECONDS"):
        monkeypatch.setattr(f"antelope.launcher.record.supervisor.{name}", 0.0)
    seen: list[int] = []
    learn(callbacks=Each(lambda run: seen.append(status().step)))
    assert seen == list(range(1, 81))


KILLED = """
import fcntl, json, os, sys, time
from dataclasses import asdict
from pathlib import Path
from antelope.launcher.record.owner import new_owner

Path('run').mkdir()
lock = open('run/.lock', 'w')
fcntl.flock(lock, fcntl.LOCK_EX)  # Not `filelock`, of which some versions let go of it in a fork.
owner = new_owner(Path('run'), resume=True)
owner.claim(Path('run'))
Path('run/status.json').write_text(json.dumps({'status': 'running', 'step': 3, **asdict(owner)}))
if sys.argv[1] == 'fork' and os.fork() == 0:
    os.close(1)
    time.sleep(1)
    os._exit(0)
print('held', flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def holder(how: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that holds `run`, and says that it is running."""
    command = [sys.executable, "-c", KILLED, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.skipif(os.name != "posix", reason="locks as Unix does")
def test_a_run_that_was_killed_is_told_from_one_that_runs_and_goes_on() -> None:
    with holder() as process:
        assert status().status == "running"
        os.kill(process.pid, signal.SIGKILL)
        # Left as a zombie, which holds nothing, and is not alive.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert status().status == "died"
        assert status().step == 3
        assert not is_alive(process.pid)
    found = read_status(RUN)
    assert found is not None
    assert found.status == "running"  # As it was written.
    learn(resume=True)
    assert (status().status, status().attempt) == ("finished", 2)


@pytest.mark.skipif(os.name != "posix", reason="locks as Unix does")
def test_what_a_killed_run_had_forked_is_waited_for() -> None:
    with holder("fork") as process:
        process.kill()
        process.wait()
        assert status().status == "running"  # Until the fork lets go.
        learn(resume=True)
    assert status().status == "finished"


def test_a_run_of_another_machine_is_believed_while_it_writes() -> None:
    learn(callbacks=Each(lambda run: "stop"))
    now = datetime.now(UTC)
    for host, ago, expected in (
        ("elsewhere", timedelta(minutes=1), "running"),
        ("elsewhere", timedelta(hours=1), "died"),
        (socket.gethostname(), timedelta(), "died"),
    ):
        write(status="running", host=host, pid=os.getpid(), updated=(now - ago).isoformat())
        assert status().status == expected


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"status": "running", "updated": "soon"}', '{"metrics": 3}']
)
def test_a_status_that_cannot_be_read_is_none(text: str) -> None:
    RUN.mkdir()
    (RUN / "status.json").write_text(text)
    assert standing(RUN) is None
    learn(resume=True)
    assert status().attempt == 1


def test_a_status_of_an_earlier_version_has_no_process() -> None:
    RUN.mkdir()
    (RUN / "status.json").write_text(
        '{"status": "finished", "step": 4, "metrics": {"r2": null, "f1": [1, 2]}}'
    )
    found = status()
    assert list(found.metrics) == ["r2"]
    assert (found.status, found.pid, found.host, found.attempt) == ("finished", None, "", 1)
    assert np.isnan(found.metrics["r2"])
    write(status="running")
    assert status().status == "died"


# ----------------------------------------------------------------------------------- one writer


def test_a_run_whose_directory_was_taken_over_writes_nothing_more() -> None:
    """As where locks do not reach other machines: the file is gone, so the next one gets its lock."""
    left: list[dict[str, int]] = []

    def files() -> dict[str, int]:
        return {str(p): p.stat().st_size for p in RUN.rglob("*") if p.is_file()}

    def take_over(run: LiveRun) -> None:
        if run.step == 12:  # Once there is a checkpoint, of step 10.
            (RUN / ".lock").unlink()
            write(status="interrupted")
            learn(resume=True, epochs=3, override=["save_every"])
            left.append(files())

    with pytest.raises(NotSaved, match=rf"belongs to process {os.getpid()} on .* \(attempt 2\)"):
        learn(epochs=4, save_every=10, log_every=1, callbacks=Each(take_over))
    assert (status().status, status().step, status().attempt) == ("finished", 24, 2)
    assert files() == left[0]


def test_a_lock_that_another_run_holds_by_now_stays_its_own() -> None:
    from antelope.launcher.record.directory import RunDirectory

    first = RunDirectory(RUN.absolute(), resume=False)
    (RUN / ".lock").unlink()
    second = RunDirectory(RUN.absolute(), resume=True)
    first.started = second.started = True
    first.close()
    with pytest.raises(ConfigError, match="Another run is writing"):
        RunDirectory(RUN.absolute(), resume=True)
    second.check()
    second.close()
    assert not list(RUN.iterdir())


# ------------------------------------------------------------------------------------ true ends


class Restless(Net):
    """Cannot be put to rest once it has learnt."""

    def eval(self) -> Restless:
        if RUN.exists() and (RUN / "train.csv").exists():
            raise RuntimeError("I will not rest")
        super().eval()
        return self


def test_an_error_after_the_last_step_is_the_runs_status() -> None:
    with pytest.raises(RuntimeError, match="not rest"):
        learn(model=Restless, log_every=1)
    assert (status().status, status().reason) == ("failed", "RuntimeError: I will not rest")


@pytest.mark.skipif(os.name != "posix", reason="locks as Unix does")
def test_a_killed_run_whose_resumption_is_refused_was_interrupted() -> None:
    with holder() as process:
        process.kill()
    learn(callbacks=Each(lambda run: "stop"), path="other")
    for name in ("checkpoints", "config.yaml"):
        Path("other", name).rename(RUN / name)
    with pytest.raises(ConfigError, match="seed"):
        learn(resume=True, seed=9)
    assert (status().status, status().reason) == ("interrupted", "Its process died.")
    assert status().step == 3


def test_a_callback_stops_a_run_in_a_thread_as_in_the_main_one() -> None:
    threads = []
    for path in ("run", "thread"):
        stop = Each(lambda run: "stop" if run.step == 5 else None)
        thread = threading.Thread(target=learn, kwargs={"path": path, "callbacks": stop})
        thread.start() if path == "thread" else thread.run()
        threads.append(thread)
    threads[-1].join()
    states = [standing(Path(path)) for path in ("run", "thread")]
    assert [s.status for s in states if s] == ["stopped", "stopped"]
    assert [s.step for s in states if s] == [5, 5]
    weights = [antelope.load(p, model=Net).agent.state_dict() for p in ("run", "thread")]
    assert all(map(torch.equal, weights[0].values(), weights[1].values()))


def test_python_m_antelope_is_the_command() -> None:
    command = [sys.executable, "-m", "antelope"]
    typo = subprocess.run([*command, "lr=1e-3", "epohcs=3"], capture_output=True, text=True)
    assert typo.returncode == 2
    assert "epochs" in typo.stderr
    version = subprocess.run([*command, "version"], capture_output=True, text=True)
    assert version.stdout == f"antelope {antelope.__version__}\n"
