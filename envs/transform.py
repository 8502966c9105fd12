"""What makes stored fields what a model receives: the protocol of `Standardize` and `Observations`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

Augment = Callable[[Tensor], Tensor]


class Transform(Protocol):
    """Makes stored fields what a model receives, on the whole batch.

    Attributes:
        layout: Memory format of images `[B, C, H, W]`; None: as they are stored, channels first.
    """

    layout: torch.memory_format | None

    @property
    def as_stored(self) -> bool:
        """Whether models receive observations as they are stored."""

    @property
    def augment(self) -> Augment | None:
        """Maps `[B, *shape]` to the same shape; None: nothing is augmented."""

    def __call__(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields of a batch, as the model receives them."""

    def observe(self, stored: Any, device: torch.device | None = None) -> Any:
        """Observations alone `[..., *stored shape]`, never augmented, on `device`."""
