"""Sequences of different lengths in one tensor: padded with zeros, and marked with their lengths.

A padded tensor carries its `Steps` along, as torch's nested tensors carry their offsets: whoever is handed
the inputs alone (a strategy's `predict(agent, obs, task)`) can still call a model that needs the lengths.
The mark is lost in any computation, so nothing is ever called with another tensor's lengths.

Legend: B rows, T steps of the longest of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

MARKED = ("obs", "raw")  # The fields of a batch that are padded, together with its `mask`.


class Steps(NamedTuple):
    """Which steps of a padded tensor `[B, T, ...]` are real.

    Attributes:
        length: Real steps of each row, int64 `[B]`, from 1.
        mask: True at real steps, bool `[B, T]`.
    """

    length: Tensor
    mask: Tensor


def mark(padded: Tensor, steps: Steps) -> Tensor:
    """The same tensor, which from now on carries its steps."""
    padded.antelope_steps = steps  # type: ignore[attr-defined]
    return padded


def unpadded(rows: Tensor) -> Tensor:
    """Sequences that all have one length, `[B, T, ...]`, marked so."""
    length = torch.full((len(rows),), rows.shape[1], device=rows.device)
    return mark(rows, Steps(length, mask_of(length, rows.shape[1])))


def steps_of(padded: object) -> Steps | None:
    """The steps that a padded tensor carries; None for any other value."""
    steps: Steps | None = getattr(padded, "antelope_steps", None)
    return steps


def mark_fields(fields: dict[str, Any]) -> None:
    """Mark the padded fields of a batch that has `length` and `mask`."""
    length, mask = fields["length"], fields.get("mask")
    if not isinstance(mask, Tensor) or length.dim() != 1:
        return  # An environment's own field of that name.
    for name in MARKED:
        if isinstance(field := fields.get(name), Tensor):
            mark(field, Steps(length, mask))


def mask_of(length: Tensor, longest: int) -> Tensor:
    """True at real steps, bool `[B, longest]`, for lengths int64 `[B]`."""
    return torch.arange(longest, device=length.device) < length[:, None]


def longest_of(mask: object, length: object) -> int | None:
    """The most real steps of a row, if a batch's fields `mask` and `length` say which steps are real.

    None: they are other fields of these names. On an accelerator this waits once, for that number.
    """
    if not (isinstance(mask, Tensor) and isinstance(length, Tensor) and len(length)):
        return None
    kinds = (mask.dim(), length.dim(), mask.dtype, length.dtype)
    if kinds != (2, 1, torch.bool, torch.int64):
        return None
    alike = (mask == mask_of(length, mask.shape[1])).all()
    longest = int(torch.where(alike, length.max(), -1))
    return None if longest < 0 else longest


def resized(field: Tensor, longest: int) -> Tensor:
    """A padded field `[B, T, ...]` as `[B, longest, ...]`; what is cut off must be padding."""
    missing = longest - field.shape[1]
    if missing <= 0:
        return field[:, :longest]
    return torch.cat([field, field.new_zeros(len(field), missing, *field.shape[2:])], 1)


def padded_alike(batches: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The fields of several batches, those of sequences all padded to the longest; others unchanged."""
    if not all("length" in fields and "mask" in fields for fields in batches):
        return list(batches)
    longest = max(fields["mask"].shape[1] for fields in batches)
    return [
        {n: resized(f, longest) if n in (*MARKED, "mask") else f for n, f in fields.items()}
        for fields in batches
    ]
