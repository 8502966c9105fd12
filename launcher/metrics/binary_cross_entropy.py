"""Cross-entropy of the logits of several labels per row."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def binary_cross_entropy(logits: Tensor, label: Tensor) -> float:
    """Mean over rows and labels, in nats, of logits float `[N, K]` against `[N, K]` of 0 and 1, in float64.

    >>> import torch
    >>> round(binary_cross_entropy(torch.zeros(1, 2), torch.tensor([[1, 0]])), 4)
    0.6931
    """
    # Imported here: the list of metrics is also read where nothing else needs torch (`ml plot`).
    import torch.nn.functional as F

    return float(F.binary_cross_entropy_with_logits(logits.double(), label.double()))
