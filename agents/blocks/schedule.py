"""Values that change with the environment steps taken."""

from __future__ import annotations


class Falling:
    """A value that falls in a line from `first` to `last` over `steps` environment steps, then stays.

    A plain object, since a counter that is an attribute of a module costs two microseconds a step.
    """

    def __init__(self, first: float, last: float, steps: int):
        self.first, self.last, self.steps = first, last, max(steps, 1)
        self.taken = 0

    def next(self, n: int) -> float:
        """The value for the next `n` steps."""
        value = self.first + (self.last - self.first) * min(1.0, self.taken / self.steps)
        self.taken += n
        return value
