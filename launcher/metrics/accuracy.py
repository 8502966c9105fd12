"""Share of examples whose highest logit is the label's: of all logits, or of those of some classes.

And the cross-entropy of the latter.
"""

from torch import Tensor


def accuracy(logits: Tensor, label: Tensor) -> float:
    """Accuracy in [0, 1] of `logits` float `[N, n]` against `label` int64 `[N]`.

    >>> import torch
    >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    0.5
    """
    return share_equal(logits.argmax(-1), label)


def share_equal(answer: Tensor, label: Tensor) -> float:
    """Share of answers int64 `[N]` that are the label's.

    Counted as integers, and divided in Python: there are devices without float64.

    >>> import torch
    >>> share_equal(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]))
    0.6666666666666666
    """
    return int((answer == label).sum()) / len(label)


def accuracy_among(logits: Tensor, label: Tensor, classes: Tensor) -> float:
    """Accuracy when only `classes` int64 `[k]` may be answered: it is known that the label is one.

    >>> import torch
    >>> accuracy_among(torch.tensor([[0.9, 0.1, 0.3]]), torch.tensor([2]), torch.tensor([1, 2]))
    1.0
    """
    answer = classes[logits.index_select(-1, classes).argmax(-1)]
    return share_equal(answer, label)


def loss_among(logits: Tensor, label: Tensor, classes: Tensor) -> float:
    """Cross-entropy in float64 when only `classes` int64 `[k]` may be answered, the label being one.

    >>> import torch
    >>> round(loss_among(torch.tensor([[9.0, 1.0, 1.0]]), torch.tensor([2]), torch.tensor([1, 2])), 4)
    0.6931
    """
    logits = logits.double()
    own = logits.gather(-1, label[:, None]).squeeze(-1)
    return float((logits.index_select(-1, classes).logsumexp(-1) - own).mean())
