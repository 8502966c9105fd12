"""An environment with several observations and several actions, solved in minutes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

_SHELVES, _ITEMS = 2, 16
# Rows and columns: up, right, down, left.
_DIRECTIONS = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])

Obs = dict[str, np.ndarray]
Action = dict[str, Any]


class Workshop(gymnasium.Env[Obs, Action]):
    """Only the screen shows where to move, and only the inventory shows what to use.

    Observations are `{"screen": uint8 [size, size, 3], "inventory": float32 [16]}`, actions
    `{"move": one of 4, "use": 16 times yes or no}`. On a screen of dim noise a bright square is up,
    right, down or left of the middle: that is the right `move` (0, 1, 2, 3). The inventory says what
    there is of 16 items beyond what is needed, from -1 to 1; items of which there is enough, more
    than 0, are to be used. The first 8 are on one shelf and the last 8 on another, and a shelf has
    enough of all its items or of none. Every step shows another square and other shelves, whatever
    was done before:

        reward = 1/2 [move is right] + 1/2 (share of the 16 items treated right)

    | who                    | move | use | reward of a step |
    |------------------------|------|-----|------------------|
    | sees both              | 1    | 1   | 1                |
    | blind to the inventory | 1    | 1/2 | 3/4              |
    | blind to the screen    | 1/4  | 1   | 5/8              |
    | blind to both          | 1/4  | 1/2 | 3/8              |

    These are the best expected values; no policy does better on what it cannot see.

    Args:
        steps: Length of an episode, which is then truncated.
        size: Height and width of the screen in pixels.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 - as gymnasium declares it.

    def __init__(self, steps: int = 16, size: int = 64, render_mode: str | None = None):
        self.steps, self.size, self.render_mode = steps, size, render_mode
        self.observation_space: Any = spaces.Dict(
            {
                "screen": spaces.Box(0, 255, (size, size, 3), np.uint8),
                "inventory": spaces.Box(-1.0, 1.0, (_ITEMS,), np.float32),
            }
        )
        self.action_space = spaces.Dict(
            {"move": spaces.Discrete(len(_DIRECTIONS)), "use": spaces.MultiBinary(_ITEMS)}
        )
        self.time = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self._see(), {}

    def step(self, action: Action) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        moved, used = action["move"] == self.move, np.equal(action["use"], self.use).mean()
        self.time += 1
        return self._see(), float(moved + used) / 2, False, self.time == self.steps, {}

    def render(self) -> np.ndarray:
        return self.screen

    def _see(self) -> Obs:
        """Draw another square and other shelves; returns the observation."""
        random = self.np_random
        self.move = int(random.integers(len(_DIRECTIONS)))
        self.use = random.integers(2, size=_SHELVES, dtype=np.int8).repeat(_ITEMS // _SHELVES)
        self.screen = _noise(random, self.size)
        _draw(random, self.screen, self.move)
        inventory = self.use - random.random(_ITEMS, np.float32)  # (-1, 0] or (0, 1].
        return {"screen": self.screen, "inventory": inventory}


def _noise(random: np.random.Generator, size: int) -> np.ndarray:
    """A dim screen, uint8 `[size, size, 3]`."""
    return np.frombuffer(random.bytes(3 * size * size), np.uint8).reshape(size, size, 3) >> 2


def _draw(random: np.random.Generator, screen: np.ndarray, direction: int) -> None:
    """Put a bright square, a quarter of the screen wide, off its middle in a direction, 0 to 3."""
    size = len(screen)
    width = size // 4
    reach = (size - width) / 2  # From the middle to the border.
    along, across = random.uniform((0.5, -0.4), (1.0, 0.4)) * reach
    row, column = np.rint(
        reach + _DIRECTIONS[direction] * along + _DIRECTIONS[direction][::-1] * across
    ).astype(int)
    screen[row : row + width, column : column + width] = 255
