"""Cross-entropy of logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def cross_entropy(logits: Tensor, label: Tensor) -> float:
    """Mean cross-entropy in nats of logits float `[N, n]` against labels int64 `[N]`, in float64.

    >>> import torch
    >>> round(cross_entropy(torch.zeros(1, 2), torch.tensor([1])), 4)
    0.6931
    """
    # Imported here: the list of metrics is also read where nothing else needs torch (`ml plot`).
    import torch.nn.functional as F

    return float(F.cross_entropy(logits.double(), label))
