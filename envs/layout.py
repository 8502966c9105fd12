"""Where the channels of images are."""

from __future__ import annotations

import torch
from torch import Tensor


def channels_first(inputs: Tensor) -> Tensor:
    """uint8 images or float32, `[N, H, W, C]` (and uint8 `[N, H, W]`) as `[N, C, H, W]`."""
    if inputs.dtype != torch.uint8:
        inputs = inputs.to(torch.float32)
    elif inputs.dim() == 3:
        return inputs[:, None]
    if inputs.dim() == 4 and inputs.shape[-1] in (1, 3, 4) and inputs.shape[1] not in (1, 3, 4):
        return inputs.permute(0, 3, 1, 2).contiguous()
    return inputs
