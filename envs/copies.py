"""Several copies of one environment, stepped together.

All kinds give the same `Step`: `next_obs` is an episode's real last observation, and an episode that
ended is followed by the next one's first observation at once. Each episode is reset with a seed of
its own, so that it can be played again from its seed and its actions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from ..replay import ConfigError, DataError
from .infos import InfoFault, Infos, Picked, Rows
from .opening import close, open_copies
from .refused_environments import reward_fault
from .spaces import codec, zeros
from .unseen import seen
from .workers import PICKED, WARY, Fault, Workers, end, lost, put, reset_into, said, step_into

Make = Callable[..., Any]  # An environment, or a vector environment.

# Actions of an episode that are kept to play it again: an episode may have no end.
_LONGEST = 100_000


class Step(NamedTuple):
    """What N environments did.

    Attributes:
        next_obs: `[N, *shape]`, or a dict of these.
        reward: float64 `[N]`, as returns are summed; the replay keeps float32.
        terminated, truncated: bool `[N]`.
        began: Which of them are in a new episode now, bool `[N]`; None: none.
        first: Where they are now, `[N, *shape]`: `next_obs`, but for those that began.
        real: Which of them made a step at all; None: all.
        info: Fields of the info that came with `next_obs`, `{name: [N, ...]}`; None: none are kept.
        first_info: Those that came with `first`.
    """

    next_obs: Any
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    began: np.ndarray | None
    first: Any
    real: np.ndarray | None = None
    info: Rows | None = None
    first_info: Rows | None = None


class Copies:
    """Copies in this process, one after another: cheap ones are slowed down by any other way.

    Args:
        make: Builds one environment.
        name: What errors call it.
        num_envs: N.
        stack: Frames per observation, for the spec; frames themselves are single here.
        channels: Where images have them, as in `codec`.
        seed: Of the episodes.
        made: Those of them that exist already.
        infos: Reads the fields of `info` that are kept; None: none are.

    Attributes:
        first_info: Those that came with the last `reset()`.
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
    ):
        self.name, self.num_envs, self.seed = name, num_envs, seed
        self.infos = infos
        self.first_info: Rows = {}
        self.envs = open_copies(make, num_envs, made)
        try:
            self._prepare(stack, channels)
        except BaseException:
            self.close()
            raise

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
                raise ConfigError(f"{name}: copies of it differ in their spaces.")
        self.episodes = [0] * num_envs  # Begun so far, by copy.
        self.steps = [0] * num_envs  # Of the episodes in progress.
        self.actions: list[list[Any]] = [[] for _ in range(num_envs)]  # Their first ones.
        self._wary = WARY
        self._none = np.zeros(num_envs, np.bool_)
        self._none.flags.writeable = False  # It is given again and again.
        self._alone = num_envs == 1 and self.obs_codec.plain and self.infos is None

    def episode_seed(self, copy: int) -> int:
        """The seed of the episode that a copy is in."""
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
        self.steps[copy], self.actions[copy] = 0, []
        try:
            env, seed = self.envs[copy], self.episode_seed(copy)
            wary = self._wary > 0
            _, info = reset_into(env, seed, into, copy, self.obs_codec, wary=wary)
        except Fault as fault:
            raise DataError(self._blame(copy, fault)) from fault.__cause__
        return None if self.infos is None else self._pick(info, copy)

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
            acts: Copies that act next, or whose next action's value counts; None: all.
        """
        assert self.infos is not None
        return _rows(
            self.infos,
            picked,
            acts,
            lambda copy, fault: self._blame(copy, fault),
            reset=reset,
        )

    def step(self, action: Any, only: np.ndarray | None = None) -> Step:
        """Act in every copy, or only in some; the observations of the others are zeros then.

        Args:
            action: `[N, *value_shape]`, or a dict of these.

        Raises:
            DataError: If an environment raises, or gives what its spaces do not allow; with the
                episode's seed and step.
        """
        if self._alone and self._wary <= 0 and only is None and not isinstance(action, dict):
            return self._step_alone(action[0])
        n = self.num_envs
        next_obs, reward = self.empty_obs(), np.zeros(n)
        ended: list[tuple[int, bool, bool]] = []
        several, wary = isinstance(action, dict), self._wary > 0
        code, to_native = self.obs_codec, self.action_codec.native
        self._wary -= 1
        infos = self.infos
        picked: list[Picked | None] = [None] * n if infos is not None else []
        for copy, env in enumerate(self.envs):
            if only is not None and not only[copy]:
                continue
            chosen = _pick(action, copy) if several else action[copy]
            self.steps[copy] += 1
            if self.steps[copy] <= _LONGEST:
                self.actions[copy].append(chosen)
            native = to_native(chosen)
            try:
                _, gained, dead, over, info = step_into(
                    env, native, next_obs, copy, code, wary=wary
                )
            except Fault as fault:
                raise DataError(self._blame(copy, fault, native)) from fault.__cause__
            if infos is not None:
                picked[copy] = self._pick(info, copy, native)
            reward[copy] = gained
            if dead or over:
                ended.append((copy, dead, over))
        if not ended:
            rows = None if infos is None else self._info(picked, only)
            return Step(
                next_obs, reward, self._none, self._none, None, next_obs, info=rows, first_info=rows
            )
        began, terminated, truncated = np.zeros((3, n), np.bool_)
        first = _copied(next_obs)
        for copy, dead, over in ended:
            began[copy], terminated[copy], truncated[copy] = True, dead, over
        if infos is None:
            for copy, _, _ in ended:
                self._reset(copy, first)
            return Step(next_obs, reward, terminated, truncated, began, first)
        rows = self._info(picked, ~terminated if only is None else only & ~terminated)
        for copy, _, _ in ended:
            picked[copy] = self._reset(copy, first)
        first_rows = self._info(picked, began, reset=True)
        return Step(next_obs, reward, terminated, truncated, began, first, None, rows, first_rows)

    def _step_alone(self, chosen: Any) -> Step:
        """As `step`, of a single copy whose observations are stored as they come: half of the work."""
        self.steps[0] += 1
        if self.steps[0] <= _LONGEST:
            self.actions[0].append(chosen)
        code, native = self.obs_codec, self.action_codec.native(chosen)
        next_obs = np.empty((1, *code.shape), code.dtype)
        try:
            _, gained, dead, over, _ = step_into(
                self.envs[0], native, next_obs, 0, code, wary=False
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
        return _blame(
            f"{self.name}{_which(copy, self.num_envs)} {fault.what}",
            f"step {self.steps[copy]} of the episode with seed {self.episode_seed(copy)}",
            action,
            self.envs[copy].action_space,
        )

    def play_again(self) -> Any:
        """Bring every copy back to the middle of its episode, by its seed and its `actions`.

        Returns:
            The observations that led to, `[N, *shape]`; None where actions are missing, or lead
            elsewhere this time.
        """
        if self.steps != [len(actions) for actions in self.actions]:
            return None
        obs, code = self.empty_obs(), self.obs_codec
        try:
            for copy, env in enumerate(self.envs):
                reset_into(env, self.episode_seed(copy), obs, copy, code)
                for action in self.actions[copy]:
                    step_into(env, self.action_codec.native(action), obs, copy, code, wary=False)
        except Fault:
            return None
        return obs

    def restart(self, step: Step, which: np.ndarray) -> Step | None:
        """The step, with new episodes in some copies, bool `[N]`, that did not end in it."""
        first = self.empty_obs()
        picked: list[Picked | None] = [None] * self.num_envs
        for copy in np.flatnonzero(which).tolist():
            picked[copy] = self._reset(copy, first)
        fresh = None if self.infos is None else self._info(picked, which, reset=True)
        return _begun(step, which, first, fresh)

    def close(self) -> None:
        close(self.envs)


class Vector:
    """gymnasium's own vector environments, whenever they reset: in the next step, the same, or not.

    Args:
        envs: The vector environment.
        infos: As of `Copies`.

    Attributes:
        ended: Copies that the next step only resets, bool `[N]`.
        first_info: As of `Copies`.
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
        mode = envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self.mode = AutoresetMode(mode)
        # Others take one seed for all.
        self._seed_each = isinstance(envs.unwrapped, (SyncVectorEnv, AsyncVectorEnv))
        self.episodes = [0] * self.num_envs
        self.steps = [0] * self.num_envs  # Since each copy was given a seed.
        self.actions: list[list[Any]] = [[] for _ in range(self.num_envs)]  # Of workers only.
        self.ended = np.zeros(self.num_envs, np.bool_)
        self._wary = WARY

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
        """The fields of each copy's info."""
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
        """As of `Copies`."""
        assert self.infos is not None
        return _rows(
            self.infos,
            picked,
            acts,
            lambda copy, fault: self._blame(Fault(fault.what, copy)),
            reset=reset,
        )

    def _episode_seed(self, copy: int) -> int:
        return seed_of_episode(self.seed, copy, self.episodes[copy])

    def step(self, action: Any) -> Step:
        """Act in every copy; `real` is False for those that only began a new episode instead.

        Raises:
            DataError: As `Copies.step`, or if a worker died.
        """
        self.steps = [count + 1 for count in self.steps]
        self._wary -= 1
        if isinstance(self.envs, Workers):
            for copy, actions in enumerate(self.actions):
                if self.steps[copy] <= _LONGEST:
                    actions.append(_pick(action, copy))
        native = self.action_codec.native(action)
        obs, reward, terminated, truncated, infos = self._call(
            lambda: self.envs.step(native), native
        )
        if np.shape(reward) != (self.num_envs,):
            raise DataError(self._blame(Fault(reward_fault(reward)), native))
        # Copies: some vector environments give the same arrays at each step.
        reward = np.array(reward, np.float64)
        terminated, truncated = np.array(terminated, np.bool_), np.array(truncated, np.bool_)
        if not np.isfinite(reward).all():
            copy = int(np.flatnonzero(~np.isfinite(reward))[0])
            raise DataError(self._blame(Fault(f"gave the reward {reward[copy]}", copy), native))
        now = self._stored(obs, native)
        done = terminated | truncated
        picked = [] if self.infos is None else self._picked(infos, native)
        if self.mode is AutoresetMode.NEXT_STEP:
            # Those that ended before have been reset by this step: its action did nothing.
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
        """As that of `Copies`; None where single copies cannot be reset."""
        if not self._seed_each:
            return None
        self.ended &= ~which
        first, picked = self._reset(which)
        fresh = None if self.infos is None else self._info(picked, which, reset=True)
        return _begun(step, which, first, fresh)

    def _last_picked(
        self, picked: list[Picked | None], infos: Any, done: np.ndarray
    ) -> list[Picked | None]:
        """The fields of each copy's info, of those that were reset in the same step their last."""
        assert self.infos is not None
        try:
            return [
                self.infos.final(infos, copy) if done[copy] else one
                for copy, one in enumerate(picked)
            ]
        except InfoFault as fault:
            raise DataError(self._blame(Fault(fault.what, fault.copy))) from None

    def _reset(self, done: np.ndarray) -> tuple[Any, list[Picked | None]]:
        """Begin new episodes in some copies; where all are now, `[N, *shape]`, and their infos' fields."""
        for copy in np.flatnonzero(done).tolist():
            self.episodes[copy] += 1
            if self._seed_each:
                self.steps[copy], self.actions[copy] = 0, []
        seed: Any = None  # One for all would be the same one again: their stream goes on.
        if self._seed_each:
            seed = [self._episode_seed(copy) for copy in range(self.num_envs)]
        options = {"reset_mask": done.copy()}
        obs, infos = self._call(lambda: self.envs.reset(seed=seed, options=options))
        picked = [] if self.infos is None else self._picked(infos)
        return self._stored(obs), picked

    def _last(self, now: Any, infos: Any, done: np.ndarray) -> Any:
        """`now`, with the real last observations of those that were reset in the same step."""
        last = _copied(now)
        for copy in np.flatnonzero(done).tolist():
            problem: str | None = "gives no `final_obs` in its infos"
            if "final_obs" in infos:
                final, wary = _pick(infos["final_obs"], copy), self._wary >= 0
                problem = put(last, copy, final, self.obs_codec, wary=wary)
            if problem:
                raise DataError(self._blame(Fault(problem, copy)))
        return last

    def _call(self, call: Callable[[], Any], native: Any = None) -> Any:
        try:
            return call()
        except Fault as fault:
            raise DataError(self._blame(fault, native)) from fault
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise DataError(self._blame(lost(self.envs), native)) from error
        except Exception as error:
            where = "" if native is not None else " in reset"
            raise DataError(self._blame(Fault(f"raised {said(error)}{where}"), native)) from error

    def _blame(self, fault: Fault, native: Any = None) -> str:
        known = fault.copy is not None
        copy = fault.copy or 0
        seed = self._episode_seed(copy)
        # Those that reset themselves choose the seeds of later episodes.
        own = self._seed_each and self.mode is AutoresetMode.DISABLED
        since = "of the episode with seed" if own else "since the reset with seed"
        action = _pick(native, copy) if known and native is not None else None
        return _blame(
            f"{self.name}{_which(copy, self.num_envs) if known else ''} {fault.what}",
            f"step {self.steps[copy]} {since} {seed}",
            action,
            self.envs.single_action_space,
        )

    def _stored(self, obs: Any, native: Any = None) -> Any:
        stored, code, wary = zeros(self.obs_codec, self.num_envs), self.obs_codec, self._wary >= 0
        if put(stored, ..., obs, code, wary=wary) is None:
            return stored
        for copy in range(self.num_envs):  # Whose fault is it?
            if problem := put(stored, copy, _pick(obs, copy), code, wary=wary):
                raise DataError(self._blame(Fault(problem, copy), native))
        return stored

    def play_again(self) -> Any:
        """As that of `Copies`; None for those whose episodes are not of our seeds."""
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
            put(obs, copy, last, self.obs_codec, wary=False)
        return obs

    def close(self) -> None:
        if isinstance(self.envs, AsyncVectorEnv):
            end(self.envs)
        else:
            close([self.envs])


