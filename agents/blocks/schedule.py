"""Values that are annealed over environment steps."""

from __future__ import annotations

from ...replay.ranks import ranks


class Falling:
    """A value that changes linearly from `first` to `last` over `steps` environment steps, then stays.

    A plain object: a counter that is an attribute of a module would cost two microseconds per step.
    """

    def __init__(self, first: float, last: float, steps: int):
        self.first, self.last, self.steps = first, last, max(steps, 1)
        self.taken = 0

    def next(self, n: int) -> float:
        """The value for the next `n` steps, which are then counted as taken, on each device."""
        value = self.first + (self.last - self.first) * min(1.0, self.taken / self.steps)
        self.taken += n * ranks().sources
        return value
