"""gymnasium environments as a sequence of tasks."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from ..replay import ConfigError, DataError, Normalizer, Replay, Spec, Transitions
from .copies import Copies, Make, Vector
from .recording import filmed
from .rounding import Rounding
from .spaces import Codec, codec
from .workers import Fault, Workers, said

# Episodes of evaluation are the same at each evaluation, and never those of training.
EVALUATION_SEED = 1_000_003
_EVALUATED_AT_ONCE = 10
_MEASURED_AT_ONCE = 4096  # Observations of an offline replay.
_ENDLESS = 250_000  # Steps after which an episode of evaluation is taken to have no end.

# Actions for observations `[N, *shape]` of which some are an episode's first, bool `[N]`.
Act = Callable[[Any, np.ndarray], Any]
# Of an evaluation: how many episodes have ended, and how many steps all copies have made.
Show = Callable[[int, int], None]


class EnvTask:
    """One environment, stepped in `num_envs` copies at once, and separate ones to evaluate in.

    Args:
        make: Builds one environment, with `render_mode=` where it is recorded.
        name: What errors and directories call it.
        vectorization: "sync" (in this process), "async" (a process each), or "vector_entry_point"
            (the environment's own vector form).
        make_vector: Builds that; None where there is none.
        stack: Frames per observation.
        channels: Where images have them, "first" or "last"; None: told from their shape.
        seed: Of the episodes.
        video: Record the first episode of each evaluation.

    Attributes:
        obs: Where the copies are now, `[N, *obs.shape]`, as they are stored.
        began: Which of them are at an episode's start, bool `[N]`.
    """

    def __init__(
        self,
        make: Make,
        *,
        name: str,
        num_envs: int,
        vectorization: str = "sync",
        make_vector: Callable[[int], VectorEnv[Any, Any, Any]] | None = None,
        stack: int = 1,
        channels: str | None = None,
        seed: int = 0,
        video: bool = False,
    ):
        first = make()
        several = isinstance(first, VectorEnv)
        if not several and first.spec is not None:
            name = first.spec.id  # Of a factory for many, the one that it made.
        self.name, self._make, self._stack, self._video = name, make, stack, video
        self._options: dict[str, Any] = {"name": name, "stack": stack, "channels": channels}
        # Builds n copies at once, where these cannot be had one by one.
        self._vector: Callable[[int], Any] | None = (lambda _: make()) if several else None
        if several and vectorization != "sync":
            raise ConfigError(
                f"vectorization={vectorization} is for single environments; {name} is a vector "
                "environment already."
            )
        if not several:  # Before there are processes, which say less of what is wrong.
            observed, what = first.observation_space, f"observations of {name}"
            codec(observed, what, stack=stack, channels=channels)
        first.close()
        if video:
            check_recording(make, name)
        self.envs: Copies | Vector
        if vectorization == "vector_entry_point":
            if make_vector is None:
                raise ConfigError(
                    f"vectorization=vector_entry_point: {name} has no vector form of its own. Use "
                    "sync or async."
                )
            envs = make_vector(num_envs)
            self.envs = Vector(envs, seed=seed, **self._options)
            if (envs.single_observation_space, envs.single_action_space) != (
                first.observation_space,
                first.action_space,
            ):
                # Another environment, in truth: ale-py's has gray pixels.
                self._vector = make_vector
        elif vectorization == "async":
            self.envs = self._workers(num_envs, seed)
        else:
            self.envs = self._copies(num_envs, seed)
        if num_envs not in (1, self.envs.num_envs):
            raise ConfigError(
                f"num_envs={num_envs}, but {name} is a vector environment of {self.envs.num_envs}."
            )
        self.num_envs = self.envs.num_envs
        self.spec = Spec(self.envs.obs_codec.space, self.envs.action_codec.space)
        self.obs: Any = None
        self.began = np.ones(self.num_envs, np.bool_)
        self.frames = Frames(self.envs.obs_codec, self.num_envs, stack)
        self.episodes = Episodes(self.num_envs)
        self._none = np.zeros(self.num_envs, np.bool_)
        self._evaluated: Copies | Vector | None = None
        self.video_prefix = ""

    def _workers(self, num_envs: int, seed: int) -> Vector:
        """Copies in processes of their own."""
        try:
            return Vector(
                Workers(self._make, num_envs, self._options["channels"]), seed=seed, **self._options
            )
        except Fault as fault:
            raise DataError(f"{self.name} (copy {fault.copy}) {fault.what}.") from fault

    def _copies(self, num_envs: int, seed: int) -> Copies | Vector:
        """Copies in this process; an environment that is several already is taken as it is."""
        if self._vector is not None:
            return Vector(self._vector(num_envs), seed=seed, **self._options)
        return Copies(self._make, num_envs=num_envs, seed=seed, **self._options)

    def reset(self) -> Any:
        """First observations `[N, *frame shape]` of new episodes, as they are stored."""
        first = self.envs.reset()
        self.obs = self.frames.start(first)
        self.began = np.ones(self.num_envs, np.bool_)
        self.episodes = Episodes(self.num_envs)
        return first

    def step(self, action: Any) -> dict[str, Any]:
        """Act in every copy: what `Transitions.add` takes, but for the task."""
        step = self.envs.step(action)
        self.obs = step.first if self._stack == 1 else self.frames.push(step.first, step.began)
        self.began = step.began if step.began is not None else self._none
        done = self._none
        if step.began is not None or isinstance(self.envs, Vector):
            done = step.terminated | step.truncated
        self.episodes.add(step.reward, done, step.real)
        fields = {
            "action": action,
            "reward": step.reward,
            "terminated": step.terminated,
            "truncated": step.truncated,
            "next_obs": step.next_obs,
        }
        return {"step": fields, "began": step.began, "first": step.first, "real": step.real}

    def evaluate(
        self,
        act: Act,
        *,
        episodes: int,
        folder: Path | None = None,
        step: int = 0,
        show: Show | None = None,
    ) -> tuple[list[float], list[int]]:
        """Returns and lengths of whole episodes, the same ones at each evaluation.

        Args:
            folder: Where the video of the first one goes, if it is to be recorded.
            step: Of the run, for the video's name.
            show: Told after each step how many episodes have ended, and how many steps were made.
        """
        recorded = self._video and folder is not None
        if self._evaluated is None or recorded:
            at_once = min(episodes, _EVALUATED_AT_ONCE)
            self._evaluated = self._copies(at_once, EVALUATION_SEED)
        envs = self._evaluated
        if recorded and isinstance(envs, Copies):
            assert folder is not None
            envs.envs[0].close()
            envs.envs[0] = filmed(self._make, folder, f"{self.video_prefix}step-{step}")
        try:
            return play(envs, act, episodes=episodes, stack=self._stack, show=show)
        finally:
            if recorded:
                envs.close()  # Which also ends a recording.
                self._evaluated = None

    def state_dict(self) -> dict[str, Any]:
        """Where the episodes in progress are; what the environments themselves hold is apart."""
        return {
            "obs": self.obs,
            "began": self.began,
            "frames": self.frames.stacks,
            "ended": self.episodes.ended,
            "total": self.episodes.total,
            "counts": self.envs.episodes,
            "steps": list(self.envs.steps),
            "actions": [_packed(actions) for actions in self.envs.actions],
            "reset_due": getattr(self.envs, "ended", None),
        }

    def load_state_dict(self, state: dict[str, Any], *, play_again: bool) -> bool:
        """Continue the episodes in progress.

        Args:
            play_again: Bring the environments there by their episodes' seeds and actions.

        Returns:
            Whether they are there; else new episodes have to begin.
        """
        envs = self.envs
        envs.episodes = [int(count) for count in state["counts"]]
        envs.steps = [int(count) for count in state["steps"]]
        envs.actions = [_unpacked(packed) for packed in state["actions"]]
        if isinstance(envs, Vector):
            envs.ended = np.array(state["reset_due"], np.bool_)
        self.episodes.ended = [float(value) for value in state["ended"]]
        self.episodes.total = np.array(state["total"])
        if play_again:
            obs = envs.play_again()
            if obs is None or not _equal(obs, self.frames.newest(state["obs"])):
                return False
        self.obs, self.began = state["obs"], np.array(state["began"], np.bool_)
        self.frames.stacks = state["frames"]
        return True

    def close(self) -> None:
        self.envs.close()
        if self._evaluated is not None:
            self._evaluated.close()


def play(
    envs: Copies | Vector,
    act: Act,
    *,
    episodes: int,
    stack: int,
    show: Show | None = None,
) -> tuple[list[float], list[int]]:
    """Whole episodes, in equal shares per copy: those that end soon must not crowd out the others.

    Returns:
        Their returns and lengths, in an order that does not depend on which ended first.

    Raises:
        ConfigError: If one does not end.
    """
    n = envs.num_envs
    share = np.array([len(range(copy, episodes, n)) for copy in range(n)])
    envs.episodes = [0] * n
    total, length, played = np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.int64)
    results: list[tuple[int, float, int]] = []
    made = 0  # Steps of all copies at once.
    frames = Frames(envs.obs_codec, n, stack)
    obs, began = frames.start(envs.reset()), np.ones(n, np.bool_)
    while (playing := played < share).any():
        action = act(obs, began)
        step = envs.step(action, playing) if isinstance(envs, Copies) else envs.step(action)
        real = playing if step.real is None else playing & step.real
        total += np.where(real, step.reward, 0.0)
        length += real
        made += 1
        if length.max() > _ENDLESS:
            raise ConfigError(
                f"An episode of {envs.name} has not ended after {_ENDLESS:,} steps of evaluation. Set "
                "time_limit."
            )
        for copy in np.flatnonzero(real & (step.terminated | step.truncated)).tolist():
            results.append((copy + n * int(played[copy]), float(total[copy]), int(length[copy])))
            total[copy], length[copy] = 0.0, 0
            played[copy] += 1
        obs = frames.push(step.first, step.began)
        began = step.began if step.began is not None else np.zeros(n, np.bool_)
        if show is not None:
            show(len(results), made)
    results.sort()
    return [r for _, r, _ in results], [steps for _, _, steps in results]


def check_recording(make: Make, name: str) -> None:
    """Find out before training whether episodes can be recorded.

    Raises:
        ConfigError: If not.
    """
    if importlib.util.find_spec("moviepy") is None:
        raise ConfigError("video=true needs moviepy: pip install 'antelope-ml[video]'.")
    refused = f"video=true cannot record {name}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # What gymnasium warns of is checked below.
            env = make(render_mode="rgb_array")
    except ConfigError as error:
        raise ConfigError(
            f"{refused}, which has to take render_mode='rgb_array': {error}"
        ) from error
    try:
        if isinstance(env, VectorEnv):
            raise ConfigError(f"{refused}: it is a vector environment.")
        if env.render_mode != "rgb_array":
            raise ConfigError(
                f"{refused}: given render_mode='rgb_array', it has {env.render_mode}."
            )
        env.reset(seed=EVALUATION_SEED)
        frame = env.render()
        if not isinstance(frame, np.ndarray) or frame.ndim != 3:
            raise ConfigError(f"{refused}: its render() gave a {type(frame).__name__}, no picture.")
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{refused}: its render() raised {said(error)}") from error
    finally:
        env.close()


class Frames:
    """The last `k` frames of N copies, joined along the first axis, as models meet them.

    Frames of before an episode's start are its first frame again.
    """

    def __init__(self, code: Codec, num_envs: int, k: int):
        self.code, self.k = code, k
        self.stacks: Any = None

    def start(self, obs: Any) -> Any:
        """All copies are at a first observation `[N, *shape]`."""
        if self.k == 1:
            return obs
        self.stacks = self._each(self.code, obs, None, lambda x, _: np.stack([x] * self.k, 1))
        return self._joined(self.code, self.stacks)

    def push(self, obs: Any, began: np.ndarray | None) -> Any:
        """The next frame, a first one where `began`."""
        if self.k == 1:
            return obs

        def shift(frame: np.ndarray, stack: np.ndarray) -> np.ndarray:
            stack = np.concatenate([stack[:, 1:], frame[:, None]], 1)
            if began is not None:
                stack[began] = frame[began][:, None]
            return stack

        self.stacks = self._each(self.code, obs, self.stacks, shift)
        return self._joined(self.code, self.stacks)

    def newest(self, obs: Any) -> Any:
        """The last frame of each stack that `start` or `push` gave."""
        if self.k == 1:
            return obs

        def cut(stack: np.ndarray, _: Any) -> np.ndarray:
            return stack[:, -(stack.shape[1] // self.k) :]

        return self._each(self.code, obs, None, cut)

    def _each(self, code: Codec, obs: Any, stacks: Any, function: Any) -> Any:
        if code.parts is not None:
            return {
                name: self._each(part, obs[name], stacks and stacks[name], function)
                for name, part in code.parts.items()
            }
        return obs if code.space.discrete else function(obs, stacks)

    def _joined(self, code: Codec, stacks: Any) -> Any:
        if code.parts is not None:
            return {n: self._joined(part, stacks[n]) for n, part in code.parts.items()}
        if code.space.discrete:
            return stacks
        return stacks.reshape(len(stacks), -1, *stacks.shape[3:])


@dataclass
class Episodes:
    """Returns of the episodes that ended since they were last taken."""

    num_envs: int
    ended: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.total = np.zeros(self.num_envs)

    def add(self, reward: np.ndarray, done: np.ndarray, real: np.ndarray | None = None) -> None:
        self.total += reward if real is None else np.where(real, reward, 0.0)
        if np.count_nonzero(done):  # Four times as fast as any().
            self.ended += self.total[done].tolist()
            self.total[done] = 0.0

    def take(self) -> list[float]:
        ended, self.ended = self.ended, []
        return ended


class EnvWorld:
    """A sequence of environments that share one spec.

    Args:
        normalizer: Takes in what happens while training, or None.

    Raises:
        ConfigError: If their observations or actions differ.
    """

    on_data = False
    scenario = None  # Of classes.

    def __init__(
        self, tasks: list[EnvTask], *, seed: int = 0, normalizer: Normalizer | None = None
    ):
        self.tasks, self.seed, self.normalizer = tasks, seed, normalizer
        self.name = "-".join(task.name for task in tasks)
        for number, task in enumerate(tasks[1:], 1):
            task.video_prefix = f"task-{number}-"
        first = tasks[0].spec
        for task in tasks[1:]:
            if not _alike(task.spec.obs, first.obs, bounds=False) or not _alike(
                task.spec.action, first.action
            ):
                raise ConfigError(
                    f"Environments of one run must share their spaces: {tasks[0].name} has {first}, "
                    f"{task.name} has {task.spec}."
                )
            if task.num_envs != tasks[0].num_envs:
                raise ConfigError(
                    f"{tasks[0].name} is {tasks[0].num_envs} environments in parallel and {task.name} "
                    f"{task.num_envs}; in one run they must be equally many."
                )
        self.spec = Spec(first.obs, first.action, num_tasks=len(tasks))
        self._rounding = Rounding(first.obs, self.name)

    @property
    def num_envs(self) -> int:
        return self.tasks[0].num_envs

    def begin(self, task: int, replay: Replay) -> None:
        """Start episodes of this task's environment; offline, none."""
        replay.begin(task)
        if replay.offline:
            self._measure(_ring(replay))
        else:
            self._start(task, replay)

    def _measure(self, ring: Transitions) -> None:
        """Take in all observations that an offline replay holds."""
        if self.normalizer is None:
            return
        rows = np.flatnonzero(ring.ok)
        for start in range(0, len(rows), _MEASURED_AT_ONCE):
            obs = ring.gather(rows[start : start + _MEASURED_AT_ONCE])["obs"]
            self.normalizer.see(_arrays(obs))

    def _start(self, task: int, replay: Replay) -> None:
        first = self.tasks[task].reset()
        _ring(replay).start(first)
        if self.normalizer is not None:
            self.normalizer.see(self.tasks[task].obs)

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
        replay.begin(task)
        if anew and not replay.offline:
            self._start(task, replay)

    def describe(self) -> str:
        """One line for a person."""
        return f"{self.name}, {self.num_envs} in parallel"

    def collect(self, task: int, actor: Any, replay: Replay) -> int:
        """Act once in every copy and remember it. Returns the environment steps taken.

        Offline there is no actor, nothing is done, and a step is a learning step.
        """
        if actor is None:
            return 1
        env = self.tasks[task]
        action, extras = actor(env.obs, env.began)
        step = env.step(action)
        if extras:
            if taken := step["step"].keys() & extras.keys():
                raise ConfigError(
                    f"`act` gave an extra named `{min(taken)}`, which transitions have already."
                )
            step["step"].update(extras)
        _ring(replay).add(task=task, **step)
        real = step["real"]
        if self.normalizer is None or not self.normalizer.moments:
            self._rounding.see(env.obs)
        if (normalizer := self.normalizer) is not None:
            fields = step["step"]
            normalizer.see(env.obs)
            normalizer.see_rewards(
                fields["reward"], np.logical_or(fields["terminated"], fields["truncated"]), real
            )
        return env.num_envs if real is None else int(real.sum())

    def episode_metrics(self, task: int) -> dict[str, float]:
        """The mean return of the episodes that ended since the last call."""
        ended = self.tasks[task].episodes.take()
        return {"return": float(np.mean(ended))} if ended else {}

    def close(self) -> None:
        for task in self.tasks:
            task.close()
        self._rounding.close()


def _alike(a: Any, b: Any, *, bounds: bool = True) -> bool:
    """Whether one model can serve both spaces."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[n], b[n], bounds=bounds) for n in a)
    if isinstance(a, dict) or isinstance(b, dict):
        return False
    kinds = [(s.shape, s.dtype, s.discrete, s.nvec, s.binary) for s in (a, b)]
    if not bounds or a.discrete:
        return kinds[0] == kinds[1]
    return kinds[0] == kinds[1] and torch.equal(a.low, b.low) and torch.equal(a.high, b.high)


def normalized_shapes(space: Any, name: str = "") -> dict[str, tuple[int, ...]]:
    """Shapes of the observations that running statistics are kept of: not images, not choices.

    >>> normalized_shapes({"arm": {"angle": Space((2,))}, "door": Space((3,), discrete=True)})
    {'arm/angle': (2,)}
    """
    if isinstance(space, dict):
        found: dict[str, tuple[int, ...]] = {}
        for key, part in space.items():
            found |= normalized_shapes(part, f"{name}/{key}" if name else key)
        return found
    # Bytes in one dimension, and boards with pieces from 0 to 6, are numbers.
    image = space.dtype == torch.uint8 and len(space.shape) == 3
    if image and space.high is not None:
        image = bool((torch.as_tensor(space.high) == 255).all())
    return {} if space.discrete or image else {name: space.shape}


def _ring(replay: Replay) -> Transitions:
    assert isinstance(replay.storage, Transitions)
    return replay.storage


def _arrays(obs: Any) -> Any:
    """Tensors, or dicts of them, as arrays."""
    if isinstance(obs, dict):
        return {name: _arrays(part) for name, part in obs.items()}
    return obs.cpu().numpy()


def _packed(actions: list[Any]) -> Any:
    """A list of equal values as arrays: a checkpoint holds few files, not one per action."""
    if actions and isinstance(actions[0], dict):
        return {name: _packed([action[name] for action in actions]) for name in actions[0]}
    return np.array(actions)


def _unpacked(packed: Any) -> list[Any]:
    if isinstance(packed, dict):
        parts = {name: _unpacked(part) for name, part in packed.items()}
        return [dict(zip(parts, row, strict=True)) for row in zip(*parts.values(), strict=True)]
    return list(np.asarray(packed))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return all(_equal(a[name], b[name]) for name in a)
    return bool(np.array_equal(a, b))
