"""Trials on a real Ray: what dies goes on, to the bits of an undisturbed run, and all is on loopback."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
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
import time
from pathlib import Path

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, in_features, num_classes, at_step_30="", nap=0.0, broken=False):
        super().__init__()
        if broken:
            raise ValueError("this net is broken")
        self.at_step_30, self.nap, self.steps = at_step_30, nap, 0
        self.layer = nn.Linear(in_features, num_classes)

    def learn(self, replay, log):
        self.steps += 1
        time.sleep(self.nap)
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


SLOWLY = (*WORDS, "model=net.py:Net", "model.nap=0.1", "engine=ray")


def started(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "antelope", "-m", *SLOWLY, *words]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def until_saved(folder: Path) -> None:
    """Wait until both runs have a checkpoint."""
    while len(list(folder.glob("runs/default/Net/Digits/*/checkpoints/0*"))) < 2:
        time.sleep(0.05)


def as_alone(folder: Path, alone: Path) -> bool:
    """Whether the run with seed 0 is as the undisturbed one, and seed 1 has finished."""
    runs = folder / "runs/default/Net/Digits"
    return same(runs / "0", alone) and '"finished"' in (runs / "1/status.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_driver_that_was_ended_is_continued_by_the_same_command(
    folder: Path, alone: Path, signum: signal.Signals
) -> None:
    work = folder / signum.name
    work.mkdir()
    (work / "net.py").write_text(NET)
    first = started(work, "seed=0,1")
    until_saved(work)
    first.send_signal(signum)
    said, _ = first.communicate()
    if signum == signal.SIGTERM:
        assert first.returncode == 143
        assert b"resume=true" in said
    again = started(work, "seed=0,1", "resume=true")
    said, _ = again.communicate(timeout=240)
    assert again.returncode == 0, said
    assert as_alone(work, alone)


@pytest.mark.slow
def test_a_ray_that_died_on_this_machine_is_started_again(folder: Path, alone: Path) -> None:
    work = folder / "raylet"
    work.mkdir()
    (work / "net.py").write_text(NET)
    sweep = started(work, "seed=0,1,2", "jobs=2")  # The third has not begun.
    until_saved(work)
    os.kill(int(subprocess.check_output(["pgrep", "-P", str(sweep.pid), "raylet"])), signal.SIGKILL)
    said, _ = sweep.communicate(timeout=240)
    assert sweep.returncode == 0, said
    assert "finished  seed=2" in said.decode()
    assert as_alone(work, alone)


TWO_NODES = """\
set -e
mount -t tmpfs tmpfs /dev/shm  # Large enough for Ray, whatever that of this machine is.
ip link set lo up
ip address add 10.9.0.1/32 dev lo
ip address add 10.9.0.2/32 dev lo
unset RAY_ADDRESS
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
ray() { $PYTHON -m ray.scripts.scripts start --num-cpus=1 --disable-usage-stats "$@" > ray.log 2>&1; }
ray --head --node-ip-address=10.9.0.1 --port=6379 --include-dashboard=false
ray --address=10.9.0.1:6379 --node-ip-address=10.9.0.2
RAY_ADDRESS=10.9.0.1:6379 $PYTHON -m antelope -m $WORDS &
sweep=$!
until [ "$(ls -d runs/default/Net/Digits/*/checkpoints/0* 2> /dev/null | wc -l)" -ge 2 ]; do sleep 0.1; done
pkill -KILL -f 'raylet/raylet.*node_ip_address=10.9.0.2'
wait $sweep
"""


@pytest.mark.slow
def test_the_runs_of_a_killed_node_go_on_at_another(folder: Path, alone: Path) -> None:
    """Two nodes in a network namespace, out of which nothing leads."""
    apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc"]
    if not shutil.which("ip") or subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to make network namespaces")
    work = folder / "nodes"
    work.mkdir()
    (work / "net.py").write_text(NET)
    (work / "nodes.sh").write_text(TWO_NODES)
    found = subprocess.run(
        [*apart, "bash", "nodes.sh"],
        cwd=work,
        env={**os.environ, "PYTHON": sys.executable, "WORDS": " ".join((*SLOWLY, "seed=0,1"))},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "node it was running on is dead" in found.stdout
    assert as_alone(work, alone)


def test_an_address_without_a_ray_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"cannot use Ray at 127\.0\.0\.1:1"):
        Ray(1, tmp_path)


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