def _rows(
    infos: Infos,
    picked: list[Picked | None],
    acts: np.ndarray | None,
    blame: Callable[[int, Fault], str],
    *,
    reset: bool,
) -> Rows:
    """Fields of N infos; what is wrong with one is said of its copy.

    Args:
        acts: Copies that act next, or whose next action's value counts; None: all.
        reset: Whether some are those of an episode's start.
    """
    try:
        rows = infos.reset_rows(picked) if reset else infos.rows(picked)
    except InfoFault as fault:
        raise DataError(blame(fault.copy or 0, Fault(fault.what))) from None
    if infos.masks:
        acts = np.ones(len(picked), np.bool_) if acts is None else acts
        if (stuck := infos.stuck(rows, acts)) is not None:
            copy, mask = stuck
            raise DataError(blame(copy, Fault(f"gave `{mask}` in its info that allows no action")))
    return rows


def _blame(what: str, place: str, action: Any, space: gymnasium.Space[Any]) -> str:
    """`what` it did, and all it takes to see it again; a wrong action may be the reason."""
    done = ""
    if action is not None:
        outside = "" if space.contains(action) else f", which is outside of {space}"
        done = f", action {_short(action)}{outside}"
    return f"{what}. At {place}{done}."


def _which(copy: int, num_envs: int) -> str:
    return f" (copy {copy} of {num_envs})" if num_envs > 1 else ""


