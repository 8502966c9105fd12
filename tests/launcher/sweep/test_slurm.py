"""A sweep on a real Slurm ends with the bits of an undisturbed one, whatever happens to its jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slurm

# Slow while the file `hold` is there, so that what happens to a job happens in the middle of its run.
MODEL = """\
import os
import time

import torch
from torch import nn
from torch.nn.functional import cross_entropy


class Held(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def learn(self, replay, log):
        batch = next(replay)
        if os.path.exists("hold") and replay.step >= 5:
            time.sleep(1)
        noise = torch.randn_like(batch.obs.flatten(1).float())
        return cross_entropy(self.layer(batch.obs.flatten(1).float() + noise), batch.label)
"""

WORDS = ["model=held.py:Held", "train_steps=40", "save_every=3", "eval_every=5", "batch_size=64"]
WORDS += ["plot=false", "seed=0,1,2,3"]
ON_SLURM = ("engine=slurm", "jobs=2")


Sweep = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "held.py").write_text(MODEL)
    return tmp_path


@pytest.fixture
def sweep() -> Iterator[Sweep]:
    """Starts `ml -m` in a folder; what is left of it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(
        folder: Path, *words: str, env: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "antelope", "-m", *WORDS, *words]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def runs(folder: Path) -> list[Path]:
    return [folder / "runs" / "default" / "Held" / "Digits" / str(seed) for seed in range(4)]


def status(run: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((run / "status.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def has_begun(*some: Path) -> bool:
    return all(any(run.glob("checkpoints/*/manifest.json")) for run in some)


def weights(run: Path) -> dict[str, torch.Tensor]:
    newest = sorted((run / "checkpoints").iterdir())[-1]
    return load_file(newest / "model.safetensors")


def assert_same(run: Path, other: Path) -> None:
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for name in ("train.csv", "eval.csv"):
        assert (run / name).read_bytes() == (other / name).read_bytes()


def test_whatever_happens_to_its_jobs_a_sweep_ends_with_the_same_bits(
    folder: Path, cluster: Any, sweep: Sweep
) -> None:
    undisturbed = folder / "undisturbed"
    undisturbed.mkdir()
    (undisturbed / "held.py").write_text(MODEL)
    alone = sweep(undisturbed)
    zero, one, two, three = runs(folder)
    (folder / "hold").touch()
    driver = sweep(folder, *ON_SLURM, env=cluster.env)

    def hurry(*queued: int) -> bool:
        """Start jobs that were queued again, for which Slurm otherwise waits two minutes."""
        for index in queued:  # Some of them may be running by now.
            command = ["scontrol", "update", f"jobid={job}_{index}", "starttime=now"]
            subprocess.run(command, env=cluster.env, capture_output=True)
        return True

    cluster.wait_until(lambda: has_begun(zero, one), 90)
    job = cluster("squeue", "-h", "-o", "%F").split()[0]
    cluster("scontrol", "requeue", f"{job}_0")  # As an administrator does.
    os.kill(status(one)["pid"], signal.SIGHUP)  # As Slurm does a minute before the time limit.
    cluster.wait_until(lambda: has_begun(two, three), 90)
    driver.kill()
    driver.wait()
    os.kill(status(two)["pid"], signal.SIGKILL)  # As where there is too little memory.
    cluster.kill_node(status(three)["pid"])
    cluster.revive_node()
    (folder / "hold").unlink()
    driver = sweep(folder, *ON_SLURM, "resume=true", env=cluster.env)
    cluster.wait_until(lambda: hurry(0, 1, 3) and driver.poll() is not None, 180)
    _, errors = driver.communicate()
    assert driver.returncode == 0, errors
    assert alone.wait(60) == 0
    for run, other in zip(runs(folder), runs(undisturbed), strict=True):
        assert status(run)["status"] == "finished"
        assert status(run)["attempt"] == 2
        assert_same(run, other)


def test_ctrl_c_cancels_the_jobs_and_the_end_of_the_login_does_not(
    folder: Path, cluster: Any, sweep: Sweep
) -> None:
    zero, one, *_ = runs(folder)
    (folder / "hold").touch()
    driver = sweep(folder, *ON_SLURM, env=cluster.env)
    cluster.wait_until(lambda: has_begun(zero, one), 90)
    driver.send_signal(signal.SIGHUP)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 129
    assert "Still in Slurm's queue: 4 runs." in errors
    assert "resume=true" in errors
    assert cluster("squeue", "--noheader", "--states=RUNNING").count("\n") == 2
    driver = sweep(folder, *ON_SLURM, "resume=true", env=cluster.env)
    errors = "".join(driver.stderr.readline() for _ in range(4))  # type: ignore[union-attr]
    assert errors.count("is in Slurm's queue already") == 4
    driver.send_signal(signal.SIGINT)
    said = driver.communicate(timeout=60)
    assert driver.returncode == 130, said
    assert cluster("squeue", "--noheader") == ""
    assert [status(run)["status"] for run in (zero, one)] == ["interrupted"] * 2


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("slurm.partition=nope", "invalid partition specified: nope"),
        ("slurm.partiton=main", "unrecognized option '--partiton=main'"),
        ("slurm.time=soon", "Invalid --time specification"),
    ],
)
def test_what_sbatch_refuses_is_said_before_anything_starts(
    folder: Path, cluster: Any, sweep: Sweep, word: str, says: str
) -> None:
    driver = sweep(folder, *ON_SLURM, word, env=cluster.env)
    _, errors = driver.communicate()
    assert driver.returncode == 2
    assert errors == f"sbatch refuses such jobs: {errors.partition(': ')[2]}"
    assert says in errors
    assert len(errors.splitlines()) == 1
    assert not (folder / "runs").exists()
