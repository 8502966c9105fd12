"""What is no environment, or gives what no run can learn from: refused before the run, with what helps."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv, VectorWrapper

from antelope import ConfigError, DataError

OBS = spaces.Box(-1, 1, (2,), np.float32)


class Ends(gymnasium.Env[Any, Any]):
    """Episodes of one step; `reset` and `step` return what a class says."""

    observation_space, action_space = OBS, spaces.Discrete(2)
    first: Any = (np.zeros(2, np.float32), {})
    reward: Any = 1.0
    ends: Any = True

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.first

    def step(self, action: Any) -> Any:
        return np.zeros(2, np.float32), self.reward, self.ends, False, {}


def like(**members: Any) -> Any:
    """A class of environments that differ in these."""
    return type("Odd", (Ends,), members)


def from_library(module: str, **members: Any) -> Any:
    """A class of the user's that builds on one of another library."""
    base = type("Base", (), {"__module__": module})
    return type("Theirs", (base,), {"__module__": "mine", **members})


def refusal(quick: Any, tmp_path: Path, env: Any, **settings: Any) -> str:
    with pytest.raises((ConfigError, DataError)) as raised:
        quick(agent="Random", env=env, **settings)
    assert not (tmp_path / "run").exists()
    return str(raised.value)


LIBRARIES = [
    ("pettingzoo.utils.env", "supersuit"),
    ("gym.core", "GymV21CompatibilityV0"),
    ("dm_env._environment", "DmControlCompatibilityV0"),
    ("dm_control.rl.control", "shimmy:dm_control/"),
    ("stable_baselines3.common.vec_env.base_vec_env", "num_envs=8"),
    ("torchrl.envs.common", "what it wraps"),
]


@pytest.mark.parametrize(("module", "helps"), LIBRARIES)
@pytest.mark.parametrize("given", ["class", "instance", "function", "module"])
def test_other_libraries_environments(
    module: str, helps: str, given: str, quick: Any, tmp_path: Path
) -> None:
    kind = from_library(module)
    env = {
        "class": kind,
        "instance": kind(),
        "function": lambda: kind(),
        "module": types.ModuleType(module),
    }
    text = refusal(quick, tmp_path, env[given])
    assert helps in text
    assert len(text.splitlines()) == 1


def test_a_gymnasium_environment_that_builds_on_another_library_too(quick: Any) -> None:
    class Both(from_library("dm_env"), Ends):  # type: ignore[misc]
        pass

    assert quick(agent="Random", env=Both).metrics["return"] == 1  # One step, one reward.


class Duck:
    observation_space, action_space = OBS, spaces.Discrete(2)
    reset, step = Ends.reset, Ends.step


class Nothing:
    pass


@pytest.mark.parametrize(
    ("env", "right"),
    [
        (Duck, r"Write `class Duck(gymnasium.Env):`"),
        (Nothing, "env returned a Nothing, not a gymnasium.Env. Give a gymnasium id, a class that"),
        (lambda: None, "env returned a NoneType, not a gymnasium.Env"),
        (np.zeros(3), "env is a ndarray, not a gymnasium.Env"),
        (OBS, "env is a Box, not a gymnasium.Env"),
        (types.ModuleType("worlds"), "Name one of its environments: env=worlds:NAME"),
    ],
)
def test_what_is_none(env: Any, right: str, quick: Any, tmp_path: Path) -> None:
    assert right in refusal(quick, tmp_path, env)


def test_spaces_of_gym_say_where_an_environment_comes_from(quick: Any, tmp_path: Path) -> None:
    class Old(Duck):
        action_space = from_library("gym.spaces")()

    assert "Its spaces are those of gym" in refusal(quick, tmp_path, Old)


