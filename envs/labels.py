"""Targets: classes and values, checked."""

from __future__ import annotations

import torch
from torch import Tensor

from ..replay import DataError


def as_targets(targets: Tensor, name: str) -> Tensor:
    """int64 `[N]` for classes, float32 or float64 `[N, *shape]` for values."""
    if targets.dtype.is_floating_point:
        check_finite(targets, f"targets of {name}")
        if targets.dtype != torch.float64:  # Whose digits the mean is taken off with.
            targets = targets.to(torch.float32)
        return targets[:, None] if targets.dim() == 1 else targets
    if targets.dim() == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.dim() != 1:
        raise DataError(
            f"The integer targets of {name} have shape {list(targets.shape)}; classes are one number "
            "a row. Give several values a row as floats (regression)."
        )
    return targets.to(torch.int64)


def check_labels(targets: Tensor, num_classes: int | None, name: str) -> None:
    """Raise DataError for classes that are not 0 to n - 1."""
    low, high = int(targets.min()), int(targets.max())
    if low < 0:
        raise DataError(
            f"Labels out of range: {name} holds label {low}. Classes are counted from 0."
        )
    if num_classes is not None and high >= num_classes:
        raise DataError(
            f"Labels out of range: {name} holds label {high}, but declares "
            f"{num_classes} classes (0 to {num_classes - 1})."
        )


def check_finite(values: Tensor, what: str) -> None:
    if not values.dtype.is_floating_point:
        return
    # A sum is finite only if all are; it costs a tenth of looking at each.
    if torch.isfinite(values.sum(dtype=torch.float64)):
        return
    bad = (
        (~torch.isfinite(values)).flatten(1).any(1) if values.dim() > 1 else ~torch.isfinite(values)
    )
    if bad.any():
        raise DataError(
            f"The {what} hold NaN or infinite numbers in {int(bad.sum())} of {len(values)} rows "
            f"(first: row {int(bad.nonzero()[0])}). Fill or drop them before training."
        )
