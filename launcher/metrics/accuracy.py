"""Share of examples that are classified correctly."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def accuracy(chosen: Tensor, label: Tensor) -> float:
    """Share in [0, 1] of chosen classes int64 `[N]` that equal the labels int64 `[N]`.

    >>> import torch
    >>> accuracy(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]))
    0.6666666666666666
    """
    # Counted as integers and divided in Python: not every device has float64.
    return int((chosen == label).sum()) / len(label)
