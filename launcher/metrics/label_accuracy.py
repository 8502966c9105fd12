"""Share of labels that are predicted right, several for each row."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def label_accuracy(logits: Tensor, label: Tensor) -> float:
    """Share in [0, 1] of the entries of `label`, `[N, K]` of 0 and 1, that logits `[N, K]` predict.

    A label is predicted where its logit is above 0, its probability above one half. One minus this is the
    Hamming loss.

    >>> import torch
    >>> label_accuracy(torch.tensor([[2.0, -1.0], [1.0, 1.0]]), torch.tensor([[1, 0], [0, 1]]))
    0.75
    """
    # Counted as integers and divided in Python: not every device has float64.
    return int(((logits > 0) == (label > 0)).sum()) / label.numel()
