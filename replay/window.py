"""The window of a ring of transitions that batches are drawn from: rows of the newest tasks.

Legend: T places per environment, N environments, `row = place * N + e`, as in `transitions`.
"""

from __future__ import annotations

import numpy as np
import torch


class Window:
    """The rows that were filled since a given moment.

    Environments that reset in a separate step advance at different speeds, so the number of rows that each
    has filled differs, at that moment too.

    Args:
        since: Number of rows that each environment had filled at that moment, int64 `[N]`.
        length: T, the number of places per environment.
    """

    def __init__(self, since: np.ndarray, length: int):
        self.since, self.length = since, length
        self.num_envs = len(since)

    def draw(self, n: int, time: np.ndarray, generator: torch.Generator) -> np.ndarray:
        """`n` rows filled between the moment and now, uniformly, int64; some hold no transition.

        Args:
            time: Number of rows that each environment has filled by now, int64 `[N]`.
        """
        start, count = self._span(time)
        drawn = torch.empty(n, dtype=torch.int64).random_(count, generator=generator)
        rows: np.ndarray = (drawn.numpy() + start) % (self.length * self.num_envs)
        return rows if self._together(time) else rows[self.holds(rows, time)]

    def rows(self, time: np.ndarray) -> np.ndarray:
        """All rows of the window, int64, oldest first."""
        start, count = self._span(time)
        rows = (np.arange(count) + start) % (self.length * self.num_envs)
        return rows if self._together(time) else rows[self.holds(rows, time)]

    def holds(self, rows: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Whether each row was filled since the moment, bool, in the shape of `rows`."""
        place, env = np.divmod(rows, self.num_envs)
        age = (time[env] - place) % self.length  # 0 is the row being filled.
        held: np.ndarray = (age > 0) & (age <= (time - self.since)[env])
        return held

    def empty(self, time: np.ndarray) -> bool:
        return not (time > self.since).any()

    def _span(self, time: np.ndarray) -> tuple[int, int]:
        """The first row of the places filled since, and the number of rows in these places."""
        first, last = int(self.since.min()), int(time.max())
        first = max(first, last - self.length)
        return first % self.length * self.num_envs, (last - first) * self.num_envs

    def _together(self, time: np.ndarray) -> bool:
        """Whether all environments are at the same place, and were at that moment."""
        return bool((self.since == self.since[0]).all() and (time == time[0]).all())
