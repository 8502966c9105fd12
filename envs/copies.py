"""Several copies of one environment, stepped together.

All kinds give the same `Step`: `next_obs` is an episode's real last observation, and an episode that
ended is followed by the next one's first observation at once. Each episode is reset with a seed of
its own, so that it can be played again from its seed and its actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv

from ..replay import DataError
from .spaces import Codec, codec

Make = Callable[..., gymnasium.Env[Any, Any]]


@dataclass(frozen=True)
class Step:
    """What N environments did.

    Attributes:
        next_obs: `[N, *shape]`, or a dict of these.
        reward: float32 `[N]`.
        terminated, truncated: bool `[N]`.
        began: Which of them are in a new episode now, bool `[N]`; None: none.
        first: Where they are now, `[N, *shape]`: `next_obs`, but for those that began.
        real: Which of them made a step at all; None: all.
    """

    next_obs: Any
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    began: np.ndarray | None
    first: Any
    real: np.ndarray | None = None


class Copies:
    """Copies in this process, one after another: the fastest way for cheap environments.

    Args:
        make: Builds one environment.
        name: What errors call it.
        num_envs: N.
        stack: Frames per observation, for the spec; frames themselves are single here.
        seed: Of the episodes.
    """

    def __init__(self, make: Make, *, name: str, num_envs: int, stack: int = 1, seed: int = 0):
        self.name, self.num_envs, self.seed = name, num_envs, seed
        self.envs = [make() for _ in range(num_envs)]
        self.obs_codec = codec(
            self.envs[0].observation_space, f"observations of {name}", stack=stack
        )
        self.action_codec = codec(self.envs[0].action_space, f"actions of {name}")
        self.episodes = [0] * num_envs  # Begun so far, by copy.
        self.actions: list[list[Any]] = [
            [] for _ in range(num_envs)
        ]  # Of the episodes in progress.

    def episode_seed(self, copy: int) -> int:
        """The seed of the episode that a copy is in."""
        return _seed(self.seed, copy, self.episodes[copy])

    def reset(self) -> Any:
        """First observations `[N, *shape]` of new episodes."""
        obs = self.empty_obs()
        for copy in range(self.num_envs):
            self._reset(copy, obs)
        return obs

    def empty_obs(self) -> Any:
        return _empty(self.obs_codec, self.num_envs)

    def _reset(self, copy: int, into: Any) -> None:
        self.episodes[copy] += 1
        self.actions[copy] = []
        try:
            obs, _ = self.envs[copy].reset(seed=self.episode_seed(copy))
        except Exception as error:
            raise DataError(self._blame(copy, f"raised {_said(error)} in reset")) from error
        self._put(into, copy, obs)

    def step(self, action: Any, only: np.ndarray | None = None) -> Step:
        """Act in every copy, or only in some.

        Args:
            action: `[N, *value_shape]`, or a dict of these.

        Raises:
            DataError: If an environment raises, or gives what its spaces do not allow; with the
                episode's seed and step.
        """
        n = self.num_envs
        next_obs, reward = self.empty_obs(), np.zeros(n, np.float32)
        terminated, truncated = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        ended = []
        for copy, env in enumerate(self.envs):
            if only is not None and not only[copy]:
                continue
            chosen = _pick(action, copy)
            self.actions[copy].append(chosen)
            try:
                obs, gained, dead, over, _ = env.step(self.action_codec.native(chosen))
            except Exception as error:
                raise DataError(self._blame(copy, f"raised {_said(error)}", chosen)) from error
            self._put(next_obs, copy, obs)
            try:
                reward[copy] = gained
            except (TypeError, ValueError) as error:
                raise DataError(self._blame(copy, f"gave the reward {gained!r}", chosen)) from error
            if not -np.inf < reward[copy] < np.inf:
                raise DataError(self._blame(copy, f"gave the reward {gained}", chosen))
            if dead or over:
                terminated[copy], truncated[copy] = dead, over
                ended.append(copy)
        if not ended:
            return Step(next_obs, reward, terminated, truncated, None, next_obs)
        began, first = np.zeros(n, np.bool_), _copied(next_obs)
        for copy in ended:
            self._reset(copy, first)
            began[copy] = True
        return Step(next_obs, reward, terminated, truncated, began, first)

    def _put(self, into: Any, copy: int, obs: Any) -> None:
        try:
            problem = put(into, copy, obs, self.obs_codec)
        except Exception as error:
            problem = f"gave an observation that does not fit its space: {_said(error)}"
        if problem:
            raise DataError(self._blame(copy, problem))

    def _blame(self, copy: int, what: str, action: Any = None) -> str:
        done = f", action {_short(action)}" if action is not None else ""
        which = f" (copy {copy} of {self.num_envs})" if self.num_envs > 1 else ""
        return (
            f"{self.name}{which} {what}. At step {len(self.actions[copy])} of the episode with seed "
            f"{self.episode_seed(copy)}{done}."
        )

    def play_again(self, actions: list[np.ndarray]) -> Any:
        """Bring every copy back to the middle of its episode, by its seed and its actions.

        Returns:
            The observations it has led to, `[N, *shape]`.
        """
        obs = self.empty_obs()
        for copy, env in enumerate(self.envs):
            seen, _ = env.reset(seed=self.episode_seed(copy))
            self.actions[copy] = list(actions[copy])
            for action in self.actions[copy]:
                seen = env.step(self.action_codec.native(action))[0]
            self._put(obs, copy, seen)
        return obs

    def close(self) -> None:
        for env in self.envs:
            env.close()


class Vector:
    """gymnasium's own vector environments, whenever they reset: in the next step, the same, or not.

    Args:
        envs: The vector environment.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any], *, name: str, stack: int = 1, seed: int = 0):
        self.envs, self.name, self.seed = envs, name, seed
        self.num_envs = int(envs.num_envs)
        self.obs_codec = codec(
            envs.single_observation_space, f"observations of {name}", stack=stack
        )
        self.action_codec = codec(envs.single_action_space, f"actions of {name}")
        mode = envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self.mode = AutoresetMode(mode)
        self.steps = 0
        self.episodes = [0] * self.num_envs
        self._ended = np.zeros(self.num_envs, np.bool_)

    def reset(self) -> Any:
        self.episodes = [count + 1 for count in self.episodes]
        self._ended[:] = False
        obs, _ = self._call("reset", lambda: self.envs.reset(seed=self._seeds()))
        return self._stored(obs)

    def _seeds(self) -> list[int | None]:
        return [_seed(self.seed, copy, count) for copy, count in enumerate(self.episodes)]

    def step(self, action: Any) -> Step:
        """Act in every copy; `real` is False for those that only began a new episode instead.

        Raises:
            DataError: As `Copies.step`, or if a worker died.
        """
        self.steps += 1
        native = self._native(action)
        obs, reward, terminated, truncated, infos = self._call(
            "step", lambda: self.envs.step(native)
        )
        reward = np.asarray(reward, np.float32)
        # Copies: some vector environments give the same arrays at each step.
        terminated, truncated = np.array(terminated, np.bool_), np.array(truncated, np.bool_)
        now = self._stored(obs)
        done = terminated | truncated
        if self.mode is AutoresetMode.NEXT_STEP:
            # Those that ended before have been reset by this step: its action did nothing.
            began, self._ended = self._ended, done & ~self._ended
            if not began.any():
                step = Step(now, reward, terminated, truncated, None, now)
            else:
                step = Step(now, reward, terminated, truncated, began, now, ~began)
        elif not done.any():
            step = Step(now, reward, terminated, truncated, None, now)
        elif self.mode is AutoresetMode.SAME_STEP:
            last = _copied(now)
            for copy in np.flatnonzero(done):
                put(last, copy, infos["final_obs"][copy], self.obs_codec)
            step = Step(last, reward, terminated, truncated, done, now)
        else:
            for copy in np.flatnonzero(done):
                self.episodes[copy] += 1
            options = {"reset_mask": done}
            first, _ = self._call(
                "reset", lambda: self.envs.reset(seed=self._seeds(), options=options)
            )
            step = Step(now, reward, terminated, truncated, done, self._stored(first))
        if not np.isfinite(reward).all():
            copy = int(np.flatnonzero(~np.isfinite(reward))[0])
            raise DataError(self._blame(f"gave the reward {reward[copy]} in copy {copy}"))
        return step

    def _call(self, what: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise DataError(self._blame(f"has lost one of its {self.num_envs} workers")) from error
        except DataError:
            raise
        except Exception as error:
            raise DataError(self._blame(f"raised {_said(error)} in {what}")) from error

    def _blame(self, what: str) -> str:
        return f"{self.name} {what}. At step {self.steps} since seed {self.seed}."

    def _stored(self, obs: Any) -> Any:
        stored = _empty(self.obs_codec, self.num_envs)
        for copy in range(self.num_envs):
            try:
                problem = put(stored, copy, _pick(obs, copy), self.obs_codec)
            except Exception as error:
                problem = f"gave an observation that does not fit its space: {_said(error)}"
            if problem:
                raise DataError(self._blame(f"{problem}, in copy {copy}"))
        return stored

    def _native(self, action: Any) -> Any:
        rows = [self.action_codec.native(_pick(action, copy)) for copy in range(self.num_envs)]
        return _stacked(rows)

    def close(self) -> None:
        if isinstance(self.envs, AsyncVectorEnv):
            self.envs.close(terminate=True)  # A dead worker would be waited for.
        else:
            self.envs.close()


def put(into: Any, copy: int, obs: Any, code: Codec) -> str | None:
    """Write one observation into its row; returns what is wrong with it, or None."""
    if code.parts is not None:
        if set(obs) != set(code.parts):
            return f"gave an observation with {sorted(obs)} instead of {sorted(code.parts)}"
        for name, part in code.parts.items():
            if problem := put(into[name], copy, obs[name], part):
                return f"{problem} (in {name!r})"
        return None
    value, row = code.stored(obs), into[copy]
    if value.shape != row.shape:
        return f"gave an observation of shape {list(value.shape)} instead of {list(row.shape)}"
    if value.dtype != code.dtype and not np.can_cast(value.dtype, code.dtype, "same_kind"):
        return f"gave an observation of {value.dtype} instead of {code.dtype}"
    into[copy] = value
    # NaN is on neither side of a bound.
    if code.low is not None and not ((value >= code.low) & (value <= code.high)).all():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            return f"gave an observation with NaN or infinity: {_short(value)}"
        return f"gave an observation outside of its space: {_short(value)}"
    return None


def _empty(code: Codec, n: int) -> Any:
    if code.parts is not None:
        return {name: _empty(part, n) for name, part in code.parts.items()}
    return np.empty((n, *code.shape), code.dtype)


def _seed(seed: int, copy: int, episode: int) -> int:
    """Of one episode: far from those of all others."""
    return int(np.random.SeedSequence((seed, copy, episode)).generate_state(1)[0])


def _pick(value: Any, copy: int) -> Any:
    if isinstance(value, Mapping):
        return {name: _pick(part, copy) for name, part in value.items()}
    return value[copy]


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(part) for name, part in value.items()}
    return value.copy()


def _stacked(rows: list[Any]) -> Any:
    if isinstance(rows[0], dict):
        return {name: _stacked([row[name] for row in rows]) for name in rows[0]}
    return np.stack(rows)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _short(value: Any) -> str:
    text = (
        np.array2string(np.asarray(value), precision=4, threshold=8)
        if not isinstance(value, dict)
        else str(value)
    )
    return text if len(text) < 200 else text[:200] + "..."
