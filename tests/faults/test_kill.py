"""`kill -9` at any moment, in the middle of a save too, and `resume=true` afterwards.

The runs are real processes and the signal is a real one. So that not each of them has to import
torch, this file run as a script is a server: it imports everything once, then forks a process for
every run that it is asked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ml
from antelope.launcher.record import packing
from antelope.launcher.record.checkpoint import KEEP, Checkpoints
from antelope.replay import blocks
from antelope.replay.blocks import SavedColumns

ROOT = Path(__file__).resolve().parents[2]
SHORT: dict[str, Any] = {"log_every": 1, "plot": False, "progress": False, "resume": True}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and looks into /proc")


class Net(nn.Module):
    """Weights, a buffer, a counter and a random stream; takes `pause_s` for each step."""

    def __init__(self, in_features: int, out_features: int, pause_s: float = 0.0):
        super().__init__()
        self.norm = nn.BatchNorm1d(in_features)
        self.layer = nn.Linear(in_features, out_features)
        self.optim = torch.optim.Adam(self.parameters(), 1e-2)
        self.pause_s, self.steps = pause_s, 0

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(F.dropout(self.norm(obs.flatten(1)), 0.2, self.training))

    def learn(self, replay: Any, log: Any) -> None:
        time.sleep(self.pause_s)
        batch = next(replay)
        self.steps += 1
        loss = F.cross_entropy(self(batch.obs), batch.label) * (1 + self.steps / 100)
        self.optim.zero_grad()
        loss.backward()
        self.optim.step()
        log.loss = loss


# ----------------------------------------------------------------------------- in the server


def serve() -> None:
    """Answer each line `{"settings": ..., "kill_after_s" | "kill_at_call": ...}` by an exit code.

    `kill_at_call` n: the n-th call that makes something durable (fsync, rename, removal) kills the
    process instead. `torn`: the file that was to be synced has lost its second half by then.
    """
    torch.set_num_threads(1)
    ml(model=Net, path="warm-up", **SHORT | {"train_steps": 1})  # Imports what is imported late.
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run(job)
        if (delay := job.get("kill_after_s")) is not None:
            time.sleep(delay)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(job: dict[str, Any]) -> None:
    """The forked process: never returns."""
    calls = _count_calls(job.get("kill_at_call"), torn=job.get("torn", False))
    code = 1
    if job["settings"].get("env") is not None:  # Small as it is, its replay is saved in blocks.
        packing.SMALL_COLUMNS, blocks.BLOCK = 0, 700
    try:
        ml(**{"model": Net, **SHORT, **job["settings"]})
        code = 0
    finally:
        if (file := job.get("write_calls")) is not None:
            Path(file).write_text(json.dumps(calls))
        sys.stderr.flush()
        os._exit(code)


def _count_calls(kill_at: int | None, *, torn: bool) -> list[str]:
    """Wrap whatever makes a change durable. Returns the list that the calls' names go to."""
    names: list[str] = []

    def wrap(owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            names.append(name)
            if len(names) == kill_at:
                if (
                    torn
                    and name == "fsync"
                    and "partial" in os.readlink(f"/proc/self/fd/{args[0]}")
                ):
                    with contextlib.suppress(OSError):  # A folder.
                        os.truncate(args[0], os.fstat(args[0]).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        setattr(owner, name, counted)

    for owner, name in ((os, "fsync"), (os, "replace"), (os, "rename"), (shutil, "rmtree")):
        wrap(owner, name)
    wrap(Path, "unlink")
    wrap(Path, "mkdir")
    return names


# ------------------------------------------------------------------------------ in the tests


class Server:
    def __init__(self, folder: Path):
        self.process = subprocess.Popen(
            [sys.executable, "-B", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        )

    def run(self, settings: dict[str, Any], **job: Any) -> int:
        """Run `ml(**settings)` in a process of its own and return its exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"settings": settings, **job}), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


def assert_same(path: Path, reference: Path) -> None:
    """Both runs left the same files and the same last checkpoint, to the bit."""
    for name in ("train.csv", "eval.csv"):
        assert (path / name).read_bytes() == (reference / name).read_bytes()
    ends = [Checkpoints(p / "checkpoints").newest() for p in (path, reference)]
    for state, problems in ends:
        assert state is not None
        assert problems == []
        for key in ("path", "resume"):
            del state["settings"][key]
    assert repr(ends[0][0]["progress"]) == repr(ends[1][0]["progress"])
    differing: list[str] = []
    _compare(ends[0][0], ends[1][0], "", differing)
    assert differing == []
    assert json.loads((path / "status.json").read_text())["status"] == "finished"
    assert not [p for p in path.rglob("*partial*") if not p.name.startswith(".")]


def _compare(a: Any, b: Any, place: str, differing: list[str]) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            _compare(a[key], b[key], f"{place}/{key}", differing)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            _compare(x, y, f"{place}/{i}", differing)
    elif isinstance(a, SavedColumns):
        assert list(a) == list(b)
        for key in a:
            _compare(np.asarray(a[key]).tolist(), np.asarray(b[key]).tolist(), place, differing)
    elif isinstance(a, Tensor):
        if not torch.equal(a, b):
            differing.append(place)
    elif repr(a) != repr(b):
        differing.append(place)


def kill_everywhere(
    server: Server, folder: Path, settings: dict[str, Any], calls: range, *, torn: bool = False
) -> None:
    """For each of the calls: a run that is killed there, resumed, and compared with `reference`."""
    for call in calls:
        run = {**settings, "path": str(folder / f"at-{call}")}
        assert server.run(run, kill_at_call=call, torn=torn) == -signal.SIGKILL
        assert server.run(run) == 0
        assert_same(folder / f"at-{call}", folder / "reference")


def count_calls(server: Server, folder: Path, settings: dict[str, Any]) -> list[str]:
    """Make the reference run. Returns what it did to the disk."""
    file = folder / "calls.json"
    run = {**settings, "path": str(folder / "reference")}
    assert server.run(run, write_calls=str(file)) == 0
    return json.loads(file.read_text())


@pytest.mark.row(1)
@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_until_it_finishes(
    server: Server, tmp_path: Path
) -> None:
    settings = {"train_steps": 120, "eval_every": 25, "save_every": 4, "model.pause_s": 0.004}
    assert server.run({**settings, "path": str(tmp_path / "reference")}) == 0
    draw, kills, code = random.Random(0), 0, -1
    run = {**settings, "path": str(tmp_path / "run")}
    for attempt in range(1, 100):
        # Ever longer, so that however slow the machine is, one of them comes to the end.
        code = server.run(run, kill_after_s=draw.uniform(0.2, 1) * 0.1 * attempt)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert code == 0
    assert kills >= 3
    assert_same(tmp_path / "run", tmp_path / "reference")


@pytest.mark.row(1)
@pytest.mark.slow
def test_killed_at_every_write_of_a_run(server: Server, tmp_path: Path) -> None:
    settings = {"train_steps": 5, "eval_every": 3, "save_every": 2}
    calls = count_calls(server, tmp_path, settings)
    assert calls.count("rename") == 3  # The saves: at 2, at 4, and at the end.
    kill_everywhere(server, tmp_path, settings, range(1, len(calls) + 1))


@pytest.mark.row(1)
@pytest.mark.slow
def test_killed_in_the_middle_of_writing_a_checkpoint(server: Server, tmp_path: Path) -> None:
    settings = {"train_steps": 5, "save_every": 1}
    calls = count_calls(server, tmp_path, settings)
    saves = [i + 1 for i, name in enumerate(calls) if name == "rename"]
    first = saves[KEEP] - 9  # The save that removes the oldest checkpoint.
    assert "rmtree" in calls[saves[KEEP] + 1 : first + 13]
    kill_everywhere(server, tmp_path, settings, range(first, first + 14), torn=True)


@pytest.mark.row(1)
def test_killed_while_blocks_of_a_replay_are_linked_and_written(
    server: Server, tmp_path: Path
) -> None:
    settings = {"env": "CartPole-v1", "model": "DQN", "model.hidden": [4], "seed_steps": 20}
    settings |= {"capacity": 50, "train_steps": 100, "save_every": 20, "eval_episodes": 1}
    settings |= {"batch_size": 8, "learn_every": 8}
    calls = count_calls(server, tmp_path, settings)
    newest = max((tmp_path / "reference" / "checkpoints").iterdir())
    blocks_of = sorted(newest.glob("rows-*"))
    assert len(blocks_of) > 2
    assert max(os.stat(file).st_nlink for file in blocks_of) > 1
    saves = [i + 1 for i, name in enumerate(calls) if name == "rename"]
    for call in (saves[2] - 5, saves[2] - 3, saves[3] + 3):
        kill_everywhere(server, tmp_path, settings, range(call, call + 1), torn=True)


AVERAGED = {"ema": 0.9, "scheduler": "CosineAnnealingLR", "scheduler.T_max": 5}
EVERYTHING: dict[str, dict[str, Any]] = {
    "data": {"model": "MLP", "train_steps": 6, "save_every": 2, "eval_every": 3, **AVERAGED},
    "environment": {
        **{"env": "CartPole-v1", "model": "DQN", "frame_stack": 3, "nstep": 3, "seed_steps": 20},
        **{"train_steps": 80, "save_every": 20, "eval_episodes": 1, "batch_size": 8, **AVERAGED},
    },
}


@pytest.mark.row(2)
@pytest.mark.parametrize("precision", [32, "bf16"])
@pytest.mark.parametrize("kind", EVERYTHING)
def test_killed_with_frame_stacks_long_returns_averages_schedules_and_low_precision(
    kind: str, precision: Any, server: Server, tmp_path: Path
) -> None:
    settings = {**EVERYTHING[kind], "precision": precision}
    calls = count_calls(server, tmp_path, settings)
    saves = [i + 1 for i, name in enumerate(calls) if name == "rename"]
    for call in (saves[1] - 1, saves[1] + 1):  # The first save is there.
        kill_everywhere(server, tmp_path, settings, range(call, call + 1), torn=True)


def test_killed_between_two_tasks(server: Server, tmp_path: Path) -> None:
    settings = {"tasks": 5, "train_steps": 2, "save_every": 100}
    calls = count_calls(server, tmp_path, settings)
    saves = [i + 1 for i, name in enumerate(calls) if name == "rename"]
    for call in (saves[len(saves) // 2], saves[len(saves) // 2] + 1):
        kill_everywhere(server, tmp_path, settings, range(call, call + 1))


def test_killed_while_an_earlier_run_is_moved_aside(server: Server, tmp_path: Path) -> None:
    """What is left is the earlier run or the new one, never a mixture that resumes the earlier."""
    earlier = {"train_steps": 3, "seed": 1}
    settings = {"train_steps": 3, "seed": 2, "resume": False}
    assert server.run({**settings, "path": str(tmp_path / "reference")}) == 0
    assert server.run({**earlier, "path": str(tmp_path / "earlier")}) == 0
    shutil.copytree(tmp_path / "earlier", tmp_path / "again")
    run = {**settings, "path": str(tmp_path / "again")}
    assert server.run(run, write_calls=str(tmp_path / "calls.json")) == 0
    calls = json.loads((tmp_path / "calls.json").read_text())
    *moves, _ = [i + 1 for i, name in enumerate(calls) if name == "rename"]  # And a checkpoint.
    assert moves
    for call in (*moves[1:], moves[-1] + 1):
        path = tmp_path / f"at-{call}"
        shutil.copytree(tmp_path / "earlier", path)
        run = {**settings, "path": str(path)}
        assert server.run(run, kill_at_call=call) == -signal.SIGKILL
        assert server.run({**run, "resume": True}) == 0
        assert_same(path, tmp_path / "reference")
        aside = [p for p in tmp_path.glob(f"at-{call}.*") if (p / "checkpoints").exists()]
        assert len(aside) == 1  # The earlier run is not lost.


def test_lock_of_a_killed_run_does_not_keep_others_out(server: Server, tmp_path: Path) -> None:
    settings = {"train_steps": 500, "model.pause_s": 0.01, "path": str(tmp_path / "run")}
    assert server.run(settings, kill_after_s=1.0) == -signal.SIGKILL
    assert server.run({**settings, "train_steps": 1}) == 0


if __name__ == "__main__":
    serve()
