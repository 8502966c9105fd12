"""Numbers that float32 cannot tell apart as they are: kept as multiples of a unit, counted from an origin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 4096  # Rows converted at once: float64 is twice as large as what is kept.


@dataclass(frozen=True, eq=False)
class Scale:
    """Keeps `x` as float32 `(x - base - offset) / unit`, computed in the source's precision.

    All three broadcast over one item: `shape`, or `(C, 1, 1)` for images.

    Attributes:
        base: In the source's own type, and taken off in it: nanoseconds since 1970 are more than
            float64 can count.
        offset: float64, what lies between it and the mean.
        unit: float64, the standard deviation; 1 where there is none.
    """

    base: Tensor
    offset: Tensor
    unit: Tensor

    def stored(self, x: Tensor) -> Tensor:
        """Items `[*shape]` or `[N, *shape]` as they are kept, float32."""
        return ((x - self.base).to(torch.float64) - self.offset).div_(self.unit).to(torch.float32)

    def column(self, x: Tensor) -> Tensor:
        """A whole column `[N, *shape]`, a part at a time."""
        out = torch.empty(x.shape, dtype=torch.float32)
        for start in range(0, len(x), _CHUNK):
            out[start : start + _CHUNK] = self.stored(x[start : start + _CHUNK])
        return out

    def place(self, value: Tensor) -> Tensor:
        """Where a value in the source's units (float64) lies among those that are kept."""
        return (value - self.base.to(torch.float64) - self.offset) / self.unit

    @property
    def origin(self) -> Tensor:
        """Which value is kept as 0, float64."""
        return self.base.to(torch.float64) + self.offset