def seed_of_episode(seed: int, copy: int, episode: int) -> int:
    """Of one episode: far from those of all others, and small enough for simulators written in C."""
    return int(np.random.SeedSequence((seed, copy, episode)).generate_state(1)[0]) >> 1


def _pick(value: Any, copy: int) -> Any:
    if isinstance(value, Mapping):
        return {name: _pick(part, copy) for name, part in value.items()}
    if isinstance(
        value, tuple
    ):  # Of text, which models do not receive, there is one for each copy.
        return tuple(part if isinstance(part, str) else _pick(part, copy) for part in value)
    return value[copy]


def _begun(step: Step, which: np.ndarray, first: Any, info: Rows | None) -> Step:
    """A step after which episodes begin in some copies, bool `[N]`, with these rows."""
    now, began = _copied(step.first), which if step.began is None else step.began | which
    _assign(now, which, first)
    if info is None or step.first_info is None:
        return step._replace(first=now, began=began)
    rows = {name: array.copy() for name, array in step.first_info.items()}
    _assign({name: rows[name] for name in rows if name in info}, which, info)
    return step._replace(first=now, began=began, first_info=rows)


def _assign(into: Any, which: np.ndarray, value: Any) -> None:
    """Write rows of `value` into the same rows of `into`."""
    if isinstance(into, dict):
        for name, part in into.items():
            _assign(part, which, value[name])
    else:
        into[which] = value[which]


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(part) for name, part in value.items()}
    return value.copy()


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_short(part)}" for key, part in value.items()) + "}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_short, value))})"
    text = np.array2string(np.asarray(value), precision=4, threshold=8)
    return text if len(text) < 200 else text[:200] + "..."
