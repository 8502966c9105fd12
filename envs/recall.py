"""An environment that needs memory: the first observation decides the right answer at the end."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Recall(gymnasium.Env[np.ndarray, np.int64]):
    """A cue is shown at step 0; at step `delay` the action must name it.

    The observation is float32 `[cues + 1]`: the cue, one-hot, at step 0 only; then zeros, and a 1 in the
    last place when it is time to answer. The reward is 1 for the right answer and -1 for a wrong one,
    0 before. Without memory the best return is 0 on average (two cues); with it, 1.

    Args:
        delay: Steps from the cue to the answer.
        cues: Number of different cues, int64 from 0.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - as gymnasium declares it.

    def __init__(self, delay: int = 20, cues: int = 2, render_mode: str | None = None):
        self.delay, self.cues, self.render_mode = delay, cues, render_mode
        self.observation_space = spaces.Box(0.0, 1.0, (cues + 1,), np.float32)
        self.action_space = spaces.Discrete(cues)
        self.cue = self.time = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.cue, self.time = int(self.np_random.integers(self.cues)), 0
        return self._see(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        answering = self.time == self.delay
        reward = (1.0 if action == self.cue else -1.0) if answering else 0.0
        self.time += 1
        return self._see(), reward, answering, False, {}

    def _see(self) -> np.ndarray:
        obs = np.zeros(self.cues + 1, np.float32)
        if self.time == 0:
            obs[self.cue] = 1.0
        if self.time == self.delay:
            obs[-1] = 1.0
        return obs
