"""Saving costs no more than it must, and loses no weights where a replay does not fit on the disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import antelope

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, sets limits")


@pytest.mark.row(50)
def test_a_mapped_replay_is_saved_and_read_back_in_the_memory_of_its_run() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/saving.py"), "--replay", "0.15"]
    done = subprocess.run(
        [*command, "--only", "replay"], capture_output=True, text=True, timeout=120, check=True
    )
    found = json.loads(done.stdout)
    first, second, back = (found[k] for k in found if not k.startswith("torch"))
    assert first["written"] > 140
    assert second["written"] < 40  # One or two blocks, and what is small.
    for cost in (first, second, back):
        assert cost["peak"] < 0.1 * cost["held"]


LIMITED = """
import resource, sys
from antelope import ml
from antelope.launcher.record import packing
packing.SMALL_COLUMNS = 0
if sys.argv[1] == "limited":
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
ml(
    env="CartPole-v1", model="DQN", **{"model.hidden": [4]}, capacity=2500,
    train_steps=int(sys.argv[2]), seed_steps=50,
    learn_every=200, save_every=800, eval_episodes=1, plot=False, path="run", resume=True,
)
"""


@pytest.mark.row(12)
def test_row_12_where_the_replay_does_not_fit_the_weights_are_saved(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-c", LIMITED, *words],
            **{"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 120},
        )

    done = run("limited", "2000")
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0, said
    assert said.count("holds the weights without the replay") == 1
    assert json.loads((tmp_path / "run/status.json").read_text())["status"] == "finished"
    whole, alone = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert not list((tmp_path / "run/checkpoints" / alone).glob("rows-*"))
    assert list((tmp_path / "run/checkpoints" / whole).glob("rows-*"))
    assert antelope.load(tmp_path / "run").metrics.keys() >= {"return"}
    again = run("free", "2000")
    said = " ".join((again.stdout + again.stderr).split())
    assert again.returncode == 0, said
    assert "Resumed at step 800." in said
    assert f"checkpoints/{alone} holds the weights without the replay" in said
