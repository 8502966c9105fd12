"""One gymnasium environment, as a task to learn."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from ..replay import ConfigError, DataError, Spec
from .apart import Apart
from .checked import Fault
from .copies import Copies, Make
from .episodes import Act, Episodes, Show, play
from .evaluation import EvaluationCopies
from .finals import Finals
from .frames import Frames
from .identity import identity
from .info_layout import Layout
from .info_values import InfoFault, Rows
from .infos import Infos, elsewhere
from .interface import Interface
from .opening import close
from .packing import equal, packed, unpacked
from .running import RunningStatistics, normalizes_obs, normalizes_rewards
from .spaces import codec
from .step import Step
from .time_limits import cut_after, time_limit_of
from .unseen import tell_left_out
from .vector import Vector
from .workers import Workers


class EnvTask:
    """One environment, stepped in `num_envs` copies at once, and evaluated in others.

    The training copies are opened here, the others by `open_for_evaluation`: both before training, since
    a failure then costs nothing. Without others (`evaluation.envs` is None) an evaluation takes place in the
    training copies, and ends their episodes in progress.

    Args:
        make: Builds one environment, with `render_mode=` if it is recorded.
        name: What errors and directories call it.
        vectorization: How copies are stepped: "sync" (in this process), "async" (a process each), or
            "vector_entry_point" (the environment's own vector form).
        make_vector: Builds the vector form for N copies; None: the environment has none.
        stack: Frames per observation, joined along the first axis: `[stack * C, H, W]`.
        channels: Where images have their channels: "first" (`[C, H, W]`) or "last" (`[H, W, C]`); None:
            inferred from their shape.
        seed: Seeds the episodes.
        video: Record the first episode of each evaluation.
        eval_limit: Steps after which an evaluation episode is cut; None: the environment's own limit, or
            ten times the longest training episode so far, and at least 1,000.
        env_info: Names of the fields of `info` to store.
        layout: Their shapes and dtypes, shared by the environments of a run.
        timeout: Seconds that an environment may take to open, to reset, or for a step; None: any number.
        retries: How often in a row a copy that fails is started again.

    Attributes:
        obs: The newest observations, `[N, *obs.shape]`, as they are stored.
        info: The fields of `info` that came with `obs`, `{name: [N, ...]}`; empty without `env_info`.
        began: Copies at an episode's start, bool `[N]`.
        time_limit: Steps after which the environment itself truncates its episodes; None: unknown.
        evaluation: The copies to evaluate in.
        interrupted: Whether an evaluation took place in the training copies, so that new episodes must
            begin there.
        cut: Number of episodes of the newest evaluation that were cut.
        identity: What tells it from other environments, as plain data.
        normalizes: Which of "obs" and "rewards" gymnasium's wrappers normalise.
    """

    envs: Any = None  # Copies or Vector, once they are open.
    evaluation: Any = None  # EvaluationCopies, once the training copies are open.

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
        eval_limit: int | None = None,
        env_info: Sequence[str] = (),
        layout: Layout | None = None,
        timeout: float | None = None,
        retries: int = 0,
    ):
        # In processes of their own: what hangs, dies or is restarted there leaves this one as it is.
        self.apart = timeout is not None or (retries > 0 and vectorization == "async")
        self._open_one: Make = functools.partial(Apart, make, timeout) if self.apart else make
        self._retries = retries
        self.name, self._make, self._stack, self._video = name, make, stack, video
        self._channels, self._eval_limit = channels, eval_limit
        self.interrupted, self.cut, self.video_prefix = False, 0, ""
        self.infos: Infos | None = None
        self._spare: list[Any] = []  # Opened, and not in use yet.
        try:
            first = self._look(vectorization)
            if env_info:
                self.infos = self._options["infos"] = _infos(first, self.name, env_info, layout)
            self._open(first, num_envs, vectorization, make_vector, seed)
            spare, self._spare = self._spare, []
            self.evaluation = EvaluationCopies(
                self._open_one,
                self._vector,
                self.running,
                video=video,
                spare=spare,
                options=self._options,
            )
            self.evaluation.retries = retries
            if isinstance(self.envs, Copies):
                self.envs.on_replaced = self.running.replace
        except BaseException:
            self.close()
            raise
        self.num_envs = self.envs.num_envs
        self.spec = Spec(self.envs.obs_codec.space, self.envs.action_codec.space)
        self.obs: Any = None
        self.info: Rows = {}
        self.began = np.ones(self.num_envs, np.bool_)
        self.frames = Frames(self.envs.obs_codec, self.num_envs, stack)
        self.episodes, self.finals = Episodes(self.num_envs), Finals()
        self._none = np.zeros(self.num_envs, np.bool_)

    def _look(self, vectorization: str) -> Any:
        """Open one environment, and find out what kind it is."""
        first: Any = self._open_one()
        self._spare.append(first)
        several = isinstance(first, VectorEnv)
        if isinstance(first, Apart):
            self.name = first.name or self.name
        elif not several and first.spec is not None:
            self.name = first.spec.id  # A factory may make one of many.
        name = self.name
        self._options: dict[str, Any] = {
            "name": name,
            "stack": self._stack,
            "channels": self._channels,
        }
        self.time_limit = time_limit_of(first)
        # A process of its own does not change what an environment is.
        it = first.identity if isinstance(first, Apart) else identity(first, name)
        self.identity = {**it, "name": name}
        # Builds n copies at once, if the environment is a vector environment.
        self._vector: Callable[[int], Any] | None = (lambda _: self._make()) if several else None
        if self._retries and (several or vectorization == "vector_entry_point"):
            raise ConfigError(
                f"env_retry={self._retries} needs single environments; {name} is a vector environment here."
            )
        if several and vectorization != "sync":
            raise ConfigError(
                f"vectorization={vectorization} needs single environments; {name} is already a vector "
                "environment."
            )
        if not several:  # Before processes start, whose errors say less.
            observed, what = first.observation_space, f"observations of {name}"
            codec(observed, what, stack=self._stack, channels=self._channels)
        found = {"obs": normalizes_obs(first), "rewards": normalizes_rewards(first)}
        self.normalizes = tuple(kind for kind, there in found.items() if there)
        if isinstance(first, Apart):
            self.normalizes = first.normalizes
        tell_left_out(first.single_observation_space if several else first.observation_space, name)
        return first

    def _open(
        self,
        first: Any,
        num_envs: int,
        vectorization: str,
        make_vector: Callable[[int], VectorEnv[Any, Any, Any]] | None,
        seed: int,
    ) -> None:
        """Open the training copies, of which the `first` may be one."""
        name, several = self.name, self._vector is not None
        if vectorization == "vector_entry_point":
            if make_vector is None:
                raise ConfigError(
                    f"vectorization=vector_entry_point: {name} has no vector form of its own. Use "
                    "sync or async."
                )
            envs = make_vector(num_envs)
            self.envs = self._vector_of(envs, seed)
            if (envs.single_observation_space, envs.single_action_space) != (
                first.observation_space,
                first.action_space,
            ):
                # In truth another environment (ale-py's has grey pixels): evaluate in its vector form too.
                self._vector = make_vector
        elif vectorization == "async" and not self.apart:
            self._close_spare()  # It may be one that can be open only once.
            self.envs = self._workers(num_envs, seed)
        elif several:
            self._spare = []
            self.envs = self._vector_of(first, seed)
        else:
            self._spare = []
            self.envs = Copies(
                self._open_one,
                num_envs=num_envs,
                seed=seed,
                made=[first],
                retries=self._retries,
                **self._options,
            )
        # 1 is the default, which a vector environment may overrule.
        if num_envs not in (1, self.envs.num_envs):
            raise ConfigError(
                f"num_envs={num_envs}, but {name} is a vector environment with {self.envs.num_envs} copies."
            )
        # Statistics in other processes are out of reach: each copy there keeps its own.
        in_process = isinstance(self.envs, Copies) or not isinstance(self.envs.envs, Workers)
        self.running = RunningStatistics(self.envs.envs if in_process else [])

    def _close_spare(self) -> None:
        close(self._spare)
        self._spare = []

    def _vector_of(self, envs: Any, seed: int) -> Vector:
        try:
            return Vector(envs, seed=seed, **self._options)
        except BaseException:
            close([envs])
            raise

    def _workers(self, num_envs: int, seed: int) -> Vector:
        """Copies in processes of their own."""
        try:
            workers = Workers(self._make, num_envs, self._channels, self.infos)
        except Fault as fault:
            raise DataError(f"{self.name} (copy {fault.copy}) {fault.what}.") from fault
        return self._vector_of(workers, seed)

    def open_for_evaluation(self, episodes: int) -> None:
        """Open as many copies as an evaluation of so many episodes can use, or as can be opened.

        Called before training, once all tasks have their training copies; else at the first evaluation.

        Raises:
            ConfigError: If episodes are to be recorded and cannot be.
        """
        self.evaluation.open(episodes)

    @property
    def resets_apart(self) -> bool:
        """Whether copies whose episodes have ended are reset in a step of their own, and make none then."""
        return isinstance(self.envs, Vector) and self.envs.mode is AutoresetMode.NEXT_STEP

    @property
    def always_real(self) -> bool:
        """Whether every copy makes a step whenever they are stepped."""
        return not self.resets_apart and self._retries == 0

    @property
    def eval_limit(self) -> int | None:
        """Steps after which an episode of evaluation is cut; None: it ends by itself."""
        return cut_after(self._eval_limit, self.time_limit, self.episodes.longest)

    def reset(self) -> Any:
        """First observations `[N, *frame shape]` of new episodes, as they are stored."""
        first = self.envs.reset()
        self.obs = self.frames.start(first)
        self.info = self.envs.first_info
        self.began = np.ones(self.num_envs, np.bool_)
        self.interrupted, episodes = False, self.episodes
        self.episodes = Episodes(self.num_envs, episodes.ended, episodes.longest)
        return first

    @property
    def obs_info(self) -> Rows | None:
        """The fields of `info` that belong to observations; None without `env_info`."""
        return None if self.infos is None else self.infos.of_obs(self.info)

    def step(self, action: Any) -> dict[str, Any]:
        """Act in every copy; returns the arguments of `Transitions.add`, except for the task."""
        step = self.envs.step(action)
        self.obs = step.first if self._stack == 1 else self.frames.push(step.first, step.began)
        self.began = step.began if step.began is not None else self._none
        done = step.terminated  # Where nothing ended, both are the same array of zeros.
        if step.truncated is not done:
            done = done | step.truncated
        self.episodes.add(step.reward, done, step.real)
        if step.broken is not None:
            self.episodes.drop(step.broken)
        fields = {
            "action": action,
            "reward": step.reward,
            "terminated": step.terminated,
            "truncated": step.truncated,
            "next_obs": step.next_obs,
        }
        taken = {"step": fields, "began": step.began, "first": step.first, "real": step.real}
        if step.broken is not None:
            taken["cut"] = step.broken
        return taken if self.infos is None else self._with_info(taken, step, done)

    def _with_info(self, taken: dict[str, Any], step: Step, done: np.ndarray) -> dict[str, Any]:
        """The arguments of `Transitions.add`, with the fields of `info`."""
        infos: Any = self.infos
        info: Any = step.info
        first: Any = step.first_info
        self.info = infos.to_act_by(first)
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
        """Play whole episodes, the same in each evaluation; returns their returns and lengths in steps.

        Args:
            folder: Folder for the video of the first episode; None: no video.
            step: Environment steps of the run, for the video's name.
            show: Called after each step with the numbers of episodes that have ended and of steps made.
            finals: Receives the `info` of their last steps.
        """
        recorded = self._video and folder is not None
        if not self.evaluation.opened:
            self.evaluation.open(episodes)
        self.interrupted = self.interrupted or self.evaluation.envs is None
        film, prefix = folder if recorded else None, f"{self.video_prefix}step-{step}"
        with self.evaluation.within(self.envs, film=film, prefix=prefix) as envs:
            limit = self.eval_limit
            played = play(
                envs,
                act,
                episodes=episodes,
                stack=self._stack,
                limit=limit,
                show=show,
                finals=finals,
            )
        self.cut = played.cut
        return played.returns, played.lengths

    def kept(self) -> dict[str, Any]:
        """The state that outlasts episodes, for a checkpoint at any time."""
        return {"longest": self.episodes.longest, "running": self.running.state_dict()}

    def load_kept(self, state: dict[str, Any]) -> None:
        self.episodes.longest = int(state["longest"])
        self.running.load_state_dict(state["running"])

    def make(self, **arguments: Any) -> Any:
        """A new copy, made with more arguments such as `render_mode=`; it uses the running statistics."""
        env = self._make(**arguments)
        self.running.freeze(env if isinstance(env, VectorEnv) else [env])
        return env

    @property
    def interface(self) -> Interface:
        """The spaces of the environment, also once it is closed."""
        fields = () if self.infos is None else self.infos.names
        options = {"stack": self._stack, "channels": self._options["channels"]}
        return Interface.of(self.envs, env_info=fields, **options)

    def state_dict(self) -> dict[str, Any]:
        """The episodes in progress, without the environments' own state."""
        return {
            "obs": self.obs,
            "began": self.began,
            "frames": self.frames.stacks,
            "ended": self.episodes.ended,
            "total": self.episodes.total,
            "lengths": self.episodes.steps(),
            "counts": self.envs.episodes,
            "steps": list(self.envs.steps),
            "actions": [packed(actions) for actions in self.envs.actions],
            "reset_due": getattr(self.envs, "ended", None),
            "info": self.info,
            "finals": self.finals.values,
            "info_layout": None if self.infos is None else self.infos.layout.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], *, play_again: bool) -> bool:
        """Continue the episodes in progress.

        Args:
            play_again: Replay the episodes from their seeds and actions; else the environments themselves
                have been restored.

        Returns:
            Whether the episodes continue; else new ones must begin.
        """
        envs = self.envs
        envs.episodes = [int(count) for count in state["counts"]]
        envs.steps = [int(count) for count in state["steps"]]
        envs.actions = [unpacked(packed) for packed in state["actions"]]
        if isinstance(envs, Vector):
            envs.ended = np.array(state["reset_due"], np.bool_)
        self.episodes.ended = [float(value) for value in state["ended"]]
        lengths = state.get("lengths", state["steps"])  # Missing before 0.5.0.
        self.episodes.go_on(np.array(state["total"]), np.array(lengths, np.int64))
        if self.infos is not None:
            self.infos.load_state_dict(state["info_layout"])
            self.info, self.finals = dict(state["info"]), Finals(state["finals"])
        if play_again:
            with self.running.paused():
                obs = envs.play_again()
            # An environment with randomness of its own may be elsewhere after the same actions.
            if obs is None or not equal(obs, self.frames.newest(state["obs"])):
                return False
        self.obs, self.began = state["obs"], np.array(state["began"], np.bool_)
        self.frames.stacks = state["frames"]
        return True

    def close(self) -> None:
        for envs in (self.envs, self.evaluation):
            if envs is not None:
                envs.close()
        self._close_spare()


def _infos(first: Any, name: str, env_info: Sequence[str], layout: Layout | None) -> Infos:
    """The reader of infos, tried on one environment first if it is a single one.

    Raises:
        DataError: If a field is not numeric, or the mask does not fit the actions.
    """
    several = isinstance(first, VectorEnv)
    space = first.single_action_space if several else first.action_space
    infos = Infos(env_info, codec(space, f"actions of {name}", action=True).space, layout)
    if not several:
        # Two steps to look at infos must not move the statistics that the run will learn with.
        running = RunningStatistics([first])
        before = running.state_dict()
        try:
            with running.paused():
                infos.probe(first)
        except InfoFault as fault:
            raise DataError(f"{name} {fault.what}.{elsewhere(first, fault)}") from None
        running.load_state_dict(before)
    return infos
