"""Task-incremental cross-entropy: only the classes of the example's own task compete."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def task_il_loss(logits: Tensor, label: Tensor, classes: Tensor) -> float:
    """Mean cross-entropy in nats, in float64, when the answer is one of the task's classes.

    Args:
        logits: float `[N, n]`, of all classes.
        label: int64 `[N]`, each one of `classes`.
        classes: int64 `[k]`.

    >>> import torch
    >>> round(task_il_loss(torch.tensor([[9.0, 1.0, 1.0]]), torch.tensor([2]), torch.tensor([1, 2])), 4)
    0.6931
    """
    # As `cross_entropy`: the scores of an evaluation are computed in float64.
    logits = logits.double()
    own = logits.gather(-1, label[:, None]).squeeze(-1)  # [N]
    return float((logits.index_select(-1, classes).logsumexp(-1) - own).mean())
