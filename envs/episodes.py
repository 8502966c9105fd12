"""Episodes: played whole for an evaluation, and counted while training."""

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

# Actions for observations `[N, *shape]` of which some are an episode's first, bool `[N]`, and the
# fields of `info` that came with them.
Act = Callable[[Any, np.ndarray, Rows], Any]
# Of an evaluation: how many episodes have ended, and how many steps all copies have made.
Show = Callable[[int, int], None]


class Played(NamedTuple):
    """Whole episodes, in an order that does not depend on which ended first.

    Attributes:
        cut: How many of them were cut at the limit, and count as truncated there.
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
    """Whole episodes, in equal shares per copy: those that end soon must not crowd out the others.

    Args:
        limit: Number of steps after which an episode is cut; None: it ends by itself.
        finals: Receives the `info` of their last steps.
    """
    n = envs.num_envs
    share = np.array([len(range(copy, episodes, n)) for copy in range(n)])
    envs.episodes = [0] * n
    total, length, played = np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.int64)
    results: list[tuple[int, float, int]] = []
    made = cut = 0  # Steps of all copies at once, and episodes cut.
    frames = Frames(envs.obs_codec, n, stack)
    obs, began = frames.start(envs.reset()), np.ones(n, np.bool_)
    infos, info = envs.infos, envs.first_info
    while (playing := played < share).any():
        action = act(obs, began, info)
        step = envs.step(action, playing) if isinstance(envs, Copies) else envs.step(action)
        real = playing if step.real is None else playing & step.real
        total += np.where(real, step.reward, 0.0)
        length += real
        made += 1
        over = real & (step.terminated | step.truncated)
        late = real & ~over & (length >= limit) if limit is not None else None
        done = over if late is None else over | late
        if infos is not None:
            if finals is not None and step.info is not None:
                finals.add(step.info, done)
            infos.check(ended=bool(over.any()), name=envs.name)
        for copy in np.flatnonzero(done).tolist():
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
    """The step, with new episodes in copies whose episode was cut.

    Copies that cannot be reset alone play no more: their `played` becomes their `share`.
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
        # Counted by when they began: a sum for each step would cost more.
        self._step, self._began = 0, np.zeros(self.num_envs, np.int64)

    def add(self, reward: np.ndarray, done: np.ndarray, real: np.ndarray | None = None) -> None:
        self._step += 1
        self.total += reward if real is None else np.where(real, reward, 0.0)
        if real is not None:
            self._began += ~real
        if np.count_nonzero(done):  # Four times as fast as any().
            self.ended += self.total[done].tolist()
            self.longest = max(self.longest, int((self._step - self._began[done]).max()))
            self.total[done], self._began[done] = 0.0, self._step

    def take(self) -> list[float]:
        ended, self.ended = self.ended, []
        return ended

    def steps(self) -> np.ndarray:
        """Of the episodes in progress, int64 `[N]`."""
        return self._step - self._began

    def go_on(self, total: np.ndarray, steps: np.ndarray) -> None:
        """Continue episodes that came so far elsewhere."""
        self.total, self._step, self._began = total, 0, -steps
