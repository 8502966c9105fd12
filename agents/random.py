"""Acts at random: the baseline that every learner must beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..replay import Space


class Random(nn.Module):
    """Uniform actions within the action space; nothing is learnt.

    An unbounded dimension is drawn from a standard normal distribution, as gymnasium's
    `Box.sample` does.
    """

    def __init__(self, action_spec: Space):
        super().__init__()
        self.space = action_spec

    def act(self, obs: Tensor) -> Tensor:
        """`[N, *obs.shape]` to actions `[N]` (discrete) or `[N, *action.shape]`."""
        space = self.space
        if space.discrete:
            return torch.randint(space.n, (len(obs),), device=obs.device)
        shape = (len(obs), *space.shape)
        low = torch.as_tensor(-torch.inf if space.low is None else space.low, device=obs.device)
        high = torch.as_tensor(torch.inf if space.high is None else space.high, device=obs.device)
        bounded = torch.isfinite(low) & torch.isfinite(high)
        uniform = torch.rand(shape, device=obs.device) * (high - low) + low
        normal = torch.randn(shape, device=obs.device).clamp(low, high)
        return torch.where(bounded, uniform, normal)
