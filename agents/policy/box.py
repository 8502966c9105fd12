"""Conversion between an environment's continuous actions and the [-1, 1] of networks."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from ...replay import ConfigError, Space
from ..blocks.precision import full_precision


class UnitBox(nn.Module):
    """Actions `[B, *space.shape]` between the space's bounds, as `[B, size]` in [-1, 1] and back.

    Raises:
        ConfigError: If the space is discrete, a dict or unbounded; it names the agent.
    """

    low: Tensor
    high: Tensor

    def __init__(self, space: Space | dict[str, Space], agent: str):
        super().__init__()
        if isinstance(space, dict):
            raise ConfigError(
                f"{agent} takes one continuous action, but this environment's is a dict of "
                f"{', '.join(space)}. PPO and A2C take dicts."
            )
        if space.discrete:
            others = "DQN, SAC, PPO or A2C" if _is_choice(space) else "PPO or A2C"
            raise ConfigError(
                f"{agent} takes continuous actions, but this environment's are {space}. Take {others}."
            )
        low = torch.as_tensor(-torch.inf if space.low is None else space.low).float()
        high = torch.as_tensor(torch.inf if space.high is None else space.high).float()
        if not bool(torch.isfinite(high - low).all()):
            raise ConfigError(
                f"{agent} acts between bounds, but this environment's actions have none: low is "
                f"{space.low}, high is {space.high}. Take PPO or A2C, or bound the environment's "
                "action_space."
            )
        self.shape, self.size = space.shape, prod(space.shape)
        self.register_buffer("low", low.expand(space.shape).clone(), persistent=False)
        self.register_buffer("high", high.expand(space.shape).clone(), persistent=False)

    def scale(self, unit: Tensor) -> Tensor:
        """`[B, size]` in [-1, 1] to `[B, *shape]` in the environment's units."""
        # Unlike centre + radius * unit, this reaches the bounds exactly: environments check them.
        unit = full_precision(unit).view(-1, *self.shape)
        return torch.lerp(self.low, self.high, unit / 2 + 0.5)

    def unscale(self, action: Tensor) -> Tensor:
        """`[B, *shape]` in the environment's units to `[B, size]` in [-1, 1]."""
        # A dimension with a single value becomes -1.
        width = (self.high - self.low).clamp(min=1e-30)
        return (2 * (action - self.low) / width - 1).reshape(len(action), -1)


def _is_choice(space: Space) -> bool:
    return not space.nvec and not space.binary
