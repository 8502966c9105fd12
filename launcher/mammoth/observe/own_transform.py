"""What the transforms of a user's own `ContinualDataset` make of its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ....replay import Spec
from .transform import Transform


class Rows:
    """Batches of a sequence's rows, in the place of `Standardize`.

    Args:
        train: Makes of a row in [0, 1] what a model learns from.
        ends: What 0 and 1 become where a row is not augmented.
        augments: Whether `train` is random.

    Attributes:
        augment: None where it does not.
        layout: How images lie in memory; None: channels first.
    """

    layout: torch.memory_format | None = None
    as_stored = False

    def __init__(
        self,
        train: Callable[[Tensor], Tensor],
        ends: tuple[Tensor, Tensor],
        *,
        augments: bool,
        bytes_only: bool,
    ):
        self.train, self._ends, self.bytes_only = train, ends, bytes_only
        self.augment = self.augmented if augments else None

    def __call__(self, fields: dict[str, Any]) -> dict[str, Any]:
        if "raw" in fields:
            fields["raw"] = self.normalise(fields["raw"])
        return self._laid_out(fields)

    def plain(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The same without augmentation."""
        if "raw" in fields:
            fields["obs"] = self.normalise(fields.pop("raw"))
        return self._laid_out(fields)

    def observe(self, stored: Tensor, device: torch.device | None = None) -> Tensor:
        """Stored rows alone, `[B, *shape]`, as a model is evaluated on them."""
        rows = stored if device is None else stored.to(device)
        return self._laid_out({"obs": rows})["obs"]

    def normalise(self, rows: Tensor) -> Tensor:
        """Rows in [0, 1] as a model is evaluated on them."""
        low, high = (end.to(rows.device) for end in self._ends)
        return rows * (high - low) + low

    def unit(self, obs: Tensor) -> Tensor:
        """Rows as they were before they were normalised."""
        low, high = (end.to(obs.device) for end in self._ends)
        rows = (obs - low) / torch.where(high > low, high - low, 1.0)
        # To the bit what they were: a byte by 255, as torchvision makes floats of pictures.
        return (rows * 255).round_().div_(255) if self.bytes_only else rows

    def anew(self, raw: Tensor) -> Tensor:
        """Stored rows (`batch.raw`), augmented again."""
        obs = self.augmented(self.unit(raw))
        return self._laid_out({"obs": obs})["obs"]

    def ends(self) -> tuple[Tensor, Tensor]:
        """What 0 and 1 become, each `[*obs.shape]`."""
        return self._ends

    def augmented(self, rows: Tensor) -> Tensor:
        """Rows in [0, 1], `[B, *shape]`, one after another as the class's transform makes them."""
        host = rows.cpu()
        return torch.stack([self.train(row) for row in host]).to(rows.device)

    def _laid_out(self, fields: dict[str, Any]) -> dict[str, Any]:
        if self.layout is not None and fields["obs"].dim() == 4:
            fields["obs"] = fields["obs"].contiguous(memory_format=self.layout)
        return fields


class Plain:
    """The same rows, to evaluate with."""

    layout: torch.memory_format | None = None
    augment = None
    as_stored = False

    def __init__(self, rows: Rows):
        self.rows = rows

    def __call__(self, fields: dict[str, Any]) -> dict[str, Any]:
        return self.rows.plain(fields)

    plain = __call__

    def observe(self, stored: Tensor, device: torch.device | None = None) -> Tensor:
        """Stored rows alone, `[B, *shape]`."""
        return self.rows.observe(stored, device)

    def ends(self) -> tuple[Tensor, Tensor]:
        return self.rows.ends()


class OwnTransform(Transform):
    """As every `Transform`, of a sequence that has its own."""

    def __init__(self, spec: Spec, rows: Rows, device: torch.device):
        super().__init__(spec, rows, rows.augment, device)
        self.rows = rows

    def __call__(self, rows: Tensor) -> Tensor:
        single = rows.dim() == self.dims
        made = self.rows.augmented(rows[None] if single else rows)
        return made[0] if single else made

    def undone(self, obs: Tensor) -> Tensor:
        return self.rows.unit(obs)
