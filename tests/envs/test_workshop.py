"""Two inputs, two actions, and each action can be read from one of the inputs only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from antelope.envs import Workshop

SIZE = 24


def seen_on(screen: np.ndarray) -> int:
    """Where the bright square is: 0 up, 1 right, 2 down, 3 left of the middle."""
    rows, columns = np.nonzero(screen.min(-1) == 255)
    below, right = rows.mean() - (len(screen) - 1) / 2, columns.mean() - (len(screen) - 1) / 2
    if abs(below) > abs(right):
        return 2 if below > 0 else 0
    return 1 if right > 0 else 3


def both(obs: Any) -> Any:
    return {"move": seen_on(obs["screen"]), "use": (obs["inventory"] > 0).astype(np.int8)}


def no_inventory(obs: Any) -> Any:
    return {"move": seen_on(obs["screen"]), "use": np.ones(16, np.int8)}


def no_screen(obs: Any) -> Any:
    return {"move": 2, "use": (obs["inventory"] > 0).astype(np.int8)}


def neither(obs: Any) -> Any:
    return {"move": 3, "use": np.arange(16, dtype=np.int8) % 2}


def rewards(policy: Callable[[Any], Any], episodes: int, **arguments: Any) -> list[float]:
    env, found = Workshop(size=SIZE, **arguments), []
    for episode in range(episodes):
        obs, _ = env.reset(seed=episode)
        over = False
        while not over:
            obs, reward, terminated, over, _ = env.step(policy(obs))
            assert not terminated
            found.append(reward)
    return found


def test_gymnasium_finds_nothing_wrong() -> None:
    check_env(Workshop(), skip_render_check=True)  # Its other half needs a registered name.


def test_spaces_are_those_of_a_screen_and_an_inventory() -> None:
    env = Workshop()
    obs, _ = env.reset(seed=0)
    screen, inventory = env.observation_space["screen"], env.observation_space["inventory"]
    assert (screen.shape, screen.dtype) == ((64, 64, 3), np.uint8)
    assert (inventory.shape, inventory.dtype) == ((16,), np.float32)
    assert env.action_space["move"].n == 4
    assert env.action_space["use"].shape == (16,)
    for _ in range(50):
        assert env.observation_space.contains(obs)
        obs, *_ = env.step(env.action_space.sample())


def test_who_sees_both_is_right_at_every_step() -> None:
    found = rewards(both, 20, steps=8)
    assert found == [1.0] * 160


@pytest.mark.parametrize(
    ("policy", "expected"), [(no_inventory, 3 / 4), (no_screen, 5 / 8), (neither, 3 / 8)]
)
def test_a_blind_policy_gets_what_is_documented(policy: Any, expected: float) -> None:
    # Standard error at 3,200 steps: at most 0.005.
    assert np.mean(rewards(policy, 200)) == pytest.approx(expected, abs=0.015)


def test_neither_input_tells_of_the_other_action() -> None:
    env = Workshop(size=SIZE)
    env.reset(seed=0)
    counts = np.zeros((4, 2, 2))
    for _ in range(4000):
        env.step({"move": 0, "use": np.zeros(16, np.int8)})
        counts[env.move, env.use[0], env.use[15]] += 1
    # 16 cells of 250 each; deviation of a cell: 15.3.
    assert np.abs(counts - 250).max() < 62


def test_what_is_done_changes_nothing_that_comes() -> None:
    screens = []
    for act in (both, neither):
        env = Workshop(size=SIZE)
        obs, _ = env.reset(seed=3)
        for _ in range(5):
            obs, *_ = env.step(act(obs))
        screens.append(obs["screen"])
    assert np.array_equal(*screens)


def test_seeds_reproduce_and_differ() -> None:
    first, again, other = (Workshop(size=SIZE).reset(seed=seed)[0] for seed in (1, 1, 2))
    for name in first:
        assert np.array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])


def test_what_was_seen_is_not_overwritten_by_the_next_step() -> None:
    env = Workshop(size=SIZE)
    obs, _ = env.reset(seed=0)
    kept = obs["screen"].copy()
    env.step(neither(obs))
    assert np.array_equal(obs["screen"], kept)
