"""Environments are told apart by what is known of them, in any process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers import ClipReward, RecordVideo, TimeLimit, TransformReward

from antelope.envs.identity import identity


def pole(**arguments: Any) -> Any:
    return gymnasium.make("CartPole-v1", **arguments)


class Plain(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Records no arguments."""

    def __init__(self, env: Any, power: float):
        super().__init__(env)
        self.power = power


class Sized(gymnasium.Env[Any, Any]):
    """Made with arguments."""

    observation_space = gymnasium.spaces.Discrete(2)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, size: Any = (1, 2), render_mode: str | None = None):
        pass


gymnasium.register("Sized-v0", Sized)


def of(make: Callable[[], Any]) -> dict[str, Any]:
    env = make()
    try:
        found = identity(env, "it")
    finally:
        env.close()
    assert json.loads(json.dumps(found)) == found  # As a checkpoint holds it.
    return found


SAME: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "what is shown": (pole, lambda: pole(render_mode="rgb_array")),
    "checks": (pole, lambda: pole(disable_env_checker=True)),
    "videos": (
        lambda: pole(render_mode="rgb_array"),
        lambda: RecordVideo(pole(render_mode="rgb_array"), "videos"),
    ),
    "numbers of NumPy": (
        lambda: ClipReward(pole(), 0.0, 2.0),
        lambda: ClipReward(pole(), np.float64(0), np.float64(2)),
    ),
    "lists for tuples": (
        lambda: gymnasium.make("Sized-v0", size=(3, 4)),
        lambda: gymnasium.make("Sized-v0", size=[3, 4]),
    ),
    "copies": (pole, lambda: SyncVectorEnv([pole, pole])),
}


@pytest.mark.filterwarnings("ignore:.*Overwriting existing videos")
@pytest.mark.parametrize("name", SAME)
def test_what_learns_the_same_is_equal(
    name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = SAME[name]
    assert of(one) == of(other)


OTHER: dict[str, tuple[Callable[[], Any], Callable[[], Any], str]] = {
    "id": (pole, lambda: gymnasium.make("CartPole-v0"), "id"),
    "argument": (pole, lambda: pole(sutton_barto_reward=True), "arguments"),
    "array": (
        lambda: gymnasium.make("Sized-v0", size=np.array([3, 4])),
        lambda: gymnasium.make("Sized-v0", size=np.array([3, 5])),
        "arguments",
    ),
    "time limit": (pole, lambda: pole(max_episode_steps=30), "wrappers"),
    "time limit of copies": (
        lambda: SyncVectorEnv([pole]),
        lambda: SyncVectorEnv([lambda: pole(max_episode_steps=30)]),
        "wrappers",
    ),
    "inner one of two": (
        lambda: ClipReward(ClipReward(pole(), 0, 1), 0, 3),
        lambda: ClipReward(ClipReward(pole(), 0, 2), 0, 3),
        "wrappers",
    ),
    "order": (
        lambda: Plain(TimeLimit(pole(), 9), 2.0),
        lambda: TimeLimit(Plain(pole(), 2.0), 9),
        "wrappers",
    ),
}


@pytest.mark.filterwarnings("ignore:.*CartPole-v0 is out of date")
@pytest.mark.parametrize("name", OTHER)
def test_what_is_different_is_named(name: str) -> None:
    one, other, key = OTHER[name]
    first, second = of(one), of(other)
    assert first[key] != second[key]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Plain(pole(), 2.0),
        lambda: ClipReward(Plain(pole(), 2.0), 0, 1),
        lambda: TransformReward(pole(), lambda reward: reward),
        lambda: gymnasium.make("Sized-v0", size=print),
        lambda: AsyncVectorEnv([pole]),
        Sized,
    ],
    ids=["plain wrapper", "inside", "function", "argument", "elsewhere", "no id"],
)
def test_what_is_not_known_whole_says_so(make: Callable[[], Any]) -> None:
    assert not of(make)["whole"]
    assert of(pole)["whole"]


def test_a_wrapper_that_recorded_no_arguments_is_known_by_its_class() -> None:
    assert of(lambda: Plain(pole(), 2.0))["wrappers"] == [
        "TimeLimit {'max_episode_steps': 500}",
        "Plain",
    ]
