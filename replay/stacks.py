"""Frame stacks from a ring that stores single frames: the rows that make up each stack.

Legend: B transitions, k frames per stack, N environments, `row = place * N + e`, as in `transitions`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Stacks:
    """Stacks of the last k frames, read from the rows of a ring by index.

    Args:
        k: Frames per stack.
        num_envs: N.
        is_first: Bool `[rows]`, True for rows that begin an episode; the ring keeps it up to date.
        overlap: Whether the stack after a transition ends one row further on, as with single-step
            returns: all its frames but the newest are then the first stack's, and gathered once.
    """

    def __init__(self, k: int, num_envs: int, is_first: np.ndarray, *, overlap: bool):
        self.k, self.num_envs, self.is_first, self.overlap = k, num_envs, is_first, overlap

    def rows(self, index: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Rows of the frames of the stacks at `index` and at `after`, oldest first, flat int64.

        `[B * (k + 1)]` where stacks overlap, else `[B * 2k]`.
        """
        rows = self._of_one(index)
        both = after[:, None] if self.overlap else self._of_one(after)
        return np.concatenate([rows, both], axis=1).reshape(-1)

    def _of_one(self, index: np.ndarray) -> np.ndarray:
        """`[B, k]`. Frames before an episode's start repeat its first frame, as gymnasium has it."""
        size = len(self.is_first)
        steps = np.arange(self.k - 1)
        began = self.is_first.take((index[:, None] - steps * self.num_envs) % size)  # [B, k - 1]
        age = np.where(began.any(1), began.argmax(1), self.k - 1)
        back = np.minimum(np.arange(self.k - 1, -1, -1), age[:, None])
        return (index[:, None] - back * self.num_envs) % size

    def split(self, frames: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """The n stacks `[n, k * C, ...]` at `index` and those at `after`, of the frames at `rows`."""
        width = frames.shape[1]
        both = frames.reshape(n, -1, *frames.shape[2:])
        before, following = both[:, : self.k * width], both[:, -self.k * width :]
        # Stacks sharing memory must not be modified in place; converting bytes to floats copies anyway.
        shared = self.overlap and both.dtype != torch.uint8
        return before, following.clone() if shared else following
