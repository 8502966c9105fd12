"""How far predicted values are from the true ones, in float64: far from zero, all digits are in the sum."""

from torch import Tensor


def mse(output: Tensor, label: Tensor) -> float:
    """Mean squared error, in the targets' units squared.

    >>> import torch
    >>> mse(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [1.0]]))
    2.0
    """
    return float((output.double() - label.double()).square().mean())


def mae(output: Tensor, label: Tensor) -> float:
    """Mean absolute error, in the targets' units.

    >>> import torch
    >>> mae(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [1.0]]))
    1.0
    """
    return float((output.double() - label.double()).abs().mean())


def r2(output: Tensor, label: Tensor) -> float:
    """Coefficient of determination: 1 is exact, 0 no better than the mean of the labels.

    >>> import torch
    >>> r2(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [3.0]]))
    1.0
    """
    residual = (output.double() - label.double()).square().sum()
    total = (label.double() - label.double().mean(0)).square().sum()
    return float(1 - residual / total) if total > 0 else float("nan")
