"""Environments that say in every observation where it comes from, and that check what they are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

SHORT = {"plot": False, "progress": False, "seed_steps": 0, "eval_episodes": 1, "batch_size": 16}


class Diary(gymnasium.Env[np.ndarray, Any]):
    """Observations are `[episode, step]`: a number drawn at the reset, and the steps since then.

    An episode has 1 to 5 steps; odd ones terminate, even ones are truncated. The reward is
    `episode % 10 + step / 10`.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - as gymnasium declares it.
    observation_space: Any
    action_space: Any

    def __init__(self, longest: int = 5) -> None:
        self.longest = longest
        self.observation_space = spaces.Box(0, 1e6, (2,), np.float32)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed)
        self.episode, self.count = int(self.np_random.integers(1_000_000)), 0
        return self._obs(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, Any]:
        assert self.action_space.contains(action)
        assert self.count < self.length, "stepped after the episode's end"
        self.count += 1
        over, odd = self.count == self.length, self.episode % 2 == 1
        return self._obs(), self.reward(self.count), over and odd, over and not odd, {}

    @property
    def length(self) -> int:
        return 1 + self.episode % self.longest

    def reward(self, step: int) -> float:
        return self.episode % 10 + step / 10

    def _obs(self) -> np.ndarray:
        return np.array([self.episode, self.count], np.float32)


class Endless(Diary):
    """A diary whose episodes have no end of their own."""

    length = 10**9


def check_diary(batch: Any, *, discount: float = 0.99, longest: int = 5) -> None:
    """Every single-step transition is within one episode, and is what happened there."""
    obs, next_obs = batch.obs.double(), batch.next_obs.double()
    episode, step = obs[..., 0], obs[..., 1]
    assert torch.equal(next_obs[..., 0], episode)
    assert torch.equal(next_obs[..., 1], step + 1)
    assert torch.allclose(batch.reward.double(), episode % 10 + (step + 1) / 10)
    over = step + 1 == 1 + episode % longest
    assert torch.equal(batch.terminated, over & (episode % 2 == 1))
    assert torch.equal(batch.truncated, over & (episode % 2 == 0))
    assert torch.allclose(batch.discount, discount * (~batch.terminated).float())
    assert bool((step < 1 + episode % longest).all())


