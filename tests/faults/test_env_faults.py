"""Rows 29, 30 and 49: environments that hang, die, raise, or return what their space does not allow."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from antelope import ConfigError, DataError, ml

RUN: dict[str, Any] = {
    "model": "DQN",
    "seed_steps": 20,
    "batch_size": 8,
    "train_steps": 120,
    "eval_episodes": 1,
    "plot": False,
    "progress": False,
}


class Toy(gymnasium.Env[Any, Any]):
    """Episodes of ten steps; in the third step of one of them it fails in some way."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, how: str = "", at: int = 4):
        self.how, self.at, self.episode, self.time = how, at, 0, 0
        if how == "open":
            time.sleep(1000)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        if self.how == "reset" and self.episode == self.at:
            time.sleep(1000)
        return self._obs(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        if self.episode == self.at and self.time == 3:
            if self.how == "sleep":
                time.sleep(1000)
            elif (
                self.how == "in C"
            ):  # It holds the interpreter's lock: no thread of the process runs.
                ctypes.PyDLL(None).sleep(1000)
            elif self.how == "dies":
                os._exit(7)
            elif self.how == "raises" or (self.how == "once" and not Path("failed").exists()):
                Path("failed").touch()
                raise ValueError("out of fuel")
            elif self.how == "another shape":
                return np.zeros(3, np.float32), 0.0, False, False, {}
        return self._obs(), 1.0, False, self.time == 10, {}

    def _obs(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


def toy(how: str, at: int = 4) -> Any:
    return lambda: Toy(how, at)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def children() -> list[Any]:
    """The processes that are left, but for workers that joblib keeps for other tests."""
    left = multiprocessing.active_children()
    return [process for process in left if not process.name.startswith("LokyProcess")]


def test_in_its_own_process_an_environment_is_the_same() -> None:
    here = ml(env=toy(""), path="here", **RUN)
    there = ml(env=toy(""), path="there", env_timeout=60, **RUN)
    assert here.history == there.history
    assert Path("here/train.csv").read_bytes() == Path("there/train.csv").read_bytes()
    assert not children()


@pytest.mark.row(29)
@pytest.mark.row(49)
@pytest.mark.parametrize("how", ["sleep", "in C", "reset", "dies"])
def test_one_that_hangs_or_dies_is_named_and_its_process_is_gone(how: str) -> None:
    said = (
        "ended with exit code 7"
        if how == "dies"
        else r"did not answer within 0.5 s \(env_timeout\)"
    )
    with pytest.raises(DataError, match=rf"{said}.* of the episode with seed \d+") as error:
        ml(env=toy(how), env_timeout=0.5, num_envs=2, **RUN)
    # 1 for a run that had begun, which can be resumed; 2 would say that it was refused.
    assert error.value.exit_code == 1
    assert not children()


@pytest.mark.row(29)
def test_one_that_does_not_open_is_named() -> None:
    with pytest.raises(ConfigError, match=r"within 0.5 s \(env_timeout\) when it was opened"):
        ml(env=toy("open"), env_timeout=0.5, **RUN)
    assert not children()


@pytest.mark.row(30)
@pytest.mark.row(49)
@pytest.mark.parametrize(
    ("how", "settings"),
    [
        ("raises", {}),
        ("raises", {"num_envs": 3}),
        ("another shape", {"num_envs": 2, "nstep": 3}),
        ("raises", {"num_envs": 2, "vectorization": "async"}),
        ("dies", {"num_envs": 2, "vectorization": "async"}),
        (
            "in C",
            {"num_envs": 2, "env_timeout": 0.5, "normalize_reward": True, "normalize_obs": True},
        ),
    ],
    ids=str,
)
def test_with_env_retry_it_is_started_again(how: str, settings: dict[str, Any]) -> None:
    with pytest.warns(
        UserWarning, match="It was started again .1 of env_retry=1.; what it did not"
    ):
        run = ml(env=toy(how), env_retry=1, **RUN | settings)
    ring = run.replay.state_dict()["transitions"]
    truncated, first = np.asarray(ring["columns"]["truncated"]), np.asarray(ring["first"])
    # What the broken episodes hold are their two whole steps, the second of which is truncated.
    ends = [np.flatnonzero(truncated[s :: ring["num_envs"]]) for s in np.flatnonzero(first)]
    assert {int(end[0]) + 1 for end in ends if len(end)} == {2, 10}
    unfinished = settings.get("num_envs", 1) * (ring["nstep"] - 1)  # Returns of the newest steps.
    assert np.asarray(ring["ok"]).sum() == 120 - unfinished
    assert run.metrics["return"] == 10.0
    assert not children()


@pytest.mark.row(49)
def test_it_is_started_again_only_so_often_in_a_row() -> None:
    failed = pytest.raises(DataError, match=r"out of fuel.*started again 2 times \(env_retry\)")
    with pytest.warns(UserWarning, match="started again") as said, failed:
        ml(env=toy("raises", at=1), env_retry=2, **RUN)
    assert [f"{n} of env_retry=2" in str(w.message) for n, w in enumerate(said, 1)] == [True, True]


def test_an_evaluation_plays_the_broken_episode_again() -> None:
    short = RUN | {"train_steps": 2, "seed_steps": 9}
    with pytest.warns(UserWarning, match="started again"):
        broken = ml(env=toy("once", at=1), env_retry=1, **short)
    whole = ml(env=toy(""), path="whole", **short)
    assert broken.metrics == whole.metrics


@pytest.mark.parametrize("setting", [{"env_timeout": 5}, {"env_retry": 1}])
def test_an_instance_cannot_be_made_again(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"is an instance of Toy.*env_(timeout|retry)"):
        ml(env=Toy(), **RUN | setting)


def test_a_resumed_run_plays_the_episode_in_its_process_again() -> None:
    settings = RUN | {"env": toy(""), "env_timeout": 60, "save_every": 25}
    whole = ml(path="whole", **settings)
    ml(path="half", **settings | {"train_steps": 65})
    resumed = ml(path="half", resume=True, **settings)
    assert resumed.metrics == whole.metrics


@pytest.mark.row(49)
def test_the_processes_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from test_env_faults import RUN, toy, ml\n"
        "ml(env=toy('in C', 2), env_timeout=100, **RUN)"
    )
    folder = str(Path(__file__).parent)
    run = subprocess.Popen([sys.executable, "-c", code, folder])
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    pids: list[str] = []
    for _ in range(600):
        time.sleep(0.1)
        pids = children.read_text().split()
        if len(pids) == 2:
            break
    time.sleep(1)
    run.kill()
    run.wait()
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            break
        time.sleep(0.1)
    assert pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
