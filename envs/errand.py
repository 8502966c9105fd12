"""A task for memory with the inputs and actions of `Workshop`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .workshop import Action, Obs, Workshop, draw, noise


class Errand(Workshop):
    """The first screen shows where to move until the end; then there is nothing to see.

    Spaces are those of `Workshop`. At step 0 a bright square is on the screen, up, right, down or left
    of its middle, and whatever is done then earns nothing. At each of the `delay` steps after it the
    screen is noise, and the reward is 1 / delay for moving where the square was. Inventory and `use`
    mean nothing here. Without a memory the return is 1/4 on average, whatever one does; with it, 1.

    Args:
        delay: Steps after the first one.
        size: Pixels along the screen's sides.
    """

    def __init__(self, delay: int = 8, size: int = 64, render_mode: str | None = None):
        super().__init__(steps=delay + 1, size=size, render_mode=render_mode)
        self.delay = delay

    def step(self, action: Action) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        right = self.time > 0 and bool(action["move"] == self.move)
        self.time += 1
        return self._see(), right / self.delay, self.time == self.steps, False, {}

    def _see(self) -> Obs:
        random = self.np_random
        self.screen = noise(random, self.size)
        if self.time == 0:
            self.move = int(random.integers(4))
            draw(random, self.screen, self.move)
        return {"screen": self.screen, "inventory": np.zeros(16, np.float32)}