class Reader(nn.Module):
    """Acts by turns, keeps what it saw, and checks every batch of a diary."""

    def __init__(self, longest: int = 5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.longest = longest
        self.acted = self.learnt = 0

    def act(self, obs: Tensor) -> Any:
        if not self.training:
            return torch.zeros(len(obs), dtype=torch.long)
        self.acted += 1
        return (torch.arange(len(obs)) + self.acted) % 3, {"seen": obs}

    def learn(self, replay: Any) -> Tensor:
        self.learnt += 1
        batch = next(replay)
        check_diary(batch, longest=self.longest)
        assert torch.equal(batch.seen, batch.obs)
        return (batch.obs / 1e6 @ self.weight).square().mean()


class Echo(gymnasium.Env[Any, Any]):
    """Any spaces: observations are samples, and actions have to be members.

    `shown` holds all observations that any copy in this process has given, in order.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - as gymnasium declares it.
    shown: list[Any] = []  # noqa: RUF012 - shared on purpose.

    def __init__(self, observation: Any = None, action: Any = None) -> None:
        self.observation_space = (
            spaces.Box(-1, 1, (3,), np.float32) if observation is None else observation
        )
        self.action_space = spaces.Discrete(2) if action is None else action

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.count = 0
        return self._sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Any]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        check_types(self.action_space, action)
        self.count += 1
        return self._sample(), 1.0, False, self.count == 7, {}

    def _sample(self) -> Any:
        obs = self.observation_space.sample()
        Echo.shown.append(obs)
        return obs


def check_types(space: Any, action: Any) -> None:
    """`contains` lets other types pass."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        assert isinstance(action, dict if isinstance(space, spaces.Dict) else tuple)
        for name, part in space.items() if isinstance(space, spaces.Dict) else enumerate(space):
            check_types(part, action[name])
    elif isinstance(space, spaces.Discrete):
        assert isinstance(action, (int, np.integer))
    else:
        assert (action.dtype, action.shape) == (space.dtype, space.shape)


def echo(observation: Any = None, action: Any = None) -> Callable[[], Echo]:
    """A factory of `Echo`, each with spaces of its own."""
    from copy import deepcopy

    def make() -> Echo:
        return Echo(deepcopy(observation), deepcopy(action))

    make.__name__ = "Echo"
    return make


def flat(value: Any) -> Tensor:
    """Nested dicts of `[B, ...]` as one tensor `[B, n]`."""
    if isinstance(value, dict):
        return torch.cat([flat(part) for part in value.values()], 1)
    return value.flatten(1)


class Ruled(Diary):
    """A diary that rules actions out, by its observation, and raises when one of them is taken.

    Its info has `action_mask` and `age`, also from reset; `cost` from steps alone, and `late`, which only
    comes at an episode's end.

    Args:
        kind: Of the action: "one", "several", "yes" (or no), "many" (a dict of them), "tuple".
    """

    KINDS: Any = {  # noqa: RUF012
        "one": spaces.Discrete(4, start=3),
        "several": spaces.MultiDiscrete([2, 3]),
        "yes": spaces.MultiBinary(3),
        "many": spaces.Dict(
            {
                "go": spaces.Discrete(3),
                "say": spaces.MultiDiscrete([2, 2]),
                "push": spaces.Box(-1, 1, (1,)),
            }
        ),
        "tuple": spaces.Tuple((spaces.Discrete(3), spaces.Discrete(2))),
    }
    SIZES: Any = {  # noqa: RUF012
        "one": [4],
        "several": [2, 3],
        "yes": [2, 2, 2],
        "many": {"go": [3], "say": [2, 2]},
        "tuple": ([3], [2]),
    }

    def __init__(self, kind: str = "one", longest: int = 5) -> None:
        super().__init__(longest)
        self.kind, self.action_space = kind, self.KINDS[kind]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, Any]:
        obs, _ = super().reset(seed=seed)
        return obs, {"action_mask": self.mask(), "age": self.count}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, Any]:
        _check_allowed(action, self.mask(), self.KINDS[self.kind], self.SIZES[self.kind])
        assert self.count < self.length, "stepped after the episode's end"
        self.count += 1
        over, odd = self.count == self.length, self.episode % 2 == 1
        info = {"action_mask": self.mask(), "age": self.count, "cost": self.count / 2}
        if over:
            info["late"] = odd
        if over and odd and self.kind == "one":
            info["action_mask"] = np.zeros(4, np.int8)  # Nothing is left to be done.
        return self._obs(), self.reward(self.count), over and odd, over and not odd, info

    def mask(self) -> Any:
        def each(sizes: Any) -> Any:
            if isinstance(sizes, dict):
                return {name: each(part) for name, part in sizes.items()}
            if isinstance(sizes, tuple):
                return tuple(each(part) for part in sizes)
            return np.concatenate([allowed_at(self.episode, self.count, n) for n in sizes])

        return each(self.SIZES[self.kind])


def allowed_at(episode: Any, step: Any, n: int) -> np.ndarray:
    """Which of n actions `Ruled` allows there, int8 `[n]`; of N places, `[N, n]`."""
    at = np.asarray(episode).astype(np.int64) + np.asarray(step).astype(np.int64)
    choices = (at[..., None] + np.arange(n)) % n
    return (choices < max(1, n // 2)).astype(np.int8)


def _check_allowed(action: Any, mask: Any, space: Any, sizes: Any) -> None:
    if isinstance(space, spaces.Dict):
        for name, part in space.items():
            if name in sizes:
                _check_allowed(action[name], mask[name], part, sizes[name])
        return
    if isinstance(space, spaces.Tuple):
        for each in zip(action, mask, space, sizes, strict=True):
            _check_allowed(*each)
        return
    first = int(space.start) if isinstance(space, spaces.Discrete) else 0
    start = 0
    for choice, n in zip(np.atleast_1d(action) - first, sizes, strict=True):
        assert mask[start + int(choice)] == 1, f"took {action}, which {mask} rules out"
        start += n
