"""Converts between `batch.obs`, standardised or not, and pictures in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...replay import ConfigError, Space, Standardize


class Bounds(nn.Module):
    """The range of `batch.obs`, from the space's lowest value to its highest.

    Args:
        space: Space of the observations `[B, *shape]`, in the units of the stored data.
        standardize: Whether batches are standardised; otherwise they are in [0, 1].

    Raises:
        ConfigError: If the observations are integer ids.
    """

    low: Tensor
    high: Tensor

    def __init__(self, space: Space, *, standardize: bool):
        super().__init__()
        if space.ids is not None:
            raise ConfigError(
                f"Generation needs numbers, but the inputs are integers ({space}) and arrive "
                "unchanged. standardize=true treats them as numbers."
            )
        ends = Standardize(space, standardize=standardize).ends()
        for name, bound in zip(("low", "high"), ends, strict=True):
            self.register_buffer(name, bound, persistent=False)

    def unit(self, obs: Tensor) -> Tensor:
        """`[B, *shape]` in the units of `batch.obs` to [0, 1]."""
        # A feature with a single possible value becomes 0, without dividing by its width of 0.
        return (obs - self.low) / (self.high - self.low).clamp(min=1e-30)

    def obs(self, unit: Tensor) -> Tensor:
        """`[B, *shape]` in [0, 1] to the units of `batch.obs`."""
        return torch.lerp(self.low, self.high, unit)

    def clip(self, obs: Tensor) -> Tensor:
        """`[B, *shape]` clipped to the bounds."""
        return obs.clamp(self.low, self.high)


def check_images(space: Space | dict[str, Space], agent: str, *, side: int) -> Space:
    """The space itself, if it holds images `(C, H, W)`.

    Raises:
        ConfigError: If it does not, or if an image's sides are under `side` pixels; it names the agent.
    """
    given = f"a dict of {', '.join(space)}" if isinstance(space, dict) else str(space)
    if isinstance(space, dict) or len(space.shape) != 3 or min(space.shape[1:]) < side:
        raise ConfigError(
            f"{agent} generates images (C, H, W) of {side}x{side} pixels or more, but these "
            f"observations are {given}. VAE takes data of any shape."
        )
    return space
