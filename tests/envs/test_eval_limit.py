"""Greedy episodes that do not end are cut, count as truncated, and are said once."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper

from antelope.envs import EnvTask
from antelope.replay import ConfigError

from .toys import Diary, Endless


def idle(obs: Any, *_: Any) -> np.ndarray:
    return np.zeros(len(obs), np.int64)


class Halves(Diary):
    """Every second episode, by its seed, has no end."""

    @property
    def length(self) -> int:
        return 3 if self.episode % 2 else 10**9


def task(env: Any = Endless, *, num_envs: int = 1, eval_limit: int | None = None) -> EnvTask:
    return EnvTask(env, name="x", num_envs=num_envs, eval_limit=eval_limit)


def test_the_limit_is_what_is_asked_for() -> None:
    endless = task(eval_limit=7)
    steps: list[float] = []  # Within the episodes.

    def watch(obs: Any, *_: Any) -> np.ndarray:
        steps.extend(obs[:, 1])
        return idle(obs)

    returns, lengths = endless.evaluate(watch, episodes=13)
    assert lengths == [7] * 13
    assert endless.cut == 13
    assert max(steps) <= 7  # A new episode began after each.
    assert endless.evaluate(idle, episodes=13) == (returns, lengths)


def test_only_those_are_cut_that_do_not_end() -> None:
    halves = task(Halves, eval_limit=50)
    _, lengths = halves.evaluate(idle, episodes=12)
    assert set(lengths) == {3, 50}
    assert halves.cut == lengths.count(50)


def test_an_episode_that_ends_at_the_limit_is_not_cut() -> None:
    ends = task(lambda: Diary(longest=1), eval_limit=1)
    assert ends.evaluate(idle, episodes=3)[1] == [1, 1, 1]
    assert ends.cut == 0


def test_the_default_is_ten_times_the_longest_of_training_and_at_least_1000() -> None:
    class Lasts(Diary):
        length = 150

    lasts = task(Lasts)
    lasts.reset()
    assert lasts.eval_limit == 1000
    for _ in range(149):
        lasts.step(idle(np.zeros(1)))
    assert lasts.eval_limit == 1000
    lasts.step(idle(np.zeros(1)))
    assert lasts.eval_limit == 1500
    lasts.reset()  # Of the next task, say.
    assert lasts.eval_limit == 1500


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=str)
def test_the_longest_is_counted_in_vector_environments(mode: AutoresetMode) -> None:
    class Lasts(Diary):
        length = 4

    several = task(lambda: SyncVectorEnv([Lasts] * 2, autoreset_mode=mode))
    several.reset()
    for _ in range(20):
        several.step(idle(np.zeros(2)))
    assert several.episodes.longest == 4


def test_a_limit_of_the_environments_own_is_enough(quick: Any) -> None:
    assert task(lambda: __import__("gymnasium").make("Pendulum-v1")).eval_limit is None
    long = {"agent": "Random", "env": Endless, "time_limit": 1200}
    assert quick(**long, train_steps=20).metrics["episode_length"] == 1200


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=str)
@pytest.mark.parametrize("seeded", [True, False])
def test_copies_of_a_vector_environment_are_cut_one_by_one(
    mode: AutoresetMode, seeded: bool
) -> None:
    def make() -> Any:
        envs = SyncVectorEnv([Halves] * 3, autoreset_mode=mode)
        return envs if seeded else Opaque(envs)

    several = task(make, eval_limit=20)
    returns, lengths = several.evaluate(idle, episodes=9)
    assert set(lengths) <= {3, 20}
    assert several.cut == lengths.count(20) > 0
    # Copies that cannot be reset alone play no more once they were cut.
    assert len(returns) == 9 if seeded else 3 <= len(returns) <= 9


class Opaque(VectorWrapper):
    """One whose copies cannot be reset alone."""

    @property
    def unwrapped(self) -> Any:
        return self


def test_the_run_says_it_once(quick: Any) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        settings = {"agent": "Random", "eval_every": 20, "eval_episodes": 3, "eval_limit": 7}
        run = quick(env=Endless, **settings)
    said = [str(warning.message) for warning in told]
    assert len(said) == 1
    assert "3 of 3 evaluation episodes at step 20 did not end and were cut" in said[0]
    assert "after 7 steps" in said[0]
    rows = [row for row in run.history if row["mode"] == "eval"]
    assert [row["episode_length"] for row in rows] == [7, 7, 7]


def test_it_is_said_before_training_that_there_is_no_limit(
    quick: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    quick(agent="Random", env=Diary, progress=True)
    said = " ".join(capsys.readouterr().out.split())
    assert "no time limit is known" in said
    assert "ten times the longest training episode, and at least 1,000 steps" in said
    quick(agent="Random", env=Diary, progress=True, time_limit=9)
    assert "no time limit" not in capsys.readouterr().out
    quick(agent="Random", env=Diary, progress=True, eval_limit=9)
    assert "no time limit" not in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [0, -3, 1.5])
def test_the_limit_is_a_number_of_steps(wrong: Any, quick: Any) -> None:
    with pytest.raises(ConfigError, match=r"eval_limit=.*expected int >= 1"):
        quick(agent="Random", env=Endless, eval_limit=wrong)
