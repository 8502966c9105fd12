"""Between `batch.obs`, standardised or not, and the [0, 1] of a picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...replay import ConfigError, Space, Standardize


class Bounds(nn.Module):
    """The values that `batch.obs` can take, from the space's lowest to its highest.

    Args:
        space: Of the observations `[B, *shape]`, in the units of the stored data.
        standardize: Whether batches are standardised, else they are in [0, 1].

    Raises:
        ConfigError: If they are integers that are ids.
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
        # What can take only one value is 0.
        return (obs - self.low) / (self.high - self.low).clamp(min=1e-30)

    def obs(self, unit: Tensor) -> Tensor:
        """`[B, *shape]` in [0, 1] to the units of `batch.obs`."""
        return torch.lerp(self.low, self.high, unit)

    def clip(self, obs: Tensor) -> Tensor:
        """`[B, *shape]` with no value beyond the bounds."""
        return obs.clamp(self.low, self.high)


def check_images(space: Space | dict[str, Space], agent: str, *, side: int) -> Space:
    """The space itself, if it is one of images `(C, H, W)`.

    Raises:
        ConfigError: If it is not, or if an image is smaller than `side` pixels, on behalf of the
            agent named.
    """
    given = f"a dict of {', '.join(space)}" if isinstance(space, dict) else str(space)
    if isinstance(space, dict) or len(space.shape) != 3 or min(space.shape[1:]) < side:
        raise ConfigError(
            f"{agent} generates images (C, H, W) of {side}x{side} pixels or more, and these "
            f"observations are {given}. VAE takes data of any shape."
        )
    return space
