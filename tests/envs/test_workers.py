"""Processes of environments begin as copies of this one, or afresh where a GPU is in use."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from antelope import ConfigError, ml
from antelope.envs.workers import can_fork

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process is a copy")

# Without a guard, and with everything in it: a class, one that is registered, a function.
SCRIPT = """
import sys, torch, wave
if sys.argv[2] == "gpu":
    torch.cuda.is_initialized = lambda: True
import gymnasium, numpy as np
from antelope import ml
print("started", flush=True)

class Walk(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.seen(), {}
    def step(self, action):
        self.time += 1
        return self.seen(), float(action), False, self.time >= 9, {}
    def seen(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)

gymnasium.register("Walk-v0", Walk)
env = {"class": Walk, "registered": "Walk-v0", "function": lambda: Walk(), "file": "place.py:Walk"}
env["namesake"] = "sub/wave.py:Walk"  # Of a library that is loaded.
run = ml(
    env=env[sys.argv[1]], agent="DQN", num_envs=2, vectorization="async", train_steps=60,
    seed_steps=20, batch_size=8, eval_episodes=1, progress=False, plot=False, path=sys.argv[3],
)
import cloudpickle
assert not cloudpickle.list_registry_pickle_by_value()
print(run.metrics, sum(p.double().sum().item() for p in run.agent.parameters()))
"""


@linux
@pytest.mark.parametrize("env", ["class", "registered", "function", "file", "namesake"])
def test_a_process_started_afresh_does_the_same(env: str, workdir: Path) -> None:
    ends, of_a_file = [], env in ("file", "namesake")
    Path("script.py").write_text(SCRIPT)
    Path("sub").mkdir()
    for file in ("place.py", "sub/wave.py"):
        Path(file).write_text(SCRIPT.split("gymnasium.register")[0].replace("sys.argv[2]", "''"))
    for kind in ("cpu", "gpu"):
        words = [sys.executable, "-W", "ignore", "script.py", env, kind, str(workdir / kind)]
        result = subprocess.run(words, capture_output=True, text=True, check=True)
        # The script itself ran once; the file with the class may be read in every process.
        lines = [line for line in result.stdout.splitlines() if line != "started" or not of_a_file]
        assert lines.count("started") == (not of_a_file)
        ends.append(lines[-1])
    assert ends[0] == ends[1]


class Locked(gymnasium.Env[Any, Any]):
    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, lock: Any) -> None:
        self.lock = lock


@linux
def test_what_cannot_be_sent_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lock = threading.Lock()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(ConfigError, match=r"cannot pickle.*lock.*vectorization=sync"):
        ml(
            env=lambda: Locked(lock),
            agent="DQN",
            vectorization="async",
            num_envs=2,
            path=str(tmp_path / "run"),
        )


@linux
def test_a_gpu_in_use_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_fork()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert not can_fork()
