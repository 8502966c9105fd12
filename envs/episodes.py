"""Plays whole episodes for an evaluation, and counts those of training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .copies import Copies
from .finals import Finals
from .frames import Frames
from .info_values import Rows
from .step import Step
from .vector import Vector

# Maps observations `[N, *shape]`, which of them are an episode's first, bool `[N]`, and the fields of
# `info` that came with them, to actions.
Act = Callable[[Any, np.ndarray, Rows], Any]
# Called with the number of episodes that have ended, and of steps made, all copies at once being one.
Show = Callable[[int, int], None]


class Played(NamedTuple):
    """Results of whole episodes, in an order that does not depend on which ended first.

    Attributes:
        cut: Number of episodes that were truncated at the limit.
    """

    returns: list[float]
    lengths: list[int]
    cut: int


def play(
    envs: Copies | Vector,
    act: Act,
    *,
    episodes: int,
    stack: int,
    limit: int | None = None,
    show: Show | None = None,
    finals: Finals | None = None,
) -> Played:
    """Play whole episodes, an equal share in each copy, so that short ones do not crowd out long ones.

    Args:
        limit: Steps after which an episode is cut; None: it ends by itself.
        finals: Receives the `info` of their last steps.
    """
    n = envs.num_envs
    share = np.array([len(range(copy, episodes, n)) for copy in range(n)])
    # Seeds follow from these counts, so each evaluation plays the same episodes.
    envs.episodes = [0] * n
    total, length, played = np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.int64)
    results: list[tuple[int, float, int]] = []
    made = cut = 0  # Steps, all copies at once being one, and episodes cut.
    frames = Frames(envs.obs_codec, n, stack)
    obs, began = frames.start(envs.reset()), np.ones(n, np.bool_)
    infos, info = envs.infos, envs.first_info
    while (playing := played < share).any():
        action = act(obs, began, info)
        step = envs.step(action, playing) if isinstance(envs, Copies) else envs.step(action)
        real = playing if step.real is None else playing & step.real
        total += np.where(real, step.reward, 0.0)
        length += real
        if step.broken is not None:  # Played again, from the same seed.
            total[step.broken], length[step.broken] = 0.0, 0
        made += 1
        over = real & (step.terminated | step.truncated)
        late = real & ~over & (length >= limit) if limit is not None else None
        done = over if late is None else over | late
        if infos is not None:
            if finals is not None and step.info is not None:
                finals.add(step.info, done)
            infos.check(ended=bool(over.any()), name=envs.name)
        for copy in np.flatnonzero(done).tolist():
            # Numbered as if copies took turns, so that the order below is the same in every run.
            results.append((copy + n * int(played[copy]), float(total[copy]), int(length[copy])))
            total[copy], length[copy] = 0.0, 0
            played[copy] += 1
        if late is not None and late.any():
            cut += int(late.sum())
            step = _restarted(envs, step, late, played, share)
        if infos is not None and step.first_info is not None:
            info = infos.to_act_by(step.first_info)
        obs = frames.push(step.first, step.began)
        began = step.began if step.began is not None else np.zeros(n, np.bool_)
        if show is not None:
            show(len(results), made)
    results.sort()
    return Played([r for _, r, _ in results], [steps for _, _, steps in results], cut)


def _restarted(
    envs: Copies | Vector, step: Step, late: np.ndarray, played: np.ndarray, share: np.ndarray
) -> Step:
    """The step, with new episodes begun in copies whose episode was cut.

    Copies that cannot be reset alone stop playing: their `played` becomes their `share`.
    """
    late = late & (played < share)
    if not late.any():
        return step
    if (begun := envs.restart(step, late)) is None:
        played[late] = share[late]
        return step
    return begun


@dataclass
class Episodes:
    """Returns of the episodes that ended since they were last taken.

    Attributes:
        longest: Steps of the longest episode that has ended so far.
    """

    num_envs: int
    ended: list[float] = field(default_factory=list)
    longest: int = 0

    def __post_init__(self) -> None:
        self.total = np.zeros(self.num_envs)
        # Lengths follow from the step at which each began: counting in each step would cost more.
        self._step, self._began = 0, np.zeros(self.num_envs, np.int64)

    def add(self, reward: np.ndarray, done: np.ndarray, real: np.ndarray | None = None) -> None:
        self._step += 1
        self.total += reward if real is None else np.where(real, reward, 0.0)
        if real is not None:
            self._began += ~real
        if np.count_nonzero(done):  # Four times as fast as any(), in every environment step.
            self.ended += self.total[done].tolist()
            self.longest = max(self.longest, int((self._step - self._began[done]).max()))
            self.total[done], self._began[done] = 0.0, self._step

    def drop(self, which: np.ndarray) -> None:
        """Leave out the episodes in progress of these copies, bool `[N]`, which have begun new ones."""
        self.total[which], self._began[which] = 0.0, self._step

    def take(self) -> list[float]:
        ended, self.ended = self.ended, []
        return ended

    def steps(self) -> np.ndarray:
        """Lengths so far of the episodes in progress, int64 `[N]`."""
        return self._step - self._began

    def go_on(self, total: np.ndarray, steps: np.ndarray) -> None:
        """Continue episodes with returns float64 `[N]` and lengths int64 `[N]` so far, after a resume."""
        self.total, self._step, self._began = total, 0, -steps
