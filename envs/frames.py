"""Stacks of the newest frames, as models receive them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .spaces import Codec


class Frames:
    """The last `k` frames of N copies, joined along the first axis: `[N, k * C, H, W]`.

    Frames before an episode's start repeat its first frame.
    """

    def __init__(self, code: Codec, num_envs: int, k: int):
        self.code, self.k = code, k
        self.stacks: Any = None

    def start(self, obs: Any) -> Any:
        """Begin episodes in all copies with first observations `[N, *shape]`; returns their stacks."""
        if self.k == 1:
            return obs
        self.stacks = self._each(self.code, obs, None, lambda x, _: np.stack([x] * self.k, 1))
        return self._joined(self.code, self.stacks)

    def push(self, obs: Any, began: np.ndarray | None) -> Any:
        """Add a frame `[N, *shape]`, which is an episode's first where `began`; returns the stacks."""
        if self.k == 1:
            return obs

        def shift(frame: np.ndarray, stack: np.ndarray) -> np.ndarray:
            # A new array: what models and the replay have received is a view of the old one.
            stack = np.concatenate([stack[:, 1:], frame[:, None]], 1)
            if began is not None:
                stack[began] = frame[began][:, None]
            return stack

        self.stacks = self._each(self.code, obs, self.stacks, shift)
        return self._joined(self.code, self.stacks)

    def newest(self, obs: Any) -> Any:
        """The last frame of each stack that `start` or `push` returned."""
        if self.k == 1:
            return obs

        def cut(stack: np.ndarray, _: Any) -> np.ndarray:
            return stack[:, -(stack.shape[1] // self.k) :]

        return self._each(self.code, obs, None, cut)

    def _each(self, code: Codec, obs: Any, stacks: Any, function: Any) -> Any:
        if code.parts is not None:
            return {
                name: self._each(part, obs[name], stacks and stacks[name], function)
                for name, part in code.parts.items()
            }
        return function(obs, stacks) if code.space.numeric else obs

    def _joined(self, code: Codec, stacks: Any) -> Any:
        if code.parts is not None:
            return {n: self._joined(part, stacks[n]) for n, part in code.parts.items()}
        if not code.space.numeric:
            return stacks
        return stacks.reshape(len(stacks), -1, *stacks.shape[3:])
