"""Acts at random: the baseline that every learner must beat."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..replay import Space
from ..replay.batch import Tensors
from .blocks.encoder import rows
from .policy.masks import draw_allowed, mask_in


class Random(nn.Module):
    """Uniform actions within the action space, whatever its kind; it does not learn.

    Unbounded dimensions are drawn from a standard normal distribution, as gymnasium's `Box.sample` draws
    them. With `env_info=[action_mask]` choices are uniform among the allowed ones.
    """

    def __init__(self, action_spec: Space | dict[str, Any]):
        super().__init__()
        self.space = action_spec

    def act(self, obs: Tensors, info: dict[str, Any] | None = None) -> Any:
        """`[N, *obs.shape]` to actions `[N, *value_shape]`; dicts to dicts."""
        # On the CPU, where environments need actions.
        return draw(self.space, rows(obs), mask_in(info))


def draw(space: Space | dict[str, Any], n: int, mask: Any = None) -> Any:
    """n uniform values of a space, among those that `mask` allows; None: among all."""
    if isinstance(space, dict):
        masks = mask or {}
        return {name: draw(part, n, masks.get(name)) for name, part in space.items()}
    if mask is not None:
        return draw_allowed(space, mask)
    shape = (n, *space.value_shape)
    if space.binary:
        return torch.randint(2, shape)
    if space.nvec:
        columns = [torch.randint(choices, (n,)) for choices in space.nvec]
        return torch.stack(columns, 1)
    if space.discrete:
        return torch.randint(space.n, shape)
    return _between(space.low, space.high, shape)


def _between(low: object, high: object, shape: tuple[int, ...]) -> Tensor:
    low = torch.as_tensor(-torch.inf if low is None else low)
    high = torch.as_tensor(torch.inf if high is None else high)
    bounded = torch.isfinite(low) & torch.isfinite(high)
    # Rounding may exceed a bound.
    uniform = (torch.rand(shape) * (high - low) + low).clamp(low, high)
    normal = torch.randn(shape).clamp(low, high)
    return torch.where(bounded, uniform, normal)
