"""Rows of different lengths in memory: one after another, without padding.

Legend: N rows, T steps of the longest of those that are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .padding import Steps, mark, mask_of


class Ragged:
    """A column whose rows are sequences of different lengths.

    >>> column = Ragged(torch.tensor([3, 1, 4, 1, 5, 9]), torch.tensor([0, 2, 5, 6]))
    >>> column.take(torch.tensor([2, 1]))
    tensor([[9, 0, 0],
            [4, 1, 5]])
    >>> column.shape, column.lengths.tolist()
    ((3, 3), [2, 3, 1])

    Args:
        values: The steps of all rows in turn, `[total, *features]`.
        offsets: Where each row begins, and the end of the last one, int64 `[N + 1]`.

    Attributes:
        shape: `(N, longest, *features)`: that of all rows, padded.
    """

    in_memory = True

    def __init__(self, values: Tensor, offsets: Tensor):
        self.values, self.offsets = values.contiguous(), offsets
        self.dtype: torch.dtype = values.dtype
        self.shape: tuple[int, ...] = (len(offsets) - 1, self._longest(), *values.shape[1:])

    @classmethod
    def of_rows(cls, rows: Sequence[Tensor]) -> Ragged:
        """From the rows themselves, `[T_i, *features]`, all of one dtype."""
        lengths = torch.tensor([0, *(len(row) for row in rows)])
        return cls(torch.cat(list(rows)), lengths.cumsum(0))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Tensor:
        """One row without padding, `[T_i, *features]`: a view."""
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def row_at(self, step: int) -> int:
        """The row that a step belongs to, counted over all rows."""
        return int(torch.searchsorted(self.offsets, step, right=True)) - 1

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.offsets.nbytes

    @property
    def lengths(self) -> Tensor:
        """Steps of each row, int64 `[N]`."""
        return self.offsets.diff()

    @property
    def longest(self) -> int:
        """Steps of the longest row."""
        return self.shape[1]

    def take(self, index: Tensor) -> Tensor:
        """The rows at `index` (int64 `[B]`), padded with zeros to the longest of them: `[B, T, *features]`.

        Marked with its `Steps`. On an accelerator this waits for the longest length.
        """
        begin = self.offsets.index_select(0, index)
        length = self.offsets.index_select(0, index + 1) - begin
        longest = int(length.max()) if len(index) else 0
        mask = mask_of(length, longest)
        places = (begin[:, None] + torch.arange(longest, device=begin.device)) * mask
        features = self.values.shape[1:]
        padded = self.values.index_select(0, places.flatten()).view(len(index), longest, *features)
        padded.masked_fill_(~mask.view(*mask.shape, *(1 for _ in features)), 0)
        return mark(padded, Steps(length, mask))

    def rows(self, index: Tensor) -> Ragged:
        """Some rows (int64 `[n]`) as a column of their own."""
        begin = self.offsets.index_select(0, index)
        length = self.offsets.index_select(0, index + 1) - begin
        offsets = _offsets(length)
        total = int(offsets[-1])
        shift = (begin - offsets[:-1]).repeat_interleave(length, output_size=total)
        places = torch.arange(total, device=begin.device) + shift
        return Ragged(self.values.index_select(0, places), offsets)

    def joined(self, others: Sequence[Ragged]) -> Ragged:
        """Its rows, followed by those of the others, on its own device."""
        columns = [self, *(other.to(self.device) for other in others)]
        values = torch.cat([column.values for column in columns])
        return Ragged(values, _offsets(torch.cat([column.lengths for column in columns])))

    def converted(self, convert: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Ragged:
        """The column with its values, `[total, *features]`, converted to `dtype`."""
        return Ragged(convert(self.values).to(dtype), self.offsets)

    def to(self, device: torch.device | str) -> Ragged:
        return Ragged(self.values.to(device), self.offsets.to(device))

    def _longest(self) -> int:
        return int(self.offsets.diff().max()) if len(self.offsets) > 1 else 0


def _offsets(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
