"""gymnasium's own vector environments, as steps of several copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from ..replay import DataError
from .checked import CHECKED_STEPS, Fault, describe_error, write_checked
from .info_values import InfoFault, Picked, Rows
from .infos import Infos
from .not_an_environment import reward_fault
from .opening import close
from .spaces import codec, zeros
from .step import (
    LONGEST_KEPT,
    Step,
    blame,
    copied,
    copy_in_words,
    info_rows,
    row_of,
    seed_of_episode,
    with_new_episodes,
)
from .workers import PICKED, Workers, lost_worker, terminate


class Vector:
    """gymnasium's own vector environments, in any autoreset mode: next step, same step, or disabled.

    Args:
        envs: The vector environment, of N environments.
        infos: Reads the fields of `info` to store, `{name: [N, ...]}`; None: there are none.

    Attributes:
        ended: Copies that the next step only resets, ignoring their action, bool `[N]`.
        first_info: The fields that came with the last `reset()`, `{name: [N, ...]}`.
    """

    def __init__(
        self,
        envs: VectorEnv[Any, Any, Any],
        *,
        name: str,
        stack: int = 1,
        channels: str | None = None,
        seed: int = 0,
        infos: Infos | None = None,
    ):
        self.envs, self.name, self.seed = envs, name, seed
        self.infos = infos
        self.first_info: Rows = {}
        self.num_envs = int(envs.num_envs)
        self.obs_codec = codec(
            envs.single_observation_space,
            f"observations of {name}",
            stack=stack,
            channels=channels,
        )
        self.action_codec = codec(envs.single_action_space, f"actions of {name}", action=True)
        # gymnasium 1.0 had only this mode, and no entry for it.
        mode = envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self.mode = AutoresetMode(mode)
        # Only these two accept a list of seeds and a reset mask; others have one seed for all copies.
        self._seed_each = isinstance(envs.unwrapped, (SyncVectorEnv, AsyncVectorEnv))
        self.episodes = [0] * self.num_envs
        self.steps = [0] * self.num_envs  # Steps since each copy was seeded.
        self.actions: list[list[Any]] = [
            [] for _ in range(self.num_envs)
        ]  # Only `Workers` can be replayed from them.
        self.ended = np.zeros(self.num_envs, np.bool_)
        self._checks_left = CHECKED_STEPS

    def reset(self) -> Any:
        self.episodes = [count + 1 for count in self.episodes]
        self.steps = [0] * self.num_envs
        self.actions = [[] for _ in range(self.num_envs)]
        self.ended[:] = False
        seed: Any = [self._episode_seed(copy) for copy in range(self.num_envs)]
        obs, infos = self._call(lambda: self.envs.reset(seed=seed if self._seed_each else seed[0]))
        if self.infos is not None:
            self.first_info = self._info(self._picked(infos), reset=True)
        return self._stored(obs)

    def _picked(self, infos: Any, native: Any = None) -> list[Picked | None]:
        """The fields of each copy's info, None for copies without one."""
        assert self.infos is not None
        try:
            if isinstance(self.envs, Workers):
                return list(infos.get(PICKED, [None] * self.num_envs))
            return self.infos.of_vector(infos, self.num_envs)
        except InfoFault as fault:
            raise DataError(self._blame(Fault(fault.what, fault.copy), native)) from None

    def _info(
        self,
        picked: list[Picked | None],
        acts: np.ndarray | None = None,
        *,
        reset: bool = False,
    ) -> Rows:
        """Fields of all copies' infos, `{name: [N, ...]}`.

        Args:
            acts: Copies that act next, bool `[N]`; None: all.
        """
        assert self.infos is not None
        return info_rows(
            self.infos,
            picked,
            acts,
            lambda copy, fault: self._blame(Fault(fault.what, copy)),
            reset=reset,
        )

    def _episode_seed(self, copy: int) -> int:
        return seed_of_episode(self.seed, copy, self.episodes[copy])

    def step(self, action: Any) -> Step:
        """Act in every copy; `real` is False for copies that began a new episode instead.

        Raises:
            DataError: As `Copies.step`, or if a worker died.
        """
        self.steps = [count + 1 for count in self.steps]
        self._checks_left -= 1
        if isinstance(self.envs, Workers):
            for copy, actions in enumerate(self.actions):
                if self.steps[copy] <= LONGEST_KEPT:
                    actions.append(row_of(action, copy))
        native = self.action_codec.native(action)
        obs, reward, terminated, truncated, infos = self._call(
            lambda: self.envs.step(native), native
        )
        if np.shape(reward) != (self.num_envs,):
            raise DataError(self._blame(Fault(reward_fault(reward)), native))
        # Copied, because some vector environments return the same arrays at each step.
        reward = np.array(reward, np.float64)
        terminated, truncated = np.array(terminated, np.bool_), np.array(truncated, np.bool_)
        if not np.isfinite(reward).all():
            copy = int(np.flatnonzero(~np.isfinite(reward))[0])
            raise DataError(self._blame(Fault(f"returned the reward {reward[copy]}", copy), native))
        now = self._stored(obs, native)
        done = terminated | truncated
        picked = [] if self.infos is None else self._picked(infos, native)
        if self.mode is AutoresetMode.NEXT_STEP:
            # Copies whose episode had ended were reset by this step, which ignored their action.
            began, self.ended = self.ended, done & ~self.ended
            rows = None if self.infos is None else self._info(picked, ~terminated)
            if not began.any():
                return Step(now, reward, terminated, truncated, None, now, None, rows, rows)
            return Step(now, reward, terminated, truncated, began, now, ~began, rows, rows)
        if not done.any():
            rows = None if self.infos is None else self._info(picked)
            return Step(now, reward, terminated, truncated, None, now, None, rows, rows)
        if self.mode is AutoresetMode.SAME_STEP:
            last = self._last(now, infos, done)
            if self.infos is None:
                return Step(last, reward, terminated, truncated, done, now)
            first_rows = self._info(picked, reset=True)
            rows = self._info(self._last_picked(picked, infos, done), ~terminated)
            return Step(last, reward, terminated, truncated, done, now, None, rows, first_rows)
        rows = None if self.infos is None else self._info(picked, ~terminated)
        first, fresh = self._reset(done)
        if rows is None:
            return Step(now, reward, terminated, truncated, done, first)
        began_info = [new if d else old for new, old, d in zip(fresh, picked, done, strict=True)]
        first_rows = self._info(began_info, done, reset=True)
        return Step(now, reward, terminated, truncated, done, first, None, rows, first_rows)

    def restart(self, step: Step, which: np.ndarray) -> Step | None:
        """As `Copies.restart`; None if copies cannot be reset one by one."""
        if not self._seed_each:
            return None
        self.ended &= ~which
        first, picked = self._reset(which)
        fresh = None if self.infos is None else self._info(picked, which, reset=True)
        return with_new_episodes(step, which, first, fresh)

    def _last_picked(
        self, picked: list[Picked | None], infos: Any, done: np.ndarray
    ) -> list[Picked | None]:
        """The fields of each copy's info, for copies reset in this step those of the old episode's end."""
        assert self.infos is not None
        try:
            return [
                self.infos.final(infos, copy) if done[copy] else one
                for copy, one in enumerate(picked)
            ]
        except InfoFault as fault:
            raise DataError(self._blame(Fault(fault.what, fault.copy))) from None

    def _reset(self, done: np.ndarray) -> tuple[Any, list[Picked | None]]:
        """Begin new episodes in some copies; returns the observations and the info fields of all."""
        for copy in np.flatnonzero(done).tolist():
            self.episodes[copy] += 1
            if self._seed_each:
                self.steps[copy], self.actions[copy] = 0, []
        seed: Any = (
            None  # A seed for all copies would repeat their episodes, so their own stream goes on.
        )
        if self._seed_each:
            seed = [self._episode_seed(copy) for copy in range(self.num_envs)]
        options = {"reset_mask": done.copy()}
        obs, infos = self._call(lambda: self.envs.reset(seed=seed, options=options))
        picked = [] if self.infos is None else self._picked(infos)
        return self._stored(obs), picked

    def _last(self, now: Any, infos: Any, done: np.ndarray) -> Any:
        """`now`, but with the real last observations of copies that were reset in the same step."""
        last = copied(now)
        for copy in np.flatnonzero(done).tolist():
            problem: str | None = "returned no `final_obs` in its infos"
            if "final_obs" in infos:
                final, check_bounds = row_of(infos["final_obs"], copy), self._checks_left >= 0
                problem = write_checked(
                    last, copy, final, self.obs_codec, check_bounds=check_bounds
                )
            if problem:
                raise DataError(self._blame(Fault(problem, copy)))
        return last

    def _call(self, call: Callable[[], Any], native: Any = None) -> Any:
        try:
            return call()
        except Fault as fault:
            raise DataError(self._blame(fault, native)) from fault
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise DataError(self._blame(lost_worker(self.envs), native)) from error
        except Exception as error:
            where = "" if native is not None else " in reset"
            raise DataError(
                self._blame(Fault(f"raised {describe_error(error)}{where}"), native)
            ) from error

    def _blame(self, fault: Fault, native: Any = None) -> str:
        known = fault.copy is not None
        copy = fault.copy or 0
        seed = self._episode_seed(copy)
        # Copies that reset themselves choose the seeds of later episodes, so these are unknown.
        own = self._seed_each and self.mode is AutoresetMode.DISABLED
        since = "of the episode with seed" if own else "since the reset with seed"
        action = row_of(native, copy) if known and native is not None else None
        return blame(
            f"{self.name}{copy_in_words(copy, self.num_envs) if known else ''} {fault.what}",
            f"step {self.steps[copy]} {since} {seed}",
            action,
            self.envs.single_action_space,
        )

    def _stored(self, obs: Any, native: Any = None) -> Any:
        stored, code, check_bounds = (
            zeros(self.obs_codec, self.num_envs),
            self.obs_codec,
            self._checks_left >= 0,
        )
        if write_checked(stored, ..., obs, code, check_bounds=check_bounds) is None:
            return stored
        # Checked together first, which is fast; one by one only to name the copy at fault.
        for copy in range(self.num_envs):
            if problem := write_checked(
                stored, copy, row_of(obs, copy), code, check_bounds=check_bounds
            ):
                raise DataError(self._blame(Fault(problem, copy), native))
        return stored

    def play_again(self) -> Any:
        """As `Copies.play_again`; None if episodes do not start from seeds of ours."""
        lengths = [len(actions) for actions in self.actions]
        if not isinstance(self.envs, Workers) or self.steps != lengths:
            return None
        native = self.action_codec.native
        actions = [[native(action) for action in actions] for actions in self.actions]
        seeds = [self._episode_seed(copy) for copy in range(self.num_envs)]
        obs = zeros(self.obs_codec, self.num_envs)
        for copy, last in enumerate(self.envs.play_again(seeds, actions)):
            if last is None:
                return None
            write_checked(obs, copy, last, self.obs_codec, check_bounds=False)
        return obs

    def close(self) -> None:
        if isinstance(self.envs, AsyncVectorEnv):
            terminate(self.envs)
        else:
            close([self.envs])
