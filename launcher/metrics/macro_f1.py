"""The F1 score of several labels per row."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def macro_f1(logits: Tensor, label: Tensor) -> float:
    """Mean over the K labels of the F1 score of each.

        F1 = 2 TP / (2 TP + FP + FN)

    Args:
        logits: float `[N, K]`; a label is predicted where its logit is above 0.
        label: `[N, K]` of 0 and 1.

    Returns:
        In [0, 1]. A label that no row has and none is predicted to have counts as 0, as in scikit-learn.

    >>> import torch
    >>> macro_f1(torch.tensor([[2.0, -1.0], [1.0, 1.0]]), torch.tensor([[1, 0], [0, 1]]))
    0.8333333333333333
    """
    chosen, truth = logits > 0, label > 0
    hits = (chosen & truth).sum(0).double()
    predicted_and_true = chosen.sum(0) + truth.sum(0)  # 2 TP + FP + FN
    return float((2 * hits / predicted_and_true.clamp(min=1)).mean())
