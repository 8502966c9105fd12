"""The protocol of `Standardize` and `Observations`, which turn stored fields into model inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

Augment = Callable[[Tensor], Tensor]


class Transform(Protocol):
    """Turns the stored fields of a whole batch into what a model receives.

    Attributes:
        layout: Memory format of images `[B, C, H, W]`; None: contiguous, channels first.
    """

    layout: torch.memory_format | None

    @property
    def as_stored(self) -> bool:
        """Whether models receive observations exactly as stored."""

    @property
    def augment(self) -> Augment | None:
        """Maps `[B, *shape]` to the same shape; None: there is no augmentation."""

    def __call__(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields of a batch, as the model receives them."""

    def observe(self, stored: Any, device: torch.device | None = None) -> Any:
        """Observations alone `[..., *stored shape]`, never augmented, on `device`."""
