"""Full precision for computations that autocast would make too coarse."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """Half precision as float32; wider types unchanged.

    Autocast leaves outputs of linear layers in bfloat16 (three digits) or float16. Densities, values
    that are subtracted from each other, and actions in an environment's units need more.

    >>> full_precision(torch.ones(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
