"""A random order of many rows that is computed a part at a time, never held as a whole."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_ROUNDS = 6  # Half of them for each of the two digits.


class Shuffled:
    """Every number from 0 to n - 1 once, in a pseudo-random order.

    A row's number is written as two digits `(x, y)` of about `sqrt(n)` values each. Rounds add to `x` what a
    random table holds for `y`, then to `y` what another one holds for `x`; each round can be undone, so
    no two rows get the same place (a Feistel network: Luby & Rackoff 1988, doi 10.1137/0217022; with
    digits of any size: Black & Rogaway 2002, doi 10.1007/3-540-45760-7_9). What is given up: the tables hold
    about `6 sqrt(n)` random numbers, so that most of the `n!` orders cannot occur. Any single row is
    equally likely to be anywhere, and any few rows are placed relative to each other as in a uniform order.

    Args:
        n: Number of rows.
        generator: Draws the tables; used by the constructor only.
    """

    def __init__(self, n: int, generator: torch.Generator):
        self.n = n
        a = math.isqrt(max(n - 1, 0)) + 1
        b = -(-n // a)  # The fewest for which all rows have digits.
        # Each table is repeated: a digit is left as large as the sums make it, and looked up modulo its
        # size. A division for each round would take longer than all the rest.
        self._tables = [
            torch.randint(high, (count,), generator=generator, dtype=torch.int32).repeat(
                1 + (k + 1) // 2
            )
            for k, (high, count) in enumerate([(a, b), (b, a)] * (_ROUNDS // 2))
        ]
        repeats = 1 + _ROUNDS // 2
        # By `x`, the first row with that digit; by `y`, how many come after it.
        self._first = torch.arange(a).mul_(b).repeat(repeats)
        self._second = torch.arange(b).repeat(repeats)
        self._b = b

    def rows(self, start: int, end: int) -> Tensor:
        """The rows in the places from `start` to `end`, int64 `[end - start]`."""
        rows = self._mixed(torch.arange(start, end))
        # The digits name a few more rows than there are: those lead on until one that exists.
        while len(outside := (rows >= self.n).nonzero().flatten()):
            rows[outside] = self._mixed(rows[outside])
        return rows

    def _mixed(self, rows: Tensor) -> Tensor:
        x = rows.div(self._b, rounding_mode="floor")
        y = (rows - x * self._b).to(torch.int32)
        x = x.to(torch.int32)
        for k in range(0, _ROUNDS, 2):
            x.add_(self._tables[k].index_select(0, y))
            y.add_(self._tables[k + 1].index_select(0, x))
        return self._first.index_select(0, x).add_(self._second.index_select(0, y))
