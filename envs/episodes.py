"""Episodes: played whole for an evaluation, and counted while training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..replay import ConfigError
from .copies import Copies, Vector
from .finals import Finals
from .frames import Frames
from .infos import Rows

_ENDLESS = 250_000  # Steps after which an episode of evaluation is taken to have no end.

# Actions for observations `[N, *shape]` of which some are an episode's first, bool `[N]`, and the
# fields of `info` that came with them.
Act = Callable[[Any, np.ndarray, Rows], Any]
# Of an evaluation: how many episodes have ended, and how many steps all copies have made.
Show = Callable[[int, int], None]


def play(
    envs: Copies | Vector,
    act: Act,
    *,
    episodes: int,
    stack: int,
    show: Show | None = None,
    finals: Finals | None = None,
) -> tuple[list[float], list[int]]:
    """Whole episodes, in equal shares per copy: those that end soon must not crowd out the others.

    Args:
        finals: Receives what `info` said at their last steps.

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
    infos, info = envs.infos, envs.first_info
    while (playing := played < share).any():
        action = act(obs, began, info)
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
        if infos is not None:
            done, info = real & (step.terminated | step.truncated), step.first_info
            if finals is not None:
                finals.add(step.info, done)
            infos.check(ended=bool(done.any()), name=envs.name)
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
