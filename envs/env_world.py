"""A sequence of environments that a run learns in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..replay import ConfigError, Normalizer, Replay, Space, Transitions
from ..replay.tree import map_tree, named_leaves
from .environments import EnvTask
from .rounding import Rounding
from .sequence_names import directory_name, in_a_line, labels
from .shared_spaces import shared_spec

_MEASURED_AT_ONCE = 4096  # Observations of an offline replay.


class EnvWorld:
    """A sequence of environments that share one spec.

    Args:
        arguments: Of each environment, which tell apart tasks with one id.
        normalizer: Takes in what happens while training, or None.

    Attributes:
        labels: What each task is called.

    Raises:
        ConfigError: If their observations or actions differ.
    """

    on_data = False
    scenario = None  # Of classes.

    def __init__(
        self,
        tasks: list[EnvTask],
        *,
        arguments: Sequence[Mapping[str, Any]] = (),
        seed: int = 0,
        normalizer: Normalizer | None = None,
    ):
        self.tasks, self.seed, self.normalizer = tasks, seed, normalizer
        names = [task.name for task in tasks]
        self.name = directory_name(names)
        self.labels = labels(names, arguments or [{} for _ in tasks])
        for number, task in enumerate(tasks[1:], 1):
            task.video_prefix = f"task-{number}-"
        self.spec = shared_spec(self.labels, [task.spec for task in tasks])
        for task in tasks[1:]:
            if task.num_envs != tasks[0].num_envs:
                raise ConfigError(
                    f"{tasks[0].name} is {tasks[0].num_envs} environments in parallel and {task.name} "
                    f"{task.num_envs}; in one run they must be equally many."
                )
        self._rounding = Rounding(self.spec.obs, self.name)

    @property
    def num_envs(self) -> int:
        return self.tasks[0].num_envs

    @property
    def info_layout(self) -> dict[str, Any] | None:
        """What the fields of `info` are that are kept, the same in all environments; None: none are."""
        infos = self.tasks[0].infos
        return None if infos is None else infos.layout.state_dict()

    def begin(self, task: int, replay: Replay) -> None:
        """Start episodes of this task's environment; offline, none."""
        replay.begin(task)
        if replay.offline:
            self._measure(_ring(replay))
        else:
            self._start(task, replay)
            replay.begin_stream()

    def go_on(self, task: int, replay: Replay) -> None:
        """Begin new episodes where an evaluation took place in the copies that are learnt in."""
        if self.tasks[task].interrupted and not replay.offline:
            self._start(task, replay)
            if self.normalizer is not None:
                self.normalizer.cut()

    def kept(self) -> list[dict[str, Any]]:
        """What outlasts the episodes of each environment, for a checkpoint."""
        return [task.kept() for task in self.tasks]

    def load_kept(self, state: list[dict[str, Any]]) -> None:
        for task, kept in zip(self.tasks, state, strict=True):
            task.load_kept(kept)

    def _measure(self, ring: Transitions) -> None:
        """Take in all observations that an offline replay holds."""
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
        return f"{in_a_line(self.labels)}, {self.num_envs} in parallel"

    def collect(self, task: int, actor: Any, replay: Replay) -> int:
        """Act once in every copy and remember it. Returns the environment steps taken.

        Offline there is no actor, nothing is done, and a step is a learning step.
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
                    "can hold only one. Rename the extra, or the field, by a wrapper around the environment."
                )
            if taken := step["step"].keys() & extras.keys():
                raise ConfigError(
                    f"`act` returned an extra named `{min(taken)}`, which every transition already has. "
                    "Rename it."
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
        env = self.tasks[task]
        ended, finals = env.episodes.take(), env.finals.take()
        return {"return": float(np.mean(ended)), **finals} if ended else {}

    def close(self) -> None:
        for task in self.tasks:
            task.close()
        self._rounding.close()


def normalized_shapes(space: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the observations that running statistics are kept of, by the names of `named_leaves`.

    Not of images, choices and truth values.

    >>> normalized_shapes({"arm": {"angle": Space((2,))}, "door": Space((3,), discrete=True)})
    {'arm/angle': (2,)}
    """
    parts = named_leaves(space).items()
    return {name: part.shape for name, part in parts if _is_measured(part)}


def _is_measured(space: Space) -> bool:
    if not space.numeric or space.dtype == torch.bool:
        return False
    # Bytes in one dimension, and boards with pieces from 0 to 6, are numbers.
    image = space.dtype == torch.uint8 and len(space.shape) == 3
    return not (image and (space.high is None or bool((torch.as_tensor(space.high) == 255).all())))


def _ring(replay: Replay) -> Transitions:
    assert isinstance(replay.storage, Transitions)
    return replay.storage
