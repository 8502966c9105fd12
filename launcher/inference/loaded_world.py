"""What is known about the data or the environments of a loaded run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...envs.interface import Interface
from ...envs.kinds import OfData, OfEnvironments, is_ragged
from ...replay import Normalizer, Space, Spec
from ...replay.padding import Steps, mark, mask_of
from ...replay.tree import map_tree


@dataclass
class LoadedTask:
    """One task of a loaded run."""

    name: str
    interface: Interface | None = None


class LoadedData(OfData):
    """What is known about the data of a loaded run."""

    scenario: str | None = None  # Only strategies read it, and they are not loaded.

    def __init__(self, name: str, spec: Spec, tasks: list[LoadedTask]):
        self.name, self.spec, self.tasks = name, spec, tasks

    def example(self, n: int, device: torch.device) -> Any:
        """`n` rows of random inputs on a device, `[n, *shape]`, in the dtype and range of stored ones."""
        rows = map_tree(lambda space: _random(space, n, device), self.spec.obs)
        if not is_ragged(self.spec.obs):
            return rows
        length = torch.full((n,), rows.shape[1], device=device)
        return mark(rows, Steps(length, mask_of(length, rows.shape[1])))


def _random(space: Space, n: int, device: torch.device) -> Tensor:
    shape = (n, *space.shape)
    if space.ids is not None:
        return torch.randint(space.ids, shape, device=device)
    rows = torch.rand(shape, device=device)
    return (rows * 2).to(space.dtype) if space.scale is None else rows


class LoadedEnvironments(OfEnvironments):
    """What is known about the environments of a loaded run.

    Args:
        normalizer: Running statistics of observations, or None.
    """

    def __init__(
        self, name: str, spec: Spec, tasks: list[LoadedTask], normalizer: Normalizer | None
    ):
        self.name, self.spec, self.tasks, self.normalizer = name, spec, tasks, normalizer
