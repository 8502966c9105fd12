"""Row 12: a disk that is full for a while, or for good; files that may not grow."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from antelope import ml
from antelope.launcher.record.checkpoint import read

from .console import finished

WORDS = ["model=model.py:Net", "train_steps=120", "eval_every=20", "log_every=5", "save_every=10"]
WORDS += ["threads=1", "plot=false"]

# What happens to the disk before learning step N is in FAULTS: {"step": "what"}.
MODEL = """\
import json
import os
import resource

import torch
from torch import nn
from torch.nn import functional as F

FAULTS = json.loads(os.environ["FAULTS"])
DISK = os.environ["DISK"]
FILLER = os.path.join(DISK, "filler")


def fill():
    with open(FILLER, "ab", buffering=0) as file:
        try:
            while True:
                file.write(b"0" * 4096)
        except OSError:
            pass


def free():
    os.unlink(FILLER)


def small_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, resource.RLIM_INFINITY))


def large_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class Fill:
    def on_end(self, run):
        fill()


class Net(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        self.large = nn.Parameter(torch.zeros(100_000))
        self.steps = 0

    def forward(self, obs):
        return self.layer(obs.flatten(1))

    def learn(self, replay, log):
        batch = next(replay)
        for i in range(60):  # Rows of a kilobyte: a block of the disk has room for three.
            log[f"number_{i}"] = self.steps + i / 7
        self.steps += 1
        if str(self.steps) in FAULTS:
            globals()[FAULTS[str(self.steps)]]()
        return F.cross_entropy(self(batch.obs), batch.label) + self.large.sum() * 0
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of ten megabytes, in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def run(
    disk: Path, *more: str, faults: dict[int, str], words: Sequence[str] = WORDS
) -> subprocess.CompletedProcess[str]:
    """A run from the console, whose directory is on the disk."""
    (disk.parent / "model.py").write_text(MODEL)
    where = {"DISK": str(disk), "FAULTS": json.dumps(faults)}
    return finished(*words, f"path={disk}/run", *more, cwd=disk.parent, **where)


def status(folder: Path) -> str:
    found: str = json.loads((folder / "run/status.json").read_text())["status"]
    return found


def steps(folder: Path, mode: str) -> list[int]:
    """The steps of the rows of train.csv or eval.csv."""
    with open(folder / f"run/{mode}.csv", newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def partial(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if "partial" in p.name]


@pytest.mark.row(12)
def test_a_disk_that_is_full_for_a_while_costs_two_checkpoints_and_no_row(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # From step 45 to step 63: two checkpoints, four rows of train.csv, one of eval.csv.
    ended = run(disk, faults={45: "fill", 63: "free"})
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    assert "Traceback" not in said
    assert status(disk) == "finished"
    assert steps(disk, "train") == list(range(5, 121, 5))
    assert steps(disk, "eval") == list(range(20, 121, 20))
    assert said.count("Step 50: A checkpoint could not be written: No space left on device.") == 1
    assert f"The last good checkpoint is {disk}/run/checkpoints/000004. The run goes on." in said
    assert said.count("train.csv: a row could not be written: No space left on device") == 1
    assert not partial(disk)
    monkeypatch.chdir(disk.parent)
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.setenv("FAULTS", "{}")
    monkeypatch.setenv("DISK", str(disk))
    whole = ml(*WORDS, path=disk.parent / "whole", progress=False)
    for name in ("train.csv", "eval.csv"):
        assert (disk / "run" / name).read_bytes() == (whole.path / name).read_bytes()
    newest = max((disk / "run/checkpoints").iterdir())
    weights = read(newest)["learner"]["agent"]
    assert all((weights[name] == value).all() for name, value in whole.agent.state_dict().items())


@pytest.mark.row(12)
def test_a_disk_that_stays_full_ends_the_run_with_its_last_checkpoint_whole(disk: Path) -> None:
    ended = run(disk, "save_patience=2", faults={45: "fill"})
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1, said
    assert "Traceback" not in said
    assert "No checkpoint could be written in 2 tries in a row (No space left on device)" in said
    assert f"The last good checkpoint is {disk}/run/checkpoints/000004" in said
    assert "save_patience=" in said
    assert status(disk) == "failed"
    assert not partial(disk)
    kept = sorted((disk / "run/checkpoints").iterdir())
    assert [path.name for path in kept] == ["000002", "000003", "000004"]
    assert read(kept[-1])["progress"]["step"] == 40
    (disk / "filler").unlink()
    resumed = run(disk, "resume=true", faults={})
    assert resumed.returncode == 0, resumed.stderr
    assert "Resumed at step 40." in resumed.stdout
    assert steps(disk, "train") == list(range(5, 121, 5))


@pytest.mark.row(12)
def test_a_disk_that_is_full_from_the_first_step_says_that_no_status_was_written(
    disk: Path,
) -> None:
    ended = run(disk, faults={1: "fill"})
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "status.json could not be written: No space left on device" in ended.stderr
    assert "config.yaml could not be written: No space left on device" in ended.stdout
    assert "There is no checkpoint yet." in ended.stderr
    assert not partial(disk)


@pytest.mark.row(12)
def test_files_that_may_not_grow_for_a_while_are_written_later(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    ended = run(tmp_path / "here", faults={45: "small_files", 63: "large_files"})
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    assert said.count("A checkpoint could not be written: File too large") == 1
    assert not partial(tmp_path)
    assert read(tmp_path / "here/run/checkpoints/000010")["progress"]["step"] == 120


@pytest.mark.row(12)
def test_pictures_that_cannot_be_written_leave_a_finished_run(disk: Path) -> None:
    words = [word for word in WORDS if word != "plot=false"]
    ended = run(disk, "callbacks=model.py:Fill", words=words, faults={})
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    assert "Traceback" not in said
    assert said.count("No pictures of the run: No space left on device") == 1
    assert status(disk) == "finished"
    assert not partial(disk)
    assert all(path.stat().st_size for path in (disk / "run").rglob("*.png"))
