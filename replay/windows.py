"""A random order that stays close to the source's: rows are shuffled within windows."""

from __future__ import annotations

import torch
from torch import Tensor


class Windows:
    """Every number from 0 to n - 1 once, in windows of neighbours, each in a random order.

    For rows that are read from a slow source at each use: what is read next lies close to what was read just
    before. Only numbers are shuffled, and they follow from the generator: there is no buffer of rows to be
    saved. Windows begin elsewhere in each order, so that neighbours of one order part in the next.

    Args:
        n: Number of rows.
        size: Rows in a window.
        generator: Draws the order; used by the constructor only.
        in_turn: Whether windows come in the order of the source, which can only be read so; else in any.
    """

    def __init__(self, n: int, size: int, generator: torch.Generator, *, in_turn: bool):
        drawn = torch.randint(2**62, (1,), generator=generator)
        self._seed = int(drawn)
        first = 1 + int(torch.randint(min(size, n) or 1, (1,), generator=generator))
        begins = torch.cat(
            [torch.zeros(1, dtype=torch.int64), torch.arange(first, max(n, 1), size)]
        )
        lengths = torch.cat([begins[1:], torch.tensor([n])]) - begins
        if not in_turn:
            order = torch.randperm(len(begins), generator=generator)
            begins, lengths = begins[order], lengths[order]
        self._begins, self._lengths, self._ends = begins, lengths, lengths.cumsum(0)

    def rows(self, start: int, end: int) -> Tensor:
        """The rows in the places from `start` to `end`, int64 `[end - start]`."""
        if start == end:
            return torch.empty(0, dtype=torch.int64)
        bounds = torch.tensor([start, end - 1])
        first, last = torch.searchsorted(self._ends, bounds, right=True).tolist()
        parts = [self._window(window) for window in range(first, last + 1)]
        skipped = start - int(self._ends[first] - self._lengths[first])
        return torch.cat(parts)[skipped : skipped + end - start]

    def _window(self, window: int) -> Tensor:
        begin, length = int(self._begins[window]), int(self._lengths[window])
        generator = torch.Generator().manual_seed((self._seed + begin) % 2**63)
        return torch.randperm(length, generator=generator) + begin
