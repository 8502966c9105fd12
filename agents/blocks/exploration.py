"""Random actions that are repeated, so that exploration gets somewhere."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

_LONGEST = 100
_MEAN = sum(1 / k for k in range(1, _LONGEST + 1))  # Steps of a duration.


class Repeated:
    """Random actions of N environments, each repeated for as many steps as its duration says.

        P(duration >= k) = 1 / k, up to 100 steps

    An action that changes with every step goes nowhere where nothing moves at once: hills, momentum,
    rooms. Most durations are a step or two, a few are long; the tail is that of the zeta distribution
    with exponent 2 (Dabney et al., 2020, arXiv 2006.01782), who draw from it too.

    A plain object, as `Falling` is.
    """

    def __init__(self) -> None:
        self.left: list[int] = []  # Steps that each environment's action is still repeated.
        self.action: list[Any] = []

    def next(self, n: int, share: float, draw: Callable[[], Any]) -> list[Any]:
        """Actions for `n` environments, None where the policy is to choose.

        Args:
            share: Of the steps that are random, in [0, 1], whatever their durations.
            draw: Makes a random action.
        """
        if len(self.left) != n:
            self.left, self.action = [0] * n, [None] * n
        # So many begin that of all steps `share` are random.
        begin = share / (share + _MEAN * (1 - share))
        for i, left in enumerate(self.left):
            if left > 1:
                self.left[i] = left - 1
            elif random.random() < begin:
                self.left[i] = min(_LONGEST, int(1 / (1 - random.random())))
                self.action[i] = draw()
            elif left:
                self.left[i], self.action[i] = 0, None
        return list(self.action)
