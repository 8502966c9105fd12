"""Trials on a real Ray: what dies goes on, to the bits of an undisturbed run, and all is on loopback."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from antelope import ml
from antelope.launcher.sweep.engines import engine_named
from antelope.launcher.sweep.engines.ray import Ray
from antelope.replay.errors import ConfigError

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed."),
]

NET = """\
import os
import signal
from pathlib import Path

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, in_features, num_classes, at_step_30="", broken=False):
        super().__init__()
        if broken:
            raise ValueError("this net is broken")
        self.at_step_30, self.steps = at_step_30, 0
        self.layer = nn.Linear(in_features, num_classes)

    def learn(self, replay, log):
        self.steps += 1
        once = Path(self.at_step_30 + ".done")
        if self.at_step_30 and self.steps == 30 and not once.exists():
            once.touch()
            os.kill(os.getpid(), getattr(signal, self.at_step_30))
        batch = next(replay)
        return nn.functional.cross_entropy(self.layer(batch.obs.flatten(1)), batch.label)
"""
WORDS = ("train_steps=60", "eval_every=20", "save_every=20", "plot=false")

SCRIPT = """\
import json
import os
from pathlib import Path

from antelope.launcher.sweep.engines import engine_named
from antelope.launcher.sweep.trial import Trial
from net import Net

WORDS = ("train_steps=60", "eval_every=20", "save_every=20", "plot=false")


def addresses():
    "Those on which this process and all that it started listen, in hexadecimal."
    mine, parents = {str(os.getpid())}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[stat.parent.name] = stat.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue  # It has ended.
    while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
        mine |= more
    sockets = set()
    for pid in mine:
        for file in Path("/proc", pid, "fd").glob("*"):
            try:
                sockets.add(os.readlink(file))
            except OSError:
                continue
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path("/proc/net", name).open()]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


def trial(name, words, **settings):
    return Trial((*WORDS, *words), Path("ray", name).resolve(), {}, Path.cwd(), settings)


def sweep(trials):
    engine = engine_named("ray", jobs=2, folder=Path("ray").resolve(), options={})
    for each in trials:
        engine.start(each)
    ended = {}
    for _ in trials:
        each, outcome = engine.wait()
        ended[each.path.name] = [outcome.status, outcome.reason]
    found = addresses()
    engine.close(cancel=False)
    print(json.dumps({"ended": ended, "addresses": sorted(found)}))
"""


def sweep(folder: Path, trials: str) -> dict[str, Any]:
    """Run a script that sweeps, in a folder; returns what it found."""
    (folder / "net.py").write_text(NET)
    (folder / "script.py").write_text(SCRIPT + trials)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def same(first: Path, second: Path) -> bool:
    """Whether two runs have the same weights and rows."""
    return newest(first) == newest(second) and all(
        (first / name).read_bytes() == (second / name).read_bytes()
        for name in ("train.csv", "eval.csv")
    )


def newest(run: Path) -> dict[str, bytes]:
    """The bits of all tensors in a run's newest checkpoint."""
    checkpoint = max((run / "checkpoints").iterdir())
    return {
        f"{file.name}:{key}": tensor.numpy().tobytes()
        for file in checkpoint.rglob("*.safetensors")
        for key, tensor in load_file(file).items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    """What became of a sweep in which workers are killed, stopped and broken."""
    return sweep(
        folder,
        """
sweep([
    trial("plain", ["model=net.py:Net"]),
    trial("killed", ["model=net.py:Net", "model.at_step_30=SIGKILL"]),
    trial("stopped", ["model=net.py:Net", "model.at_step_30=SIGTERM"]),
    trial("broken", ["model=net.py:Net", "model.broken=true"]),
    trial("object", [], model=Net),
])
""",
    )


@pytest.fixture(scope="module")
def alone(folder: Path, found: dict[str, Any]) -> Path:
    """The same run, undisturbed, in this process."""
    import os

    before = os.getcwd()
    os.chdir(folder)
    try:
        ml("model=net.py:Net", *WORDS, path="alone", progress=False)
    finally:
        os.chdir(before)
    return folder / "alone"


@pytest.mark.parametrize("name", ["plain", "killed", "stopped", "object"])
def test_a_run_whose_worker_died_has_the_bits_of_an_undisturbed_one(
    found: dict[str, Any], folder: Path, alone: Path, name: str
) -> None:
    assert found["ended"][name] == ["finished", ""]
    assert same(folder / "ray" / name, alone)


def test_deaths_were_real(found: dict[str, Any], folder: Path) -> None:
    assert (folder / "SIGKILL.done").exists()
    assert (folder / "SIGTERM.done").exists()


def test_a_failing_run_does_not_stop_the_others(found: dict[str, Any], folder: Path) -> None:
    status, reason = found["ended"]["broken"]
    assert status == "failed"
    assert "this net is broken" in reason
    assert "this net is broken" in (folder / "ray" / "broken" / "output.log").read_text()


def test_nothing_listens_beyond_loopback(found: dict[str, Any]) -> None:
    assert found["addresses"]
    assert set(found["addresses"]) <= {"0100007F", "0000000000000000FFFF00000100007F"}


def test_another_address_of_ray_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(ConfigError, match="RAY_ADDRESS=host:port"):
        engine_named("ray", jobs=None, folder=tmp_path, options={})


def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"antelope-ml\[ray\]"):
        Ray(1, tmp_path)
