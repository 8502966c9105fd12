"""Statistics of gymnasium's NormalizeObservation and NormalizeReward: one set, frozen in evaluation."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import NormalizeObservation, NormalizeReward, TimeLimit
from gymnasium.wrappers import vector as vectors

from antelope.envs import EnvTask
from antelope.envs.running import RunningStatistics

from .toys import Diary


class Level(gymnasium.Env[Any, Any]):
    """Observations around 50, with a standard deviation of 2; rewards of 100."""

    observation_space: Any = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space: Any = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return self._obs(), {}

    def _obs(self) -> Any:
        return np.array([self.np_random.normal(50, 2)], np.float32)

    def step(self, action: Any) -> Any:
        self.count += 1
        return self._obs(), 100.0, False, self.count == 20, {}


def both() -> Any:
    return TimeLimit(NormalizeReward(NormalizeObservation(Level())), 10)


def several() -> Any:
    return SyncVectorEnv([both] * 2)


def around() -> Any:
    return vectors.NormalizeReward(vectors.NormalizeObservation(SyncVectorEnv([Level] * 2)))


def act(obs: Any, *_: Any) -> np.ndarray:
    return np.zeros(len(obs), np.int64)


class TestEvaluation:
    @pytest.mark.parametrize("make", [both, several, around])
    def test_uses_those_of_training(self, make: Any) -> None:
        seen: list[np.ndarray] = []

        def watch(obs: Any, *_: Any) -> np.ndarray:
            seen.append(obs.copy())
            return act(obs)

        task = EnvTask(make, name="x", num_envs=1)
        task.open_for_evaluation(4)
        task.reset()
        for _ in range(300):
            task.step(act(task.obs))
        returns, lengths = task.evaluate(watch, episodes=4)
        obs = np.concatenate(seen)
        assert abs(obs.mean()) < 0.4
        assert 0.7 < obs.std() < 1.4
        assert returns == [100.0 * length for length in lengths]  # As the environment gives them.
        before = seen[:]
        seen.clear()
        task.evaluate(watch, episodes=4)  # Which has changed nothing.
        assert all(np.array_equal(a, b) for a, b in zip(before, seen, strict=True))

    def test_where_it_is_learnt_changes_nothing(self) -> None:
        task = EnvTask(both, name="x", num_envs=2)
        task.evaluation.lacking = "There is no other."
        task.reset()
        for _ in range(50):
            task.step(act(task.obs))
        before = task.kept()["running"]["shared"]
        assert task.evaluate(act, episodes=2)[0] == [1000.0, 1000.0]
        assert task.kept()["running"]["shared"] == before
        task.reset()
        assert task.step(act(task.obs))["step"]["reward"].max() < 50
        assert task.kept()["running"]["shared"] != before


def test_copies_that_are_learnt_in_share_them() -> None:
    task = EnvTask(both, name="x", num_envs=3)
    task.reset()
    for _ in range(5):
        task.step(act(task.obs))
    layers = [env.env.env for env in task.envs.envs]
    assert len({id(layer.obs_rms) for layer in layers}) == 1
    assert layers[0].obs_rms.count == pytest.approx(3 * 6, abs=1e-3)


@pytest.mark.parametrize("outer", [NormalizeObservation, NormalizeReward])
def test_statistics_that_the_user_has_fixed_stay_so(quick: Any, outer: Any) -> None:
    """Also after an evaluation in the copy that is learnt in, which changes them for its own time."""
    env = outer(Level())
    env.update_running_mean = False
    kept = env.obs_rms if outer is NormalizeObservation else env.return_rms
    kept.mean, kept.var = np.full(kept.mean.shape, 50.0), np.full(kept.var.shape, 4.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # There is one copy, and rewards are in other units.
        quick(agent="Random", env=env, eval_episodes=1, eval_every=40, train_steps=100)
    assert not env.update_running_mean
    assert kept.count == pytest.approx(1e-4)
    assert (kept.mean == 50).all()


def test_they_are_kept() -> None:
    env = both()
    running = RunningStatistics([env])
    env.reset(seed=0)
    for _ in range(9):
        env.step(0)
    other = both()
    again = RunningStatistics([other])
    again.load_state_dict(running.state_dict())
    assert again.state_dict() == running.state_dict()
    assert other.env.env.obs_rms.mean == env.env.env.obs_rms.mean


def test_without_such_wrappers_there_is_nothing_to_keep() -> None:
    assert EnvTask(Diary, name="x", num_envs=2).kept()["running"] == {"shared": [[]], "returns": []}


class TestWords:
    def test_rewards_of_training_are_in_other_units(self, quick: Any) -> None:
        with pytest.warns(UserWarning, match="NormalizeReward in .*normalize_reward=true"):
            run = quick(agent="Random", env=both, eval_episodes=2, train_steps=200)
        assert run.metrics["return"] == 1000
        rows = [row["return"] for row in run.history if row["mode"] == "train" and "return" in row]
        assert max(rows) < 500

    def test_processes_have_their_own(self, quick: Any) -> None:
        words = {"env_wrappers": "NormalizeObservation", "vectorization": "async", "num_envs": 2}
        with pytest.warns(UserWarning, match="each copy has its own running.*normalize_obs=true"):
            quick(agent="Random", env=Diary, **words)

    def test_of_observations_there_is_nothing_to_say(self, quick: Any) -> None:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            quick(agent="Random", env=Level, env_wrappers="NormalizeObservation", num_envs=2)
        assert said == []
