"""gymnasium environments as a sequence of tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch

from ..replay import ConfigError, Replay, Space, Spec, Transitions

# Episodes of evaluation are the same at each evaluation, and never those of training.
EVALUATION_SEED = 1_000_003


class EnvTask:
    """One environment, stepped in `num_envs` copies at once, and a separate one to evaluate in.

    Args:
        make: Builds one environment.
        name: What errors and directories call it.
    """

    def __init__(self, make: Callable[[], gymnasium.Env[Any, Any]], *, name: str, num_envs: int):
        self.name, self.num_envs, self._make = name, num_envs, make
        # NEXT_STEP autoreset, gymnasium's default and the form `Transitions` stores.
        self.envs = gymnasium.vector.SyncVectorEnv([make] * num_envs)
        self.spec = Spec(
            _space(self.envs.single_observation_space, f"observations of {name}"),
            _space(self.envs.single_action_space, f"actions of {name}"),
        )
        if self.spec.obs.discrete:
            raise ConfigError(
                f"The observations of {name} are numbered states (Discrete); Box is known so far. "
                "Wrap it in gymnasium.wrappers.TransformObservation, for example one-hot."
            )
        self.obs: np.ndarray | None = None
        self.episodes = Episodes(num_envs)

    def reset(self, *, seed: int | None) -> np.ndarray:
        """First observations `[N, *shape]` of new episodes."""
        self.obs, _ = self.envs.reset(seed=seed)
        self.episodes = Episodes(self.num_envs)
        return self.obs

    def step(self, action: np.ndarray) -> dict[str, Any]:
        """Act in every copy. Fields `[N, ...]`; `next_obs` is an episode's real last one."""
        next_obs, reward, terminated, truncated, _ = self.envs.step(action)
        self.obs = next_obs
        self.episodes.add(reward, np.logical_or(terminated, truncated))
        return {
            "action": action,
            "reward": reward.astype(np.float32),
            "terminated": terminated,
            "truncated": truncated,
            "next_obs": next_obs,
        }

    def evaluate(
        self, act: Callable[[np.ndarray], np.ndarray], *, episodes: int
    ) -> tuple[list[float], list[int]]:
        """Returns and lengths of whole episodes, played one after another."""
        env = self._make()
        returns, lengths = [], []
        try:
            for episode in range(episodes):
                obs, _ = env.reset(seed=EVALUATION_SEED + episode)
                total, length, ended = 0.0, 0, False
                while not ended:
                    obs, reward, terminated, truncated, _ = env.step(act(obs[None])[0])
                    total, length = total + float(reward), length + 1
                    ended = terminated or truncated
                returns.append(total)
                lengths.append(length)
        finally:
            env.close()
        return returns, lengths

    def close(self) -> None:
        self.envs.close()


@dataclass
class Episodes:
    """Returns of the episodes that ended since they were last taken."""

    num_envs: int
    ended: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._total = np.zeros(self.num_envs)

    def add(self, reward: np.ndarray, done: np.ndarray) -> None:
        self._total += reward
        if done.any():
            self.ended += self._total[done].tolist()
            self._total[done] = 0.0

    def take(self) -> list[float]:
        ended, self.ended = self.ended, []
        return ended


class EnvWorld:
    """A sequence of environments that share one spec.

    Raises:
        ConfigError: If their observations or actions differ.
    """

    on_data = False

    def __init__(self, tasks: list[EnvTask], *, seed: int):
        self.tasks, self.seed = tasks, seed
        self.name = "-".join(task.name for task in tasks)
        first = tasks[0].spec
        for task in tasks[1:]:
            if str(task.spec) != str(first):
                raise ConfigError(
                    f"Environments of one run must share their spaces: {tasks[0].name} has {first}, "
                    f"{task.name} has {task.spec}."
                )
        self.spec = Spec(first.obs, first.action, num_tasks=len(tasks))

    def begin(self, task: int, replay: Replay) -> None:
        """Start episodes of this task's environment."""
        replay.begin(task, None)
        _ring(replay).start(self.tasks[task].reset(seed=self.seed + task))

    def resume(
        self, task: int | None, replay: Replay, state: dict[str, Any], *, anew: bool = True
    ) -> None:
        """Put the replay back to where it was, in the middle of `task` or (None) between tasks.

        Args:
            anew: Begin new episodes; else those in progress are put back by the caller.
        """
        replay.load_state_dict(state)
        if task is None:
            return
        ring = _ring(replay)
        replay.begin(task, None)
        obs = self.tasks[task].reset(seed=self.seed + task + ring.time)
        if anew:
            ring.start(obs)

    def describe(self) -> str:
        """One line for a person."""
        return f"{self.name}, {self.tasks[0].num_envs} in parallel"

    def collect(self, task: int, learner: Any, replay: Replay) -> int:
        """Act once in every copy and remember it. Returns the environment steps taken."""
        env = self.tasks[task]
        action, extras = learner.act(env.obs)
        _ring(replay).add({**env.step(action), **extras}, task=task)
        return env.num_envs

    def episode_metrics(self, task: int) -> dict[str, float]:
        """The mean return of the episodes that ended since the last call."""
        ended = self.tasks[task].episodes.take()
        return {"return": float(np.mean(ended))} if ended else {}

    def close(self) -> None:
        for task in self.tasks:
            task.close()


def _ring(replay: Replay) -> Transitions:
    assert isinstance(replay.storage, Transitions)
    return replay.storage


def _space(space: gymnasium.Space[Any], what: str) -> Space:
    if isinstance(space, gymnasium.spaces.Discrete):
        n, start = int(space.n), int(space.start)
        if start:
            raise ConfigError(
                f"The {what} start at {start}; only Discrete spaces from 0 are known."
            )
        return Space((n,), torch.int64, low=0, high=n - 1, discrete=True)
    if isinstance(space, gymnasium.spaces.Box):
        dtype = torch.from_numpy(np.zeros(0, space.dtype)).dtype
        low, high = torch.from_numpy(space.low.copy()), torch.from_numpy(space.high.copy())
        return Space(tuple(space.shape), dtype, low=low, high=high)
    raise ConfigError(
        f"The {what} are a {type(space).__name__}; Box and Discrete are known so far."
    )
