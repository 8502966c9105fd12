"""What is NaN or infinite in tensors and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

# What can hold NaN, and what torch can sum.
_FLOATING = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.complex128,
)


class Found(NamedTuple):
    """Something that is NaN or infinite.

    Attributes:
        what: Its kind, such as "weight" or "buffer".
        name: Its name, such as `layer.weight`.
        word: "NaN" or "infinite".
    """

    what: str
    name: str
    word: str

    def __str__(self) -> str:
        return f"the {self.what} `{self.name}` is {self.word}"


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all values are certainly finite: False where they may only be very large.

    Waits once for each device, however many tensors there are.
    """
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        if readable(tensor):
            groups.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    norms: dict[torch.device, list[Tensor]] = {}
    try:
        with torch.no_grad():
            for (device, _), group in groups.items():
                # A sum of squares keeps NaN and infinity, and takes a tenth of the time of `isfinite`.
                norms.setdefault(device, []).extend(torch._foreach_norm(group))
            return all(math.isfinite(torch.stack(each).sum().item()) for each in norms.values())
    except (RuntimeError, TypeError):  # A subclass of Tensor that lacks such a function.
        return False


def word_of(tensor: Tensor) -> str | None:
    """What a tensor's values are, "NaN" or "infinite"; None if all are finite, or cannot be read."""
    if not readable(tensor):
        return None
    try:
        with torch.no_grad():
            if bool(torch.isfinite(tensor).all()):
                return None
            return "NaN" if bool(torch.isnan(tensor).any()) else "infinite"
    except (RuntimeError, TypeError):
        return None


def readable(tensor: Tensor) -> bool:
    """Whether a tensor can hold NaN, and can be looked through."""
    return tensor.dtype in _FLOATING and tensor.layout is torch.strided and not tensor.is_meta


def word_for(value: float) -> str:
    """What a number is that is not finite: "NaN" or "infinite"."""
    return "NaN" if math.isnan(value) else "infinite"
