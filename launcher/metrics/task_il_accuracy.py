"""Task-incremental accuracy: only the classes of the example's own task compete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .accuracy import accuracy

if TYPE_CHECKING:
    from torch import Tensor


def task_il_accuracy(logits: Tensor, label: Tensor, classes: Tensor) -> float:
    """Accuracy in [0, 1] when the answer is one of the task's classes.

    Source: van de Ven & Tolias (2019), https://arxiv.org/abs/1904.07734.

    Args:
        logits: float `[N, n]`, of all classes.
        label: int64 `[N]`, each one of `classes`.
        classes: int64 `[k]`.

    >>> import torch
    >>> task_il_accuracy(torch.tensor([[0.9, 0.1, 0.3]]), torch.tensor([2]), torch.tensor([1, 2]))
    1.0
    """
    # The position among the task's logits is turned back into a class, which labels are.
    return accuracy(classes[logits.index_select(-1, classes).argmax(-1)], label)
