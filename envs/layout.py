"""Where the channels of images are."""

from __future__ import annotations

import torch
from torch import Tensor


def channels_first(inputs: Tensor) -> Tensor:
    """Images `[N, H, W, C]` (and uint8 `[N, H, W]`) as `[N, C, H, W]`, in a type that is kept."""
    inputs = inputs.to(_kept_type(inputs.dtype))
    if inputs.dtype == torch.uint8 and inputs.dim() == 3:
        return inputs[:, None]
    if inputs.dim() == 4 and inputs.shape[-1] in (1, 3, 4) and inputs.shape[1] not in (1, 3, 4):
        return inputs.permute(0, 3, 1, 2).contiguous()
    return inputs


def _kept_type(dtype: torch.dtype) -> torch.dtype:
    """Bytes, truth values, float32 and float64 stay; other integers become int64, small floats float32."""
    if dtype in (torch.uint8, torch.bool, torch.float64):
        return dtype
    return torch.float32 if dtype.is_floating_point else torch.int64


def common_type(one: torch.dtype, other: torch.dtype) -> torch.dtype | None:
    """A type that holds both, of types that are kept; None for bytes or truth values beside numbers."""
    if torch.uint8 in (one, other) or torch.bool in (one, other):
        return one if one == other else None
    return one if one == other else torch.float64
