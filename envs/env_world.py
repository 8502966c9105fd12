"""A world of environments: a sequence of tasks to act in."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..replay import ConfigError, Normalizer, Replay, Transitions
from ..replay.devices import has_float64
from ..replay.offline import open_saved
from ..replay.ranks import ranks, seed_of
from ..replay.tree import leaves, map_tree
from .environments import EnvTask
from .finals import Finals
from .fingerprint import Fingerprint
from .interface import Interface
from .kinds import OfEnvironments
from .normalized import normalized_shapes
from .rounding import Rounding
from .sequence_names import directory_name, in_a_line, labels
from .shared_spaces import shared_spec
from .transform import Transform
from .wishes import Evaluation, Lengths, ReplayWishes, TaskLength
from .world import Actor, Environments, Growing, Policy, Show

_MERGED_EVERY = 64  # Steps between exchanges of running statistics, on several devices.
_MEASURED_AT_ONCE = 4096  # Observations read at a time: an offline replay may exceed memory.


class EnvWorld(OfEnvironments):
    """A sequence of environments that share one spec.

    Args:
        arguments: The constructor arguments of each environment, by which tasks with the same id are named.
        seed: Seeds the episodes.
        normalize_obs, normalize_reward: Whether observations and rewards are normalised by running
            statistics (float64).
        discount: Discount in [0, 1] of the returns whose standard deviation scales rewards.

    Attributes:
        task_names: A name for each task; tasks with the same id have different names.
        closed: Whether the environments are closed.

    Raises:
        ConfigError: If their observations or actions differ.
    """

    def __init__(
        self,
        tasks: list[EnvTask],
        *,
        arguments: Sequence[Mapping[str, Any]] = (),
        seed: int = 0,
        normalize_obs: bool = False,
        normalize_reward: bool = False,
        discount: float = 0.99,
    ):
        self.tasks, self.seed = tasks, seed
        names = [task.name for task in tasks]
        self.name = directory_name(names)
        called = labels(names, arguments or [{} for _ in tasks])
        self.task_names, self.closed = called, False
        for number, task in enumerate(tasks[1:], 1):
            task.video_prefix = f"task-{number}-"
        self.spec = shared_spec(called, [task.spec for task in tasks])
        for task in tasks[1:]:
            if task.num_envs != tasks[0].num_envs:
                raise ConfigError(
                    f"{tasks[0].name} has num_envs={tasks[0].num_envs}, and {task.name} has "
                    f"num_envs={task.num_envs}; all environments of a run need the same number."
                )
        self.normalizer = None
        if normalize_obs or normalize_reward:
            self.normalizer = Normalizer(
                normalized_shapes(self.spec.obs),
                num_envs=self.num_envs,
                discount=discount,
                obs=normalize_obs,
                reward=normalize_reward,
            )
        self._collected = 0  # Steps of every copy so far, on several devices.
        self._rounding, self._said_cut = Rounding(self.spec.obs, self.name), False

    @property
    def num_envs(self) -> int:
        return self.tasks[0].num_envs

    @property
    def all_envs(self) -> int:
        """Environments on all devices: each has `num_envs` of its own."""
        return self.num_envs * ranks().sources

    @property
    def info_layout(self) -> dict[str, Any] | None:
        """Shapes and dtypes of the stored fields of `info`, for all environments; None: none is stored."""
        infos = self.tasks[0].infos
        return None if infos is None else infos.layout.state_dict()

    def facts(self) -> dict[str, Any]:
        return {"environment": True, "num_envs": self.all_envs}

    # ---------------------------------------------------------------------------- before the run

    def unread(self, *, normalize_obs: bool, eval_episodes: int) -> dict[str, str]:
        reasons = {}
        if normalize_obs and self.normalizer is not None and not self.normalizer.moments:
            reasons["normalize_obs"] = (
                "its observations are images, choices or booleans, which are not normalised"
            )
        if not any(space.numeric for space in leaves(self.spec.obs)):
            reasons["frame_stack"] = "its observations are choices, which are not stacked"
        if eval_episodes == 0:
            reasons |= dict.fromkeys(
                ("eval_every", "eval_limit"), "eval_episodes=0 evaluates nothing"
            )
        return reasons

    def wanted_threads(self) -> int | None:
        """One, unless there are images.

        The small networks of most environments are slower with more: DQN ran at 0.74 times the speed
        with two.
        """
        return None if any(len(part.shape) == 3 for part in leaves(self.spec.obs)) else 1

    def place(self, device: torch.device, wanted: str) -> str | None:
        return None

    def replay(self, transform: Transform, wishes: ReplayWishes) -> Replay:
        if wishes.storage == "gpu" and self._loses_digits(wishes.device):
            warnings.warn(
                f"{wishes.device} has no float64, so replay.storage=gpu stores float64 observations as "
                "float32, before normalize_obs subtracts their mean. Leave replay.storage out if they "
                "are far from zero, as timestamps are.",
                stacklevel=3,
            )
        return Replay(
            self._storage(wishes),
            transform,
            batch_size=_share(wishes.batch_size),
            device=wishes.device,
            seed=seed_of(wishes.seed, ranks().rank if ranks().own else 0),
            sequence=wishes.sequence,
            priorities=wishes.priorities,
            before=wishes.before,
        )

    def _storage(self, wishes: ReplayWishes) -> Transitions:
        """Storage for the transitions of this run, or with those of an earlier one."""
        options: dict[str, Any] = {
            "storage": wishes.storage,
            "folder": wishes.folder,
            "device": wishes.device,
        }
        if wishes.saved is not None:
            return open_saved(self.spec, wishes.saved, **options)
        return Transitions(
            self.spec,
            capacity=-(-wishes.capacity // ranks().sources),
            num_envs=self.num_envs,
            discount=wishes.discount,
            nstep=wishes.nstep,
            stack=wishes.stack,
            **options,
        )

    def _loses_digits(self, device: torch.device) -> bool:
        """Whether observations to be normalised have more digits than the device can store."""
        if has_float64(device.type) or self.normalizer is None or not self.normalizer.moments:
            return False
        return any(space.dtype == torch.float64 for space in leaves(self.spec.obs))

    def borders(self, *, online: bool) -> bool:
        return True

    def classes(self, task: int) -> Tensor:
        return torch.arange(0)

    def task_lengths(self, lengths: Lengths, *, batch_size: int, offline: bool) -> list[TaskLength]:
        every, taken = lengths.learn_every, 1 if offline else self.all_envs
        found = []
        for task in range(len(self.tasks)):
            # In environment steps of all copies, which act together: rounded up to whole steps of them.
            share = taken * -(-(lengths.train_steps or 0) // taken)
            begin, end = task * share, (task + 1) * share
            # The step in which seed_steps is reached already counts.
            begin += taken * max(0, -(-lengths.seed_steps // taken) - 1)
            learnt = max(0, end // every - min(begin, end) // every)
            found.append(TaskLength(learnt, None, None))
        return found

    def steps(self, lengths: Lengths, *, batch_size: int) -> int:
        return (lengths.train_steps or 0) * len(self.tasks)

    def describe(self) -> str:
        return f"{in_a_line(self.task_names)}, {self.all_envs} in parallel"

    def remarks(self, *, asked: bool, eval_episodes: int, eval_limit: int | None) -> dict[str, str]:
        """A line on how environments are evaluated, if that may be unexpected."""
        if eval_episodes == 0:
            return {"evaluation": "none (eval_episodes=0); train.csv has the returns of training"}
        endless = [task.name for task in self.tasks if task.time_limit is None]
        if not endless or eval_limit is not None:
            return {}
        return {
            "evaluation": f"{', '.join(dict.fromkeys(endless))}: no time limit is known, so episodes are "
            "cut after ten times the longest training episode, and at least 1,000 steps (eval_limit=, "
            "time_limit=)"
        }

    # ---------------------------------------------------------------------------- during the run

    def begin(self, task: int, replay: Replay) -> None:
        """Begin a task, and episodes of its environment unless the replay is offline."""
        replay.begin(task)
        if replay.offline:
            self._measure(_ring(replay))
        else:
            self._start(task, replay)
            replay.begin_stream()
            self._merge()

    def go_on(self, task: int, replay: Replay) -> None:
        """Begin new episodes if an evaluation took place in the training copies, and ended theirs."""
        if self.tasks[task].interrupted and not replay.offline:
            self._start(task, replay)
            if self.normalizer is not None:
                self.normalizer.cut()

    def _measure(self, ring: Transitions) -> None:
        """Update the normalizer with all observations of an offline replay."""
        if self.normalizer is None:
            return
        rows = np.flatnonzero(ring.drawable)
        for start in range(0, len(rows), _MEASURED_AT_ONCE):
            obs = ring.gather(rows[start : start + _MEASURED_AT_ONCE])["obs"]
            self.normalizer.see(map_tree(lambda part: part.cpu().numpy(), obs))

    def _start(self, task: int, replay: Replay) -> None:
        first = self.tasks[task].reset()
        _ring(replay).start(first, info=self.tasks[task].obs_info)
        if self.normalizer is not None:
            self.normalizer.see(self.tasks[task].obs)

    def collect(self, task: int, actor: Actor | None, replay: Replay) -> int:
        """Act once in every copy, and store the transitions. Returns the environment steps taken.

        Offline there is no actor and nothing to do; a step is then a learning step.
        """
        if actor is None:
            return 1
        env = self.tasks[task]
        action, extras = actor(env.obs, env.began, env.info)
        step = env.step(action)
        if extras:
            if taken := env.info.keys() & extras.keys():
                raise ConfigError(
                    f"env_info={min(taken)}: `act` returned an extra of the same name, and a batch "
                    "can hold only one. Rename the extra, or rename the field in a wrapper."
                )
            if taken := step["step"].keys() & extras.keys():
                raise ConfigError(
                    f"`act` returned an extra named `{min(taken)}`, which every transition already has. "
                    "Rename it."
                )
            step["step"].update(extras)
        if (cut := step.pop("cut", None)) is not None:
            _ring(replay).cut(cut)
        _ring(replay).add(task=task, **step)
        real = step["real"]
        # Digits are lost only without normalisation, which subtracts the mean in float64.
        if self.normalizer is None or not self.normalizer.moments:
            self._rounding.see(env.obs)
        if (normalizer := self.normalizer) is not None:
            fields = step["step"]
            normalizer.see(env.obs)
            normalizer.see_rewards(
                fields["reward"], np.logical_or(fields["terminated"], fields["truncated"]), real
            )
            if cut is not None:
                normalizer.cut(cut)
        place = ranks()
        if not place.own:
            return env.num_envs if real is None else int(real.sum())
        self._collected += 1
        if self.normalizer is not None and _merges_after(self._collected):
            self._merge()
        if env.always_real:
            return self.all_envs
        taken = env.num_envs if real is None else int(real.sum())
        return int(place.sum(torch.tensor(taken)))  # Copies that reset themselves lose a step then.

    def _merge(self) -> None:
        """Let the running statistics know what all ranks have observed since the last time."""
        if self.normalizer is not None:
            self.normalizer.merge()

    def episode_metrics(self, task: int) -> dict[str, float]:
        """The mean return, and final infos, of the episodes that ended since the last call; else empty."""
        env = self.tasks[task]
        ended, finals = env.episodes.take(), env.finals.take()
        if (place := ranks()).own:
            ended = [value for each in place.objects(ended) for value in each]
            finals = place.mean(finals)
        return {"return": float(np.mean(ended)), **finals} if ended else {}

    def evaluates(self, episodes: int) -> bool:
        return episodes > 0

    def evaluated(
        self, task: int, how: Evaluation, *, validation: bool = False, whole: bool = False
    ) -> int:
        return how.episodes

    def evaluate(
        self,
        task: int,
        policy: Policy,
        how: Evaluation,
        *,
        step: int,
        validation: bool = False,
        whole: bool = False,
        show: Show,
    ) -> dict[str, float]:
        if how.episodes == 0:
            return {}
        # Its weights and statistics are the same on every rank.
        return ranks().by_first(lambda: self._play(task, policy, how, step, show))

    def _play(
        self, task: int, policy: Policy, how: Evaluation, step: int, show: Show
    ) -> dict[str, float]:
        """The metrics of whole episodes."""
        env, actor, finals = self.tasks[task], policy.actor(), Finals()

        def stepped(ended: int, steps: int) -> None:
            show(ended, f"episodes ({steps:,} steps)")
            if not env.interrupted:  # Else training's own episodes have ended for this evaluation.
                how.poll()

        returns, lengths = env.evaluate(
            lambda obs, began, info: actor(obs, began, info)[0],
            episodes=how.episodes,
            folder=how.folder,
            step=step,
            show=stepped,
            finals=finals,
        )
        # Once, since every later evaluation would repeat it.
        if env.cut and not self._said_cut:
            self._said_cut = True
            how.warn(
                f"{env.cut} of {len(returns)} evaluation episodes at step {step} did not end and were cut "
                f"(truncated) after {max(lengths):,} steps; their returns count the steps up to there. "
                "Later evaluations do the same. Set eval_limit= to cut elsewhere, or time_limit= to end "
                "training episodes too."
            )
        return {**policy.score_episodes(returns, lengths), **finals.take()}

    # ---------------------------------------------------------------------------- after the run

    def growing(self) -> Growing:
        raise ConfigError("learn_task needs a data set; this run learns from an environment.")

    def environments(self) -> Environments:
        return self

    @property
    def interfaces(self) -> list[Interface]:
        return [env.interface for env in self.tasks]

    def make(self, task: int, **arguments: Any) -> Any:
        return self.tasks[task].make(**arguments)

    def eval_limit(self, task: int) -> int | None:
        return self.tasks[task].eval_limit

    # -------------------------------------------------------------------------------- its state

    def state_dict(self, task: int | None, *, pack: Callable[[Any], Any]) -> dict[str, Any]:
        episodes = None
        if task is not None:
            env = self.tasks[task]
            whole = None if env.apart else pack(env.envs.envs)  # Else they are in other processes.
            episodes = {"task": env.state_dict(), "envs": whole}
        return {
            "environment": episodes,
            "environments": [env.kept() for env in self.tasks],
            "normalizer": None if self.normalizer is None else self.normalizer.state_dict(),
            "interfaces": self._interface_states,
            "info_layout": self.info_layout,
            "later": [],
            **({"collected": self._collected} if ranks().own else {}),
            "data": self.fingerprint,
        }

    @property
    def fingerprint(self) -> Fingerprint:
        return {"kind": "environments", "tasks": [env.identity for env in self.tasks]}

    @cached_property
    def _interface_states(self) -> list[dict[str, Any] | None]:
        """The interfaces as data: a loaded run acts by them without the environments."""
        return [interface.state_dict() for interface in self.interfaces]

    def load_state_dict(
        self,
        state: Mapping[str, Any],
        task: int | None,
        replay: Replay,
        *,
        unpack: Callable[[Any, Any], None],
        problem: Callable[[str], None],
    ) -> bool:
        """Restore the environments in their episodes, or begin new ones and report it."""
        lasting = state.get("environments")  # Missing in checkpoints written before 0.5.0.
        self._load_lasting(lasting)
        self._collected = int(state.get("collected", 0))
        if self.normalizer is not None and state["normalizer"] is not None:
            self.normalizer.load_state_dict(state["normalizer"])
        kept = state["environment"]
        if task is None or kept is None:
            self.resume(task, replay, state["replay"])
            return False
        replay.load_state_dict(state["replay"])
        replay.begin(task)
        if self._continued(task, kept, lasting, unpack, problem):
            return True
        problem("The environment's state could not be restored; its episodes start over.")
        self.resume(task, replay, state["replay"])
        return False

    def resume(self, task: int | None, replay: Replay, state: dict[str, Any]) -> None:
        """Restore the replay, and begin new episodes unless it is offline."""
        replay.load_state_dict(state)
        if task is None:
            return
        replay.begin(task)
        if not replay.offline:
            self._start(task, replay)

    def _continued(
        self,
        task: int,
        kept: Mapping[str, Any],
        lasting: list[dict[str, Any]] | None,
        unpack: Callable[[Any, Any], None],
        problem: Callable[[str], None],
    ) -> bool:
        """Restore the episodes in progress; returns whether that succeeded."""
        env, whole, there = self.tasks[task], kept["envs"] is not None, False
        env.reset()
        self._load_lasting(lasting)  # Again, since the reset has updated the running statistics.
        try:
            if whole:
                unpack(env.envs.envs, kept["envs"])
            there = env.load_state_dict(kept["task"], play_again=not whole)
        except Exception as error:  # Unpickling an environment runs any code of the user's.
            problem(f"The environment could not be restored: {error}")
        self._load_lasting(lasting)  # And again: unpickled environments have brought their own.
        return there

    def _load_lasting(self, lasting: list[dict[str, Any]] | None) -> None:
        """Restore what outlasts the episodes of each environment."""
        if lasting is not None:
            for env, kept in zip(self.tasks, lasting, strict=True):
                env.load_kept(kept)

    def close(self) -> None:
        self.closed = True
        for task in self.tasks:
            task.close()
        self._rounding.close()


def _share(batch_size: int) -> int:
    """This rank's rows of a batch, where each rank draws from steps of its own; at least one."""
    place = ranks()
    return max(1, len(range(place.rank if place.own else 0, batch_size, place.sources)))


def _merges_after(steps: int) -> bool:
    """Whether statistics are exchanged after so many steps: often at first, while they change much."""
    return steps % _MERGED_EVERY == 0 or (steps < _MERGED_EVERY and steps & (steps - 1) == 0)


def _ring(replay: Replay) -> Transitions:
    assert isinstance(replay.storage, Transitions)
    return replay.storage
