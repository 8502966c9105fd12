"""From sequences of different lengths as stored to padded batches with `length` and `mask`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .errors import ConfigError
from .padding import MARKED, Steps, mark, mask_of, steps_of
from .transfer import upload
from .transform import Standardize


class StandardizeSequences(Standardize):
    """`Standardize` for padded sequences `[B, T, *features]`: their padding stays 0, whatever the statistics.

    Adds `mask`, bool `[B, T]`, to fields that have `length`, int64 `[B]`, and marks `obs` with both.
    """

    def __call__(self, fields: dict[str, Any]) -> dict[str, Any]:
        return _padded(super().__call__(fields))

    def without_augmentation(self, fields: dict[str, Any]) -> dict[str, Any]:
        return _padded(super().without_augmentation(fields))

    def observe(self, stored: Any, device: torch.device | None = None) -> Any:
        steps = steps_of(stored)
        assert steps is not None
        fields = {"obs": stored, "length": steps.length}
        fields = fields if device is None else upload(fields, device)
        return self.without_augmentation(fields)["obs"]

    def augment_again(self, raw: Any) -> Any:
        steps = steps_of(raw)
        assert steps is not None
        return _only_steps(super().augment_again(raw), steps)


def _padded(fields: dict[str, Any]) -> dict[str, Any]:
    length = fields["length"]
    for name in reversed(MARKED):  # `raw` has the length that an augmentation must not change.
        if name in fields:
            if "mask" not in fields:
                fields["mask"] = mask_of(length, fields[name].shape[1])
            fields[name] = _only_steps(fields[name], Steps(length, fields["mask"]))
    return fields


def _only_steps(obs: Tensor, steps: Steps) -> Tensor:
    """Padded inputs with 0 as padding, marked with their steps."""
    mask = steps.mask
    if obs.shape[:2] != mask.shape:
        raise ConfigError(
            f"aug= turned a batch of sequences {list(mask.shape)} into {list(obs.shape[:2])}. It must "
            "return as many steps as it receives."
        )
    if obs.is_floating_point():  # Ids are padded with 0 where they are stored.
        obs = obs.masked_fill(~mask.view(*mask.shape, *(1 for _ in obs.shape[2:])), 0)
    return mark(obs, steps)
