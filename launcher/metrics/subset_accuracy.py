"""Share of rows of which every label is predicted right."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def subset_accuracy(logits: Tensor, label: Tensor) -> float:
    """Share in [0, 1] of rows whose labels, `[N, K]` of 0 and 1, are all predicted: logits above 0 are 1.

    >>> import torch
    >>> subset_accuracy(torch.tensor([[2.0, -1.0], [1.0, 1.0]]), torch.tensor([[1, 0], [0, 1]]))
    0.5
    """
    return int(((logits > 0) == (label > 0)).all(1).sum()) / len(label)
