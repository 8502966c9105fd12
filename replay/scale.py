"""Stores numbers that float32 cannot tell apart as multiples of a unit, relative to an origin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 4096  # Rows converted at once: the float64 copy is twice as large as the result.


@dataclass(frozen=True, eq=False)
class Scale:
    """Stores `x` as float32 `(x - base - offset) / unit`, computed in the source's precision.

    All three broadcast over one item: `shape`, or `(C, 1, 1)` for images.

    Attributes:
        base: In the source's dtype, and subtracted in it: float64 cannot count nanoseconds since 1970.
        offset: Float64, the difference between the mean and `base`.
        unit: Float64, the standard deviation; 1 for constants.
    """

    base: Tensor
    offset: Tensor
    unit: Tensor

    def stored(self, x: Tensor) -> Tensor:
        """Items `[*shape]` or `[N, *shape]` as they are stored, float32."""
        return ((x - self.base).to(torch.float64) - self.offset).div_(self.unit).to(torch.float32)

    def column(self, x: Tensor) -> Tensor:
        """A whole column as stored, float32 `[N, *shape]`, converted a part at a time."""
        out = torch.empty(x.shape, dtype=torch.float32)
        for start in range(0, len(x), _CHUNK):
            out[start : start + _CHUNK] = self.stored(x[start : start + _CHUNK])
        return out

    def place(self, value: Tensor) -> Tensor:
        """A value in the source's units (float64) converted to stored units."""
        return (value - self.base.to(torch.float64) - self.offset) / self.unit

    @property
    def origin(self) -> Tensor:
        """The value that is stored as 0, float64."""
        return self.base.to(torch.float64) + self.offset
