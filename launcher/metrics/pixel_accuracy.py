"""Share of pixels that are classified correctly."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def pixel_accuracy(counts: Tensor) -> float:
    """Share in [0, 1] of pixels on the diagonal of counts int64 `[n, n]`, by class and prediction.

    >>> import torch
    >>> pixel_accuracy(torch.tensor([[3, 1], [0, 4]]))
    0.875
    """
    return int(counts.diagonal().sum()) / max(1, int(counts.sum()))
