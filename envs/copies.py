"""Several copies of one environment, stepped together.

All kinds return the same `Step`: `next_obs` is an episode's real last observation, and the next
episode's first observation follows in the same step. Each episode is reset with its own seed, so that
it can be replayed from its seed and its actions.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..replay import ConfigError, DataError
from .apart import Apart
from .checked import CHECKED_STEPS, Fault, reset_into, step_into
from .info_values import InfoFault, Picked, Rows
from .infos import Infos
from .opening import close, open_copies
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
from .unseen import seen

_SAID = 10  # So often is it said that a copy was started again.
Make = Callable[..., Any]  # An environment, or a vector environment.


class Copies:
    """Copies in this process, stepped one after another: for cheap environments nothing is faster.

    Args:
        make: Builds one environment.
        name: What errors call it.
        num_envs: N, the rows of every array.
        stack: Frames per observation, for the spec; frames themselves are single here.
        channels: "first" or "last", as in `codec`; None: inferred.
        seed: Seeds the episodes; each has its own seed (`seed_of_episode`).
        made: Environments that exist already, at most N.
        infos: Reads the fields of `info` to store, `{name: [N, ...]}`; None: there are none.
        retries: How often in a row a copy that fails is replaced by a new one.

    Attributes:
        first_info: The fields that came with the last `reset()`, `{name: [N, ...]}`.
        replay_broken: Whether a new copy plays the broken episode again, as an evaluation does, instead of
            the next one.
        on_replaced: Called with a copy that failed and the new one; or None.
    """

    def __init__(
        self,
        make: Make,
        *,
        name: str,
        num_envs: int,
        stack: int = 1,
        channels: str | None = None,
        seed: int = 0,
        made: Iterable[Any] = (),
        infos: Infos | None = None,
        retries: int = 0,
    ):
        self._make, self.retries, self._replaced = make, retries, 0
        self.replay_broken, self.on_replaced = False, None
        self.name, self.num_envs, self.seed = name, num_envs, seed
        self.infos = infos
        self.first_info: Rows = {}
        self.envs = open_copies(make, num_envs, made)
        try:
            self._prepare(stack, channels)
        except BaseException:
            self.close()
            raise

    on_replaced: Callable[[Any, Any], None] | None

    def _prepare(self, stack: int, channels: str | None) -> None:
        name, num_envs = self.name, self.num_envs
        first = self.envs[0]
        self.obs_codec = codec(
            first.observation_space, f"observations of {name}", stack=stack, channels=channels
        )
        self.action_codec = codec(first.action_space, f"actions of {name}", action=True)
        for env in self.envs:
            if (seen(env.observation_space), env.action_space) != (
                seen(first.observation_space),
                first.action_space,
            ):
                raise ConfigError(f"Copies of {name} differ in their spaces.")
        self._spaces = (seen(first.observation_space), first.action_space)
        self.episodes = [0] * num_envs  # Number begun in each copy.
        self.steps = [0] * num_envs  # Length so far of the episode in progress.
        self.actions: list[list[Any]] = [
            [] for _ in range(num_envs)
        ]  # The first `LONGEST_KEPT` of it.
        self._failed_in_a_row = [0] * num_envs
        self._apart = any(isinstance(env, Apart) for env in self.envs)
        self._checks_left = CHECKED_STEPS
        self._none = np.zeros(num_envs, np.bool_)
        self._none.flags.writeable = False  # Shared by all steps in which no episode ends.
        # The most common case by far, worth a shorter path: see `_step_alone`.
        self._alone = (
            num_envs == 1
            and self.obs_codec.plain
            and self.infos is None
            and not (self._apart or self.retries)
        )

    def episode_seed(self, copy: int) -> int:
        """The seed of the episode in progress in a copy."""
        return seed_of_episode(self.seed, copy, self.episodes[copy])

    def reset(self) -> Any:
        """First observations `[N, *shape]` of new episodes."""
        obs = self.empty_obs()
        picked = [self._reset(copy, obs) for copy in range(self.num_envs)]
        if self.infos is not None:
            self.first_info = self._info(picked, reset=True)
        return obs

    def empty_obs(self) -> Any:
        return zeros(self.obs_codec, self.num_envs)

    def _reset(self, copy: int, into: Any) -> Picked | None:
        self.episodes[copy] += 1
        while True:
            self.steps[copy], self.actions[copy] = 0, []
            try:
                env, seed = self.envs[copy], self.episode_seed(copy)
                check_bounds = self._checks_left > 0
                _, info = reset_into(
                    env, seed, into, copy, self.obs_codec, check_bounds=check_bounds
                )
            except Fault as fault:
                self._replace(copy, fault)
                self.episodes[copy] += not self.replay_broken
            else:
                return None if self.infos is None else self._pick(info, copy)

    def _replace(self, copy: int, fault: Fault, action: Any = None) -> None:
        """Put a new environment in the place of one that failed, and say so.

        Raises:
            DataError: If it has failed as often in a row as `retries` allows, or cannot be made again.
        """
        blamed = self._blame(copy, fault, action)
        self._failed_in_a_row[copy] += 1
        if (times := self._failed_in_a_row[copy]) > self.retries:
            again = (
                f" It was started again {self.retries} times (env_retry)." if self.retries else ""
            )
            # Caused by the user's own error, if there is one: `Fault` has nothing more to say.
            raise DataError(blamed + again) from fault.__cause__
        old = self.envs[copy]
        close([old])
        try:
            self.envs[copy] = new = self._make()
        except Exception as error:
            raise DataError(f"{blamed} It could not be started again: {error}") from error
        first = self._spaces
        if (seen(new.observation_space), new.action_space) != first:
            raise DataError(f"{blamed} Started again, it has other spaces.")
        if self.on_replaced is not None:
            self.on_replaced(old, new)
        self._replaced += 1
        if self._replaced <= _SAID:
            last = " This is not said again." if self._replaced == _SAID else ""
            warnings.warn(
                f"{blamed} It was started again ({times} of env_retry={self.retries}); what it did not "
                f"finish of its episode is left out.{last}",
                stacklevel=2,
            )

    def _pick(self, info: Any, copy: int, native: Any = None) -> Picked:
        assert self.infos is not None
        try:
            return self.infos.pick(info)
        except InfoFault as fault:
            raise DataError(self._blame(copy, Fault(fault.what), native)) from None

    def _info(
        self,
        picked: list[Picked | None],
        acts: np.ndarray | None = None,
        *,
        reset: bool = False,
    ) -> Rows:
        """Fields of all copies' infos.

        Args:
            acts: Copies that act next, or whose next action has a value that counts, bool `[N]`; None: all.
        """
        assert self.infos is not None
        return info_rows(
            self.infos,
            picked,
            acts,
            lambda copy, fault: self._blame(copy, fault),
            reset=reset,
        )

    def step(self, action: Any, only: np.ndarray | None = None) -> Step:
        """Act in every copy, or only in some, and return zeros as observations of the others.

        Args:
            action: `[N, *value_shape]`, or a dict of these.

        Raises:
            DataError: If an environment raises, or returns what its spaces do not allow. The message
                has the episode's seed and step, by which the error can be reproduced.
        """
        if self._alone and self._checks_left <= 0 and only is None and not isinstance(action, dict):
            return self._step_alone(action[0])
        n = self.num_envs
        next_obs, reward = self.empty_obs(), np.zeros(n)
        ended: list[tuple[int, bool, bool]] = []
        several, check_bounds = isinstance(action, dict), self._checks_left > 0
        code, to_native = self.obs_codec, self.action_codec.native
        self._checks_left -= 1
        infos = self.infos
        picked: list[Picked | None] = [None] * n if infos is not None else []
        broken: list[int] = []
        if self._apart:  # All processes at once.
            self._begin_steps(action, only)
        for copy, env in enumerate(self.envs):
            if only is not None and not only[copy]:
                continue
            chosen = row_of(action, copy) if several else action[copy]
            self.steps[copy] += 1
            if self.steps[copy] <= LONGEST_KEPT:
                self.actions[copy].append(chosen)
            native = to_native(chosen)
            try:
                _, gained, dead, over, info = step_into(
                    env, native, next_obs, copy, code, check_bounds=check_bounds
                )
            except Fault as fault:
                self._replace(copy, fault, native)
                broken.append(copy)
                continue
            if infos is not None:
                picked[copy] = self._pick(info, copy, native)
            reward[copy] = gained
            if dead or over:
                ended.append((copy, dead, over))
        if not (ended or broken):  # No arrays to copy: `first` is `next_obs` itself.
            rows = None if infos is None else self._info(picked, only)
            return Step(
                next_obs, reward, self._none, self._none, None, next_obs, info=rows, first_info=rows
            )
        return self._with_new_episodes((next_obs, reward), ended, broken, picked, only)

    def _begin_steps(self, action: Any, only: np.ndarray | None) -> None:
        for copy, env in enumerate(self.envs):
            if isinstance(env, Apart) and (only is None or only[copy]):
                chosen = row_of(action, copy) if isinstance(action, dict) else action[copy]
                with contextlib.suppress(Fault):  # `step` finds it too.
                    env.begin_step(self.action_codec.native(chosen))

    def _with_new_episodes(
        self,
        made: tuple[Any, np.ndarray],
        ended: list[tuple[int, bool, bool]],
        broken: list[int],
        picked: list[Picked | None],
        only: np.ndarray | None,
    ) -> Step:
        """The step, after which copies whose episode has ended, and those that were replaced, begin one.

        Args:
            made: `next_obs` and `reward`.
            ended: Copies whose episode has ended, whether terminated, whether truncated.
        """
        (next_obs, reward), n, infos = made, self.num_envs, self.infos
        began, terminated, truncated, replaced = np.zeros((4, n), np.bool_)
        began[broken] = replaced[broken] = True
        for copy, dead, over in ended:
            began[copy], terminated[copy], truncated[copy] = True, dead, over
            self._failed_in_a_row[copy] = 0
        acts = ~replaced if only is None else only & ~replaced
        first = copied(next_obs)
        rows = None if infos is None else self._info(picked, acts & ~terminated)
        # After `_info` has read the last infos, which a reset would replace.
        for copy in np.flatnonzero(began).tolist():
            self.episodes[copy] -= self.replay_broken and bool(replaced[copy])
            new = self._reset(copy, first)
            if infos is not None:
                picked[copy] = new
        first_rows = None if infos is None else self._info(picked, began, reset=True)
        step = Step(next_obs, reward, terminated, truncated, began, first, None, rows, first_rows)
        return step._replace(real=acts, broken=replaced) if broken else step

    def _step_alone(self, chosen: Any) -> Step:
        """`step` for a single copy whose observations need no conversion: half the work."""
        self.steps[0] += 1
        if self.steps[0] <= LONGEST_KEPT:
            self.actions[0].append(chosen)
        code, native = self.obs_codec, self.action_codec.native(chosen)
        next_obs = np.empty((1, *code.shape), code.dtype)
        try:
            _, gained, dead, over, _ = step_into(
                self.envs[0], native, next_obs, 0, code, check_bounds=False
            )
        except Fault as fault:
            raise DataError(self._blame(0, fault, native)) from fault.__cause__
        reward = np.array((gained,), np.float64)
        if not (dead or over):
            return Step(next_obs, reward, self._none, self._none, None, next_obs)
        first = next_obs.copy()
        self._reset(0, first)
        terminated, truncated, began = np.array(((dead,), (over,), (True,)))
        return Step(next_obs, reward, terminated, truncated, began, first)

    def _blame(self, copy: int, fault: Fault, action: Any = None) -> str:
        return blame(
            f"{self.name}{copy_in_words(copy, self.num_envs)} {fault.what}",
            f"step {self.steps[copy]} of the episode with seed {self.episode_seed(copy)}",
            action,
            self.envs[copy].action_space,
        )

    def play_again(self) -> Any:
        """Bring every copy back to where it was in its episode, by replaying its seed and `actions`.

        Returns:
            The observations at the end, `[N, *shape]`; None if some actions were not stored, or an
            environment raised.
        """
        if self.steps != [len(actions) for actions in self.actions]:
            return None
        obs, code = self.empty_obs(), self.obs_codec
        try:
            for copy, env in enumerate(self.envs):
                reset_into(env, self.episode_seed(copy), obs, copy, code)
                for action in self.actions[copy]:
                    step_into(
                        env, self.action_codec.native(action), obs, copy, code, check_bounds=False
                    )
        except Fault:
            return None
        return obs

    def restart(self, step: Step, which: np.ndarray) -> Step | None:
        """The step, with new episodes begun in those copies, bool `[N]`, whose episodes did not end in it."""
        first = self.empty_obs()
        picked: list[Picked | None] = [None] * self.num_envs
        for copy in np.flatnonzero(which).tolist():
            picked[copy] = self._reset(copy, first)
        fresh = None if self.infos is None else self._info(picked, which, reset=True)
        return with_new_episodes(step, which, first, fresh)

    def close(self) -> None:
        close(self.envs)
