"""gymnasium environments: real last observations, whole evaluation episodes, shared spaces."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from antelope.envs import EnvTask, EnvWorld
from antelope.envs.environments import EVALUATION_SEED
from antelope.replay import ConfigError, Pixels, Replay, Transitions

LENGTH = 3


class Count(gymnasium.Env[np.ndarray, int]):
    """Counts steps from 0; action 1 terminates, three steps truncate. The reward is the count."""

    seeds: list[int | None] = []  # noqa: RUF012 - shared on purpose: what each reset was given.

    def __init__(self, actions: int = 2) -> None:
        self.observation_space = spaces.Box(0, 100, (1,), np.float32)
        self.action_space = spaces.Discrete(actions)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:  # type: ignore[type-arg]
        Count.seeds.append(seed)
        self.count = 0
        return self._obs(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:  # type: ignore[type-arg]
        self.count += 1
        return self._obs(), float(self.count), bool(action == 1), self.count == LENGTH, {}

    def _obs(self) -> np.ndarray:
        return np.array([self.count], np.float32)


def task(num_envs: int = 1) -> EnvTask:
    return EnvTask(Count, name="Count", num_envs=num_envs)


class Acts:
    """A learner whose actions are given."""

    def __init__(self, *actions: int):
        self.actions = list(actions)

    def act(self, obs: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        action = np.array([self.actions.pop(0)] * len(obs))
        return action, {"seen": obs.copy()}


def test_the_spec_is_that_of_the_spaces() -> None:
    spec = task().spec
    assert (spec.obs.shape, spec.obs.dtype) == ((1,), torch.float32)
    assert (spec.action.n, spec.discrete) == (2, True)


def test_next_obs_is_an_episodes_real_last_observation() -> None:
    world, ring = collected(0, 0, 0, 0, 0)
    rows = ring.gather(torch.arange(5))
    # The fourth step only resets; the fifth is the first of the next episode.
    assert ring.drawable(torch.arange(5)).tolist() == [True, True, True, False, True]
    assert rows["obs"].flatten().tolist() == [0, 1, 2, 3, 0]
    assert rows["next_obs"].flatten().tolist()[:3] == [1, 2, 3]
    assert rows["truncated"].tolist()[:3] == [False, False, True]
    assert rows["discount"].tolist()[:3] == pytest.approx([0.9] * 3)
    assert rows["seen"].flatten().tolist() == rows["obs"].flatten().tolist()
    assert world.episode_metrics(0) == {"return": 1 + 2 + 3}
    assert world.episode_metrics(0) == {}


def test_termination_ends_the_discount() -> None:
    _, ring = collected(0, 1)
    assert ring.gather(torch.arange(2))["discount"].tolist() == pytest.approx([0.9, 0])


def collected(*actions: int) -> tuple[EnvWorld, Transitions]:
    world = EnvWorld([task()], seed=0)
    ring = Transitions(world.spec, capacity=50, num_envs=1, discount=0.9)
    replay = Replay(ring, Pixels(), batch_size=2)
    world.begin(0, replay)
    learner = Acts(*actions)
    assert [world.collect(0, learner, replay) for _ in actions] == [1] * len(actions)
    return world, ring


def test_one_collect_takes_a_step_in_every_copy() -> None:
    world = EnvWorld([task(num_envs=3)], seed=0)
    ring = Transitions(world.spec, capacity=50, num_envs=3, discount=0.9)
    replay = Replay(ring, Pixels(), batch_size=2)
    world.begin(0, replay)
    assert world.collect(0, Acts(0), replay) == 3
    assert len(replay) == 3


def test_evaluation_plays_whole_episodes_with_seeds_of_its_own() -> None:
    Count.seeds.clear()
    env = task()
    returns, lengths = env.evaluate(lambda obs: np.zeros(len(obs), np.int64), episodes=2)
    assert (returns, lengths) == ([6.0, 6.0], [3, 3])
    assert Count.seeds == [EVALUATION_SEED, EVALUATION_SEED + 1]
    returns, lengths = env.evaluate(lambda obs: (obs[:, 0] == 1).astype(np.int64), episodes=1)
    assert (returns, lengths) == ([3.0], [2])  # Terminates at the second step: 1 + 2.


def test_evaluation_leaves_the_episodes_of_training_alone() -> None:
    env = task()
    env.reset(seed=0)
    env.step(np.array([0]))
    env.evaluate(lambda obs: np.ones(len(obs), np.int64), episodes=1)
    assert env.step(np.array([0]))["next_obs"].tolist() == [[2]]


def test_returns_of_several_environments_are_kept_apart() -> None:
    env = task(num_envs=2)
    env.reset(seed=0)
    env.step(np.array([1, 0]))  # The first ends with 1.
    env.step(np.array([0, 1]))  # It resets; the second ends with 1 + 2.
    assert env.episodes.take() == [1, 3]
    env.step(np.array([1, 0]))  # The first begins anew, and ends with 1.
    assert env.episodes.take() == [1]
    assert env.episodes.take() == []


def test_environments_of_one_run_share_their_spaces() -> None:
    wide = EnvTask(lambda: Count(actions=5), name="Wide", num_envs=1)
    with pytest.raises(ConfigError, match=r"Count has .* one of 2, Wide has .* one of 5"):
        EnvWorld([task(), wide], seed=0)
    assert EnvWorld([task(), task()], seed=0).spec.num_tasks == 2


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.MultiBinary(3), "MultiBinary; Box and Discrete"),
        (spaces.Discrete(3, start=1), "start at 1"),
    ],
)
def test_spaces_that_are_not_known(space: spaces.Space[Any], message: str) -> None:
    class Odd(Count):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = space  # type: ignore[assignment]

    with pytest.raises(ConfigError, match=f"actions of Odd.*{message}"):
        EnvTask(Odd, name="Odd", num_envs=1)


def test_bounds_of_boxes_are_kept() -> None:
    obs = task().spec.obs
    assert torch.as_tensor(obs.low).tolist() == [0]
    assert torch.as_tensor(obs.high).tolist() == [100]


def test_resume_begins_new_episodes_and_keeps_what_was_collected() -> None:
    world, ring = collected(0, 0)
    replay = Replay(ring, Pixels(), batch_size=2)
    fresh = Transitions(world.spec, capacity=50, num_envs=1, discount=0.9)
    resumed = Replay(fresh, Pixels(), batch_size=2)
    again = EnvWorld([task()], seed=0)
    again.resume(0, resumed, replay.state_dict(), anew=True)
    assert len(resumed) == 2
    again.collect(0, Acts(0), resumed)
    rows = fresh.gather(torch.arange(4))
    kept = fresh.drawable(torch.arange(4))
    pairs = torch.cat([rows["obs"], rows["next_obs"]], 1)[kept].tolist()
    assert pairs == [[0, 1], [1, 2], [0, 1]]
