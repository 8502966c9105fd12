"""One gymnasium environment, as a task to learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from ..replay import ConfigError, DataError, Spec
from .copies import Copies, Make, Step, Vector
from .episodes import Act, Episodes, Show, play
from .finals import Finals
from .frames import Frames
from .infos import InfoFault, Infos, Layout, Rows
from .interface import Interface
from .recording import check_recording, filmed
from .spaces import codec
from .unseen import tell_left_out
from .workers import Fault, Workers

# Episodes of evaluation are the same at each evaluation, and never those of training.
EVALUATION_SEED = 1_000_003
EVALUATED_AT_ONCE = 10


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
        env_info: Names of the fields of `info` that are kept.
        layout: What these are, shared by the environments of a run.

    Attributes:
        obs: Where the copies are now, `[N, *obs.shape]`, as they are stored.
        info: The fields of `info` that came with `obs`, `{name: [N, ...]}`; empty without `env_info`.
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
        env_info: Sequence[str] = (),
        layout: Layout | None = None,
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
        self.infos: Infos | None = None
        if env_info:
            self.infos = self._options["infos"] = _infos(first, name, env_info, layout)
        first.close()
        if video:
            check_recording(make, name, seed=EVALUATION_SEED)
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
        tell_left_out(first.single_observation_space if several else first.observation_space, name)
        self.spec = Spec(self.envs.obs_codec.space, self.envs.action_codec.space)
        self.obs: Any = None
        self.info: Rows = {}
        self.began = np.ones(self.num_envs, np.bool_)
        self.frames = Frames(self.envs.obs_codec, self.num_envs, stack)
        self.episodes, self.finals = Episodes(self.num_envs), Finals()
        self._none = np.zeros(self.num_envs, np.bool_)
        self._evaluated: Copies | Vector | None = None
        self.video_prefix = ""

    def _workers(self, num_envs: int, seed: int) -> Vector:
        """Copies in processes of their own."""
        try:
            workers = Workers(self._make, num_envs, self._options["channels"], self.infos)
            return Vector(workers, seed=seed, **self._options)
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
        self.info = self.envs.first_info
        self.began = np.ones(self.num_envs, np.bool_)
        self.episodes, self.finals = Episodes(self.num_envs), Finals()
        return first

    @property
    def obs_info(self) -> Rows | None:
        """The fields of `info` that belong to observations; None without `env_info`."""
        return None if self.infos is None else self.infos.of_obs(self.info)

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
        taken = {"step": fields, "began": step.began, "first": step.first, "real": step.real}
        return taken if self.infos is None else self._with_info(taken, step, done)

    def _with_info(self, taken: dict[str, Any], step: Step, done: np.ndarray) -> dict[str, Any]:
        """What `Transitions.add` takes, with the fields of `info`."""
        infos: Any = self.infos
        info: Any = step.info
        first: Any = step.first_info
        self.info = first
        if ended := bool(done.any()):
            self.finals.add(info, done if step.real is None else done & step.real)
        infos.settle(ended=ended, name=self.name)
        taken["step"].update(infos.of_step(info))
        return {**taken, "info": infos.of_obs(info), "first_info": infos.of_obs(first)}

    def evaluate(
        self,
        act: Act,
        *,
        episodes: int,
        folder: Path | None = None,
        step: int = 0,
        show: Show | None = None,
        finals: Finals | None = None,
    ) -> tuple[list[float], list[int]]:
        """Returns and lengths of whole episodes, the same ones at each evaluation.

        Args:
            folder: Where the video of the first one goes, if it is to be recorded.
            step: Of the run, for the video's name.
            show: Told after each step how many episodes have ended, and how many steps were made.
            finals: Receives what `info` said at their last steps.
        """
        recorded = self._video and folder is not None
        if self._evaluated is None or recorded:
            at_once = min(episodes, EVALUATED_AT_ONCE)
            self._evaluated = self._copies(at_once, EVALUATION_SEED)
        envs = self._evaluated
        if recorded and isinstance(envs, Copies):
            assert folder is not None
            envs.envs[0].close()
            envs.envs[0] = filmed(self._make, folder, f"{self.video_prefix}step-{step}")
        try:
            return play(envs, act, episodes=episodes, stack=self._stack, show=show, finals=finals)
        finally:
            if recorded:
                envs.close()  # Which also ends a recording.
                self._evaluated = None

    def make(self, **arguments: Any) -> Any:
        """A fresh copy, with `render_mode=`, say."""
        return self._make(**arguments)

    @property
    def interface(self) -> Interface:
        """What the environment gives and takes, also after it was closed."""
        fields = () if self.infos is None else self.infos.names
        options = {"stack": self._stack, "channels": self._options["channels"]}
        return Interface.of(self.envs, env_info=fields, **options)

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
            "info": self.info,
            "finals": self.finals.values,
            "info_layout": None if self.infos is None else self.infos.layout.state_dict(),
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
        if self.infos is not None:
            self.infos.layout.load_state_dict(state["info_layout"])
            self.info, self.finals = dict(state["info"]), Finals(state["finals"])
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


def _infos(first: Any, name: str, env_info: Sequence[str], layout: Layout | None) -> Infos:
    """What reads the infos, tried on one environment where that can be.

    Raises:
        DataError: If a field is not numeric, or the mask does not fit the actions.
    """
    several = isinstance(first, VectorEnv)
    space = first.single_action_space if several else first.action_space
    infos = Infos(env_info, codec(space, f"actions of {name}", action=True).space, layout)
    if not several:
        try:
            infos.probe(first)
        except InfoFault as fault:
            raise DataError(f"{name} {fault.what}.") from None
    return infos


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
