"""An environment that needs memory, with the observations and actions of `Workshop`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .workshop import Action, Obs, Workshop


class Errand(Workshop):
    """The first screen shows where to move until the end; later screens are dark.

    Spaces are those of `Workshop`. At step 0 the upper, right, lower or left half of the screen is lit,
    and whatever is done then earns nothing. At each of the `delay` steps after it the screen is dark,
    and moving towards the half that was lit earns 1 / delay. The inventory is empty, and `use` changes
    nothing. Without a memory the return is 1/4 on average, whatever the policy; with it, 1.

    Args:
        delay: Steps after the first one.
        size: Height and width of the screen in pixels: observations are `[1, size, size]`.
    """

    def __init__(self, delay: int = 8, size: int = 64, render_mode: str | None = None):
        super().__init__(steps=delay + 1, size=size, render_mode=render_mode)
        self.delay = delay

    def step(self, action: Action) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        right = self.time > 0 and bool(action["move"] == self.move)
        self.time += 1
        return self._see(), right / self.delay, self.time == self.steps, False, {}

    def _see(self) -> Obs:
        self.screen = np.zeros((self.size, self.size, 3), np.uint8)
        if self.time == 0:
            self.move, half = int(self.np_random.integers(4)), self.size // 2
            lit: Any = (np.s_[:half], np.s_[:, half:], np.s_[half:], np.s_[:, :half])[self.move]
            self.screen[lit] = 255
        return {"screen": self.screen, "inventory": np.zeros(16, np.float32)}
