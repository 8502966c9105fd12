"""Shares the running statistics of gymnasium's wrappers NormalizeObservation and NormalizeReward.

Each copy of an environment has its own statistics, and those of evaluation copies would start empty.
Here the training copies share one set, and evaluation uses it, frozen. Rewards are not normalised in
evaluation, so that returns can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.wrappers import NormalizeObservation, NormalizeReward
from gymnasium.wrappers.utils import RunningMeanStd
from gymnasium.wrappers.vector import NormalizeObservation as NormalizeObservations
from gymnasium.wrappers.vector import NormalizeReward as NormalizeRewards

from ..replay.structure import array

_OF_REWARDS = (NormalizeReward, NormalizeRewards)
_NORMALIZING = (NormalizeObservation, NormalizeObservations, *_OF_REWARDS)


def layers(env: Any) -> Iterator[Any]:
    """The wrappers around an environment, outermost first."""
    while isinstance(env, (gymnasium.Wrapper, VectorWrapper)):
        yield env
        env = env.env


def normalizing(env: Any) -> list[Any]:
    """An environment's wrappers that keep statistics, outermost first."""
    return [layer for layer in layers(env) if isinstance(layer, _NORMALIZING)]


def normalizes_rewards(env: Any) -> bool:
    """Whether an environment's rewards are divided by a running standard deviation."""
    return any(isinstance(layer, _OF_REWARDS) for each in _copies(env) for layer in layers(each))


def normalizes_obs(env: Any) -> bool:
    """Whether an environment's observations are normalised by running statistics."""
    kinds = (NormalizeObservation, NormalizeObservations)
    return any(isinstance(layer, kinds) for each in _copies(env) for layer in layers(each))


def _copies(env: Any) -> list[Any]:
    """The environment, and the copies in it if it is a vector environment in this process."""
    inside = env.unwrapped if isinstance(env, VectorEnv) else None
    return [env, *inside.envs] if isinstance(inside, SyncVectorEnv) else [env]


class RunningStatistics:
    """The statistics of an environment's copies in this process.

    Args:
        envs: The training copies, or a vector environment of them; they share the first copy's
            statistics (float64) from now on.
    """

    def __init__(self, envs: Any):
        self._groups = _groups(envs)
        self._shared = [[_kept(layer) for layer in group[0]] for group in self._groups if group]
        # Restored by `thaw`: a user may have frozen statistics found earlier.
        self._updating = [layer.update_running_mean for layer in _each(self._groups)]
        self._lend(self._groups)

    def freeze(self, envs: Any = None) -> None:
        """Let copies use the statistics without changing them, and leave rewards unchanged.

        Args:
            envs: Evaluation copies; None: the training copies, until `thaw`.
        """
        groups = self._groups if envs is None else _groups(envs)
        self._lend(groups)
        for layer in _each(groups):
            layer.update_running_mean = False
            if isinstance(layer, _OF_REWARDS):
                layer.return_rms = _as_they_are(layer.epsilon)

    def thaw(self) -> None:
        """Let the training copies update the statistics again."""
        self._lend(self._groups)
        self._resume_updating()
        for layer in _each(self._groups):
            if isinstance(layer, _OF_REWARDS):
                _set_return(layer, np.zeros_like(_return(layer)))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, steps of the training copies do not change the statistics."""
        for layer in _each(self._groups):
            layer.update_running_mean = False
        try:
            yield
        finally:
            self._resume_updating()

    def _resume_updating(self) -> None:
        for layer, updates in zip(_each(self._groups), self._updating, strict=True):
            layer.update_running_mean = updates

    def replace(self, old: Any, new: Any) -> None:
        """Let a copy that takes another one's place go on with the statistics of that one."""
        before, now = normalizing(old), normalizing(new)
        for was, layer in zip(before, now, strict=False):
            layer.update_running_mean = was.update_running_mean
            if isinstance(layer, _OF_REWARDS):
                layer.return_rms = was.return_rms
            else:
                layer.obs_rms = was.obs_rms
        for group in self._groups:
            for i, copy in enumerate(group):
                if copy and copy == before:
                    group[i] = now

    def load_shared(self, state: dict[str, Any]) -> None:
        """Load the statistics alone, without the returns of episodes in progress."""
        for shared, saved in zip(self._shared, state["shared"], strict=True):
            for kept, values in zip(shared, saved, strict=True):
                for part in ("mean", "var"):
                    array("fiu", *np.shape(getattr(kept, part)))(values[part], f"running.{part}")
                kept.mean, kept.var = np.array(values["mean"]), np.array(values["var"])
                kept.count = float(values["count"])

    def _lend(self, groups: Sequence[Sequence[Sequence[Any]]]) -> None:
        for group, shared in zip(groups, self._shared, strict=False):
            for copy in group:
                # Not strict: a factory may wrap copies differently, and extra wrappers keep their own.
                for layer, kept in zip(copy, shared, strict=False):
                    if isinstance(layer, _OF_REWARDS):
                        layer.return_rms = kept
                    else:
                        layer.obs_rms = kept

    def state_dict(self) -> dict[str, Any]:
        """The statistics, and the discounted returns of the episodes in progress."""
        shared = [
            [{"mean": s.mean, "var": s.var, "count": s.count} for s in shared]
            for shared in self._shared
        ]
        rewards = [layer for layer in _each(self._groups) if isinstance(layer, _OF_REWARDS)]
        return {"shared": shared, "returns": [np.array(_return(layer)) for layer in rewards]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._lend(self._groups)  # Unpickled environments have brought their own statistics.
        self.load_shared(state)
        rewards = [layer for layer in _each(self._groups) if isinstance(layer, _OF_REWARDS)]
        for layer, value in zip(rewards, state["returns"], strict=True):
            _set_return(layer, np.array(value))


def _return(layer: Any) -> Any:
    # gymnasium names it differently in its single and its vector wrapper.
    single = isinstance(layer, NormalizeReward)
    return layer.discounted_reward if single else layer.accumulated_reward


def _set_return(layer: Any, value: np.ndarray) -> None:
    setattr(
        layer,
        "discounted_reward" if isinstance(layer, NormalizeReward) else "accumulated_reward",
        value,
    )


def _groups(envs: Any) -> list[list[list[Any]]]:
    """Layers `[group][copy][layer]`: those around a vector environment, then those in its copies."""
    if not isinstance(envs, VectorEnv):
        return [[normalizing(env) for env in envs]]
    return [[normalizing(envs)], [normalizing(env) for env in _copies(envs)[1:]]]


def _each(groups: Sequence[Sequence[Sequence[Any]]]) -> Iterator[Any]:
    return (layer for group in groups for copy in group for layer in copy)


def _kept(layer: Any) -> Any:
    return layer.return_rms if isinstance(layer, _OF_REWARDS) else layer.obs_rms


def _as_they_are(epsilon: float) -> Any:
    """Statistics that leave rewards unchanged: the wrapper divides by sqrt(variance + epsilon)."""
    one = RunningMeanStd(shape=())
    one.var = np.array(1.0 - epsilon)
    return one
