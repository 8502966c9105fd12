"""Turns labels that are stored as bytes into the numbers that losses take."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch

from ..replay import Space, Standardize
from ..replay.sequences import StandardizeSequences
from ..replay.spec import is_ragged

# Dtypes in a batch, by kind of target; in a table each label is one byte.
_IN_BATCHES = {"labels": torch.float32, "pixels": torch.int64}


@runtime_checkable
class MovesMasks(Protocol):
    """An augmentation that moves masks along with images.

    Attributes:
        masks: int64 `[B, H, W]`, before and after a call; None: there are none.
    """

    masks: torch.Tensor | None


class WithLabels(Standardize):
    """`Standardize` for rows whose labels are stored as bytes.

    Attributes:
        label: The dtype of labels in batches.
        moving: The augmentation, if it moves masks along with images; else None.
    """

    label: torch.dtype
    moving: MovesMasks | None = None

    def __call__(self, fields: dict[str, Any]) -> dict[str, Any]:
        fields["label"] = fields["label"].to(self.label)
        if (moving := self.moving) is None:
            return super().__call__(fields)
        fields["raw_label"] = moving.masks = fields["label"]
        try:
            fields = super().__call__(fields)
            fields["label"] = moving.masks
        finally:
            moving.masks = None
        return fields

    def without_augmentation(self, fields: dict[str, Any]) -> dict[str, Any]:
        if "label" in fields:
            fields["label"] = fields["label"].to(self.label)
        return super().without_augmentation(fields)


class SequencesWithLabels(WithLabels, StandardizeSequences):
    """Both, for sequences of different lengths."""


def standardizing(obs: Any, action: Space, **options: Any) -> Standardize:
    """The transform of rows with inputs and labels of these spaces.

    Args:
        options: As `Standardize` takes them.
    """
    dtype, ragged = _IN_BATCHES.get(action.kind), is_ragged(obs)
    if dtype is None:
        return StandardizeSequences(obs, **options) if ragged else Standardize(obs, **options)
    transform = SequencesWithLabels(obs, **options) if ragged else WithLabels(obs, **options)
    transform.label = dtype
    if isinstance(transform.augment, MovesMasks):
        transform.moving = transform.augment
    return transform


def in_batches(label: torch.Tensor, action: Space) -> torch.Tensor:
    """Stored labels in the dtype that batches have."""
    dtype = _IN_BATCHES.get(action.kind)
    return label if dtype is None else label.to(dtype)
