"""What is known of the data or the environments of a run that was loaded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...envs.interface import Interface
from ...envs.kinds import OfData, OfEnvironments
from ...replay import Normalizer, Spec


@dataclass
class LoadedTask:
    """One task of a run that was loaded."""

    name: str
    interface: Interface | None = None


class LoadedData(OfData):
    """What is known of the data of a run that was loaded."""

    scenario: str | None = None  # Strategies, which it matters to, are not loaded.

    def __init__(self, name: str, spec: Spec, tasks: list[LoadedTask]):
        self.name, self.spec, self.tasks = name, spec, tasks

    def example(self, n: int, device: torch.device) -> Tensor:
        """`n` rows of made-up inputs on a device, `[n, *shape]`, as they would be stored."""
        space = self.spec.obs
        shape = (n, *space.shape)
        if space.ids is not None:
            return torch.randint(space.ids, shape, device=device)
        rows = torch.rand(shape, device=device)
        return (rows * 2).to(space.dtype) if space.scale is None else rows


class LoadedEnvironments(OfEnvironments):
    """What is known of the environments of a run that was loaded.

    Args:
        normalizer: Running statistics of observations, or None.
    """

    def __init__(
        self, name: str, spec: Spec, tasks: list[LoadedTask], normalizer: Normalizer | None
    ):
        self.name, self.spec, self.tasks, self.normalizer = name, spec, tasks, normalizer
