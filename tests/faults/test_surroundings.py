"""Rows 15 and 41: a kill while an old checkpoint is removed, clocks that jump, users without a home."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from antelope import ml
from antelope.envs.sources import default_data_dir
from antelope.launcher.record import checkpoint
from antelope.launcher.record.checkpoint import Checkpoints

SHORT: dict[str, Any] = {"dataset": "Digits", "train_steps": 20, "path": "run", "progress": False}


@pytest.mark.row(15)
def test_a_kill_while_an_old_checkpoint_is_removed_leaves_the_newer_ones(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in range(checkpoint.KEEP):
        checkpoints.save({"step": step})
    child = os.fork()
    if child == 0:
        remove = shutil.rmtree

        def killed(path: Path, **options: Any) -> None:
            if not path.name.isdigit():
                remove(path, **options)
                return
            next(path.iterdir()).unlink()
            os.kill(os.getpid(), signal.SIGKILL)

        shutil.rmtree = killed  # type: ignore[assignment]
        checkpoints.save({"step": checkpoint.KEEP})
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    state, problems = checkpoints.newest()
    assert state == {"step": checkpoint.KEEP}
    assert problems == []
    checkpoints.save({"step": 9})
    assert len(checkpoints.numbered()) == checkpoint.KEEP  # The torn one is gone.


@pytest.mark.row(41)
def test_a_clock_that_jumps_back_and_forth_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    jumps = itertools.cycle((0.0, 1e9, -1e9))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    run = ml(**SHORT, save_every=5, plot=False)
    assert run.history[-1]["step"] == 20
    assert len(list((run.path / "checkpoints").iterdir())) == checkpoint.KEEP


@pytest.mark.row(41)
def test_a_user_without_a_home_can_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_CACHE_HOME", "ANTELOPE_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    run = ml(**SHORT)
    assert run.history[-1]["step"] == 20
    assert default_data_dir() == tmp_path / ".cache" / "antelope"
