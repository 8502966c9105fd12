"""Runs in environments that stop half-way and are resumed end as if nothing had happened."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from antelope import Run, agents, ml
from tests.envs.toys import Ruled


class Nested(gymnasium.Env[Any, Any]):
    """Every kind of space, nested, under names that mean something to the replay and to checkpoints."""

    several = False

    def __init__(self) -> None:
        box = gymnasium.spaces.Box(-1.0, 1.0, (2,))
        flags = gymnasium.spaces.Box(0, 1, (3,), np.bool_)  # type: ignore[arg-type]
        names: dict[Any, Any] = {
            "cam/front": box,
            "a::b": gymnasium.spaces.Discrete(3),
            "%3A": flags,
        }
        clock = gymnasium.spaces.Box(0, 1e10, (1,), np.float64)
        self.observation_space = gymnasium.spaces.Tuple(
            [gymnasium.spaces.Dict({**names, "": clock}), gymnasium.spaces.Discrete(90_000)]
        )
        choice = gymnasium.spaces.Discrete(3, start=-1)
        self.action_space: Any = choice
        if self.several:
            self.action_space = gymnasium.spaces.Tuple(
                [choice, gymnasium.spaces.Dict({"x/y": box, "a::b": flags})]
            )

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.left = int(self.np_random.integers(5, 20))
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.left -= 1
        obs = self.observation_space.sample()
        return obs, float(obs[0]["cam/front"].sum()), self.left == 0, False, {}


class Several(Nested):
    several = True


# Stopped in mid-episode, with a replay that has wrapped where it is small.
RUNS: dict[str, dict[str, Any]] = {
    "dqn": {"env": "CartPole-v1", "agent": "DQN", "capacity": 900},
    "prioritized, n-step, stacks": {
        **{"env": "Acrobot-v1", "agent": "DQN", "num_envs": 3, "nstep": 3, "frame_stack": 2},
        **{"replay.prioritized": True, "normalize_obs": True, "normalize_reward": True},
    },
    "sac": {"env": "Pendulum-v1", "agent": "SAC", "model.hidden": [32]},
    "drqn": {"env": "Recall", "agent": "DRQN", "num_envs": 2, "replay.sequence": 8},
    "ppo": {"env": "CartPole-v1", "agent": "PPO", "num_envs": 4, "model.steps": 32},
    "mapped": {"env": "CartPole-v1", "agent": "DQN", "replay.storage": "mmap"},
    "vector form": {
        **{"env": "CartPole-v1", "agent": "DQN", "num_envs": 4},
        "vectorization": "vector_entry_point",
    },
    "processes": {
        **{"env": "CartPole-v1", "agent": "DQN", "num_envs": 2},
        "vectorization": "async",
    },
    "infos": {
        **{"env": Ruled, "agent": "DQN", "num_envs": 2, "nstep": 3, "capacity": 900},
        "env_info": ["action_mask", "age", "cost", "late"],
    },
    "infos of processes": {
        **{
            "env": Ruled,
            "agent": "PPO",
            "num_envs": 2,
            "vectorization": "async",
            "model.steps": 32,
        },
        "env_info": ["action_mask", "late"],
    },
    "nested": {"env": Nested, "agent": "DQN", "num_envs": 2, "normalize_obs": True},
    "nested, remembered": {"env": Nested, "agent": "DRQN", "replay.sequence": 6},
    "nested actions": {
        **{"env": Several, "agent": "PPO", "num_envs": 2, "model.steps": 16},
        **{"normalize_obs": True, "vectorization": "async"},
    },
    "simulator in C": {"env": "LunarLander-v3", "agent": "DQN"},
}


class Alone(gymnasium.Env[np.ndarray, np.int64]):
    """A robot: only one can be open."""

    observation_space = gymnasium.spaces.Box(-9.0, 9.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    open = 0

    def __init__(self) -> None:
        if Alone.open:
            raise RuntimeError("the port is in use")
        Alone.open += 1

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = float(self.np_random.normal())
        return np.array([self.at, 0.0], np.float32), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.at = float(
            np.clip(self.at + 0.2 * action - 0.1 + 0.1 * self.np_random.normal(), -9, 9)
        )
        return np.array([self.at, 1.0], np.float32), -abs(self.at), abs(self.at) > 2, False, {}

    def close(self) -> None:
        Alone.open -= 1


class Lasting(Alone):
    """No episode ends while it is evaluated, and there may be many of them."""

    def __init__(self) -> None:
        pass

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, _, _, info = super().step(action)
        return obs, reward, self.np_random.random() < 0.01, False, info

    def close(self) -> None:
        pass


# The run says of these that something is not as usual.
RUNS_WITH_A_WARNING: dict[str, dict[str, Any]] = {
    "evaluated where it is learnt": {
        **{"env": Alone, "agent": "DQN", "nstep": 2, "frame_stack": 2},
        **{"normalize_obs": True, "normalize_reward": True},
    },
    "evaluated where it is learnt, on-policy": {"env": Alone, "agent": "PPO", "model.steps": 32},
    "cut by the longest episode so far": {"env": [Lasting, Lasting], "agent": "DQN"},
    "wrappers that normalise": {
        **{"env": "CartPole-v1", "agent": "DQN", "num_envs": 2},
        "env_wrappers": ["NormalizeObservation", "NormalizeReward"],
    },
    "wrappers that normalise a simulator in C": {
        **{"env": "LunarLander-v3", "agent": "DQN"},
        "env_wrappers": ["NormalizeObservation", "NormalizeReward"],
    },
}


class Crash(Exception):
    """The run ends at once, with whatever it had saved."""


def run(settings: dict[str, Any], path: Path, **more: Any) -> Run:
    shared: dict[str, Any] = {
        **{"train_steps": 1500, "seed_steps": 200, "learn_every": 8, "save_every": 250},
        **{"eval_every": 600, "eval_episodes": 2, "plot": False, "progress": False},
    }
    words = [f"{key}={value}" for key, value in settings.items() if "." in key]
    named = {key: value for key, value in settings.items() if "." not in key}
    return ml(*words, **{**shared, **named, "path": path, **more})


def newest(path: Path) -> bytes:
    folder = max(path.glob("checkpoints/[0-9]*"))
    return b"".join((folder / f"{name}.safetensors").read_bytes() for name in ("model", "tensors"))


def stop_learning(monkeypatch: pytest.MonkeyPatch, name: str, *, at: int) -> None:
    agent, calls = getattr(agents, name), 0
    learn = agent.learn

    def stopping(self: Any, replay: Any, log: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Crash
        return learn(self, replay, log)

    monkeypatch.setattr(agent, "learn", stopping)


@pytest.mark.parametrize("name", RUNS)
def test_it_ends_the_same_to_the_bit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = whole_and_resumed(RUNS[name], tmp_path, monkeypatch, capsys)
    assert ends(cut) == ends(whole)


@pytest.mark.filterwarnings("ignore:No second Alone can be open")
@pytest.mark.filterwarnings("ignore:NormalizeReward in")
@pytest.mark.filterwarnings("ignore:.* evaluation episodes at step")
@pytest.mark.parametrize("name", RUNS_WITH_A_WARNING)
def test_it_ends_the_same_to_the_bit_where_something_is_unusual(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = RUNS_WITH_A_WARNING[name]
    whole, cut = whole_and_resumed(settings, tmp_path, monkeypatch, capsys)
    assert ends(cut) == ends(whole)


def ends(path: Path) -> tuple[bytes, bytes, Any]:
    """What a run has written: its rows and its newest checkpoint."""
    return (path / "train.csv").read_bytes(), (path / "eval.csv").read_bytes(), newest(path)


def whole_and_resumed(
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[Path, Path]:
    """The directories of a run, and of the same run that has crashed and was resumed."""
    if "LunarLander" in str(settings["env"]):
        pytest.importorskip("Box2D", reason="needs the extra `box2d`")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(settings, whole)
    with monkeypatch.context() as patch:
        stop_learning(patch, settings["agent"], at=90 if isinstance(settings["env"], str) else 70)
        with pytest.raises(Crash):
            run(settings, cut)
    capsys.readouterr()
    run(settings, cut, resume=True, progress=True)
    said = "".join(capsys.readouterr())
    assert "Resumed at step" in said
    assert "start over" not in said
    return whole, cut


class Unrepeatable(gymnasium.Env[np.ndarray, np.int64]):
    """Neither what it holds can be written down, nor does it do the same thing twice."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self.draws = (os.urandom(1)[0] / 255 for _ in itertools.count())

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.array([next(self.draws), 0.0], np.float32), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        drawn = next(self.draws)
        return np.array([drawn, 1.0], np.float32), drawn, drawn > 0.9, False, {}


def test_episodes_that_cannot_be_put_back_begin_anew_and_the_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"env": Unrepeatable, "agent": "DQN"}
    with monkeypatch.context() as patch:
        stop_learning(patch, "DQN", at=90)
        with pytest.raises(Crash):
            run(settings, tmp_path / "run")
    capsys.readouterr()
    resumed = run(settings, tmp_path / "run", resume=True, progress=True)
    assert "its episodes start over" in "".join(capsys.readouterr())
    assert resumed.history[-1]["step"] == 1500
