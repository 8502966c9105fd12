"""The cue is on the first screen only, and counts afterwards only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from antelope.envs import Errand, Workshop

NOTHING = np.zeros(16, np.int8)


def lit(screen: np.ndarray) -> int:
    """Which half of a screen is lit: 0 the upper, 1 the right, 2 the lower, 3 the left."""
    corners = [
        bool(screen[row, column].all()) for row, column in ((0, 0), (0, -1), (-1, -1), (-1, 0))
    ]
    assert sum(corners) == 2
    return next(way for way in range(4) if corners[way] and corners[(way + 1) % 4])


def episodes(count: int, *, remember: bool, **arguments: int) -> Iterator[list[float]]:
    """Rewards of a policy that moves to the half it has seen, or always down."""
    env = Errand(size=8, **arguments)
    for episode in range(count):
        obs, _ = env.reset(seed=episode)
        move, over, rewards = lit(obs["screen"]) if remember else 2, False, []
        while not over:
            obs, reward, over, truncated, _ = env.step({"move": move, "use": NOTHING})
            assert not truncated
            rewards.append(reward)
        yield rewards


def test_gymnasium_finds_nothing_wrong() -> None:
    check_env(Errand(), skip_render_check=True)


def test_its_spaces_are_those_of_the_workshop() -> None:
    assert Errand().observation_space == Workshop().observation_space
    assert Errand().action_space == Workshop().action_space


@pytest.mark.parametrize("delay", [1, 4, 8])
def test_who_remembers_is_right_at_every_step_after_the_first(delay: int) -> None:
    for rewards in episodes(8, remember=True, delay=delay):
        assert rewards == [0.0] + [1 / delay] * delay


def test_without_a_memory_a_quarter_is_right() -> None:
    # The standard error of 1,000 episodes is 0.014.
    returns = [sum(rewards) for rewards in episodes(1000, remember=False)]
    assert np.mean(returns) == pytest.approx(1 / 4, abs=0.05)


def test_after_the_first_step_every_episode_looks_the_same() -> None:
    env = Errand(size=8)
    cues = set()
    for seed in range(20):
        obs, _ = env.reset(seed=seed)
        cues.add(lit(obs["screen"]))
        assert not obs["inventory"].any()
        for _ in range(8):
            obs, *_ = env.step({"move": 0, "use": NOTHING})
            assert not obs["screen"].any()
            assert not obs["inventory"].any()
    assert cues == {0, 1, 2, 3}


def test_seeds_reproduce() -> None:
    first, again = (Errand(size=8).reset(seed=5)[0] for _ in range(2))
    assert np.array_equal(first["screen"], again["screen"])
