"""Share of examples whose highest logit is the label's."""

from torch import Tensor


def accuracy(logits: Tensor, label: Tensor) -> float:
    """Accuracy in [0, 1] of `logits` float `[N, n]` against `label` int64 `[N]`.

    >>> import torch
    >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    0.5
    """
    return float((logits.argmax(-1) == label).double().mean())
