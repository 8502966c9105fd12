"""Runs in kept workers of this machine: the bits of runs here, whatever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from antelope.launcher.sweep.engines.local import Local
from antelope.launcher.sweep.trial import Outcome, Trial, run_trial

MODEL = """
import os, time
from torch import nn

class Net(nn.Module):
    def __init__(self, in_features, out_features, wait=0.0, dies=False):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(in_features, out_features))
        self.wait, self.dies = wait, dies

    def forward(self, x):
        if self.training:
            time.sleep(self.wait)
            if self.dies:
                os.kill(os.getpid(), 9)
        return self.body(x)
"""
WORDS = "model=net.py:Net model.wait=0.02 train_steps=60 save_every=10 log_every=5 eval_every=20 plot=false"
ML = [sys.executable, "-W", "error", "-c", "from antelope.launcher.ml import main; main()", "-m"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, and the undisturbed runs of seeds 0 to 3."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "net.py").write_text(MODEL)
    for seed in range(4):
        assert run_trial(trial(folder, "alone", seed)).status == "finished"
    return folder


def trial(folder: Path, name: str, seed: int, *words: str) -> Trial:
    # One thread, as workers have: the number of threads changes the order of sums.
    words = (*WORDS.split(), f"seed={seed}", "threads=1", "progress=false", *words)
    return Trial(words, folder / name / str(seed), {"seed": str(seed)}, folder)


def same_bits(one: Path, other: Path) -> None:
    """Assert that two runs have the same tables and the same weights."""
    for name in ("train.csv", "eval.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    newest = [max((run / "checkpoints").glob("[0-9]*")) for run in (one, other)]
    names = sorted(path.name for path in newest[0].glob("*.safetensors"))
    assert names
    for name in names:
        assert (newest[0] / name).read_bytes() == (newest[1] / name).read_bytes()


def until(found: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def local() -> Iterator[Local]:
    engine = Local(2)
    yield engine
    engine.close(cancel=True)


def test_a_worker_that_is_killed_costs_no_result(folder: Path, local: Local) -> None:
    for seed in range(4):
        local.start(trial(folder, "workers", seed))
    until(lambda: list((folder / "workers/0/checkpoints").glob("[0-9]*")))
    os.kill(json.loads((folder / "workers/0/status.json").read_text())["pid"], signal.SIGKILL)
    outcomes = {t.name: outcome for t, outcome in (local.wait() for _ in range(4))}
    assert {outcome.status for outcome in outcomes.values()} == {"finished"}
    for seed in range(4):
        same_bits(folder / "alone" / str(seed), folder / "workers" / str(seed))
    assert json.loads((folder / "workers/0/status.json").read_text())["attempt"] == 2
    local.start(trial(folder, "dying", 0, "model.dies=true"))
    _, outcome = local.wait()
    assert outcome == Outcome("failed", {}, "Its process died 3 times (killed by SIGKILL)", 1)


def test_a_driver_that_is_killed_or_interrupted_is_started_again(folder: Path) -> None:
    words = [*WORDS.split(), "threads=1", "seed=range(4)", "jobs=2", "experiment=driver"]
    runs = folder / "runs/driver/Net/Digits"

    def begin() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*ML, *words, "resume=true"], cwd=folder, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    first = begin()
    until(lambda: list(runs.glob("*/checkpoints/[0-9]*")))
    first.kill()
    first.communicate()
    # Its workers save and end by themselves, and what they held is waited for.
    second = begin()
    until(lambda: len(list(runs.glob("*/checkpoints/[0-9]*"))) > 6)
    os.killpg(second.pid, signal.SIGINT)  # As Ctrl-C in a terminal, which reaches workers, too.
    _, err = second.communicate(timeout=60)
    assert second.returncode == 130, err
    assert "Resume with: ml -m model=net.py:Net" in err
    assert "Traceback" not in err
    third = begin()
    out, err = third.communicate(timeout=120)
    assert third.returncode == 0, err
    assert "[4/4] finished" in out
    for seed in range(4):
        same_bits(folder / "alone" / str(seed), runs / str(seed))