@pytest.mark.parametrize("how", ["sync", "async"])
class TestWhatResetAndStepReturn:
    """Found at the first step, when nothing is written yet."""

    @pytest.mark.parametrize(
        ("first", "shown"),
        [
            (np.zeros(2, np.float32), "returned a ndarray of shape [2] from reset"),
            (np.zeros(4, np.float32), "returned a ndarray of shape [4] from reset"),
            ({"a": 1, "b": 2}, "returned a dict from reset"),
            ((np.zeros(2, np.float32), None), "returned 2 values from reset"),
            ((np.zeros(2, np.float32),), "returned 1 values from reset"),
            (None, "returned a NoneType from reset"),
        ],
        ids=["array", "longer", "dict", "no info", "one", "nothing"],
    )
    def test_an_observation_without_infos(
        self, first: Any, shown: str, how: str, quick: Any, tmp_path: Path
    ) -> None:
        text = refusal(quick, tmp_path, like(first=first), vectorization=how)
        assert shown in text
        assert "not (obs, info), where info is a dict" in text

    @pytest.mark.parametrize(
        ("given", "right"),
        [
            (
                (np.zeros(2, np.float32), 0.0, True, {}),
                "returned 4 values from step, not (obs, reward",
            ),
            (({}, {}, {}, {}, {}, {}), "Is that one dict per agent?"),
            (3, "returned an int from step"),
        ],
        ids=["gym", "agents", "number"],
    )
    def test_a_step_of_another_form(
        self, given: Any, right: str, how: str, quick: Any, tmp_path: Path
    ) -> None:
        env = like(step=lambda self, action: given)
        assert right in refusal(quick, tmp_path, env, vectorization=how)

    def test_a_reset_without_a_seed(self, how: str, quick: Any, tmp_path: Path) -> None:
        text = refusal(quick, tmp_path, like(reset=lambda self: self.first), vectorization=how)
        assert "Write reset(self, *, seed=None, options=None)" in text

    def test_several_ends(self, how: str, quick: Any, tmp_path: Path) -> None:
        text = refusal(quick, tmp_path, like(ends=np.array([True, False])), vectorization=how)
        assert "returned terminated=array" in text


class TestRewards:
    @pytest.mark.parametrize(
        "reward",
        [np.ones(1), np.array(1), np.float64(1), np.int8(1), 1, True, np.True_, [1.0]],
        ids=repr,
    )
    def test_one_number_in_any_form(self, reward: Any, quick: Any) -> None:
        space = spaces.Box(0, 1, np.shape(reward))
        run = quick(agent="Random", env=like(reward=reward, reward_space=space))
        assert run.metrics["return"] == 1

    def test_a_space_of_several_is_refused_before_anything_is_stepped(
        self, quick: Any, tmp_path: Path
    ) -> None:
        def reset(self: Any, **_: Any) -> Any:
            raise AssertionError

        env = like(reset=reset, reward_space=spaces.Box(0, 1, (3,)))
        text = refusal(quick, tmp_path, env)
        assert text.startswith("Odd returns 3 rewards per step")
        assert "env_wrappers=[mo_gymnasium.wrappers.LinearReward]" in text

    @pytest.mark.parametrize("how", ["sync", "async"])
    def test_several_that_no_space_tells_of(self, how: str, quick: Any, tmp_path: Path) -> None:
        text = refusal(quick, tmp_path, like(reward=np.ones(3)), vectorization=how)
        assert "which is 3 numbers" in text
        assert "LinearReward" in text
        assert "a dict" in refusal(quick, tmp_path, like(reward={"a": 1.0}), vectorization=how)

    def test_those_of_vector_environments(self, quick: Any, tmp_path: Path) -> None:
        class Doubled(VectorWrapper):
            def step(self, actions: Any) -> Any:
                obs, reward, *rest = super().step(actions)
                return obs, np.stack([reward, reward], -1), *rest

        text = refusal(quick, tmp_path, lambda: Doubled(SyncVectorEnv([Ends] * 2)))
        assert "LinearReward" in text

    def test_a_wrapper_that_weighs_them_is_what_helps(self, quick: Any, tmp_path: Path) -> None:
        env = like(reward=np.array([1.0, 3.0]), reward_space=spaces.Box(0, 3, (2,)))

        class Weighed(gymnasium.Wrapper[Any, Any, Any, Any]):
            def step(self, action: Any) -> Any:
                obs, reward, *rest = super().step(action)
                return obs, reward @ [0.5, 0.5], *rest

        def summed() -> Any:
            return gymnasium.wrappers.TransformReward(env(), lambda reward: reward.sum())

        assert quick(agent="Random", env=summed).metrics["return"] == 4
        again = quick(agent="Random", env=lambda: Weighed(env()), path=tmp_path / "again")
        assert again.metrics["return"] == 2

    def test_of_mo_gymnasium(self, quick: Any, tmp_path: Path) -> None:
        mo = pytest.importorskip("mo_gymnasium")
        name = "mo_gymnasium:deep-sea-treasure-v0"
        assert "deep-sea-treasure-v0 returns 2 rewards per step" in refusal(quick, tmp_path, name)

        def weighed() -> Any:
            weight = np.array([0.7, 0.3])
            env = gymnasium.make(name, disable_env_checker=True)
            return mo.wrappers.LinearReward(env, weight=weight)

        with pytest.warns(UserWarning, match="precision lowered"):
            quick(agent="Random", env=weighed, time_limit=20)
