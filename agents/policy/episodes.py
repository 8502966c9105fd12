"""Cuts a rollout where episodes begin, for agents that carry a state.

Legend: T time steps, N environments, S segments, L steps of the longest of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...replay import Batch
from ...replay.batch import Tensors
from .states import zip_leaves


@dataclass(frozen=True)
class Segments:
    """The steps of a rollout, grouped by episode.

    Attributes:
        index: Positions in the flattened rollout, `t * N + e`, int64 `[S, L]`; a short segment repeats
            its last step.
        mask: Which of them are real steps, bool `[S, L]`.
        first: The environment whose state a segment begins with, int64 `[S]`; -1: an episode's start.
        shape: T and N.
    """

    index: Tensor
    mask: Tensor
    first: Tensor
    shape: tuple[int, int]

    def take(self, field: Tensor) -> Tensor:
        """`[T, N, ...]` to `[S, L, ...]`."""
        flat = field.flatten(0, 1).index_select(0, self.index.flatten())
        return flat.unflatten(0, tuple(self.index.shape))

    def back(self, field: Tensor) -> Tensor:
        """`[S, L]` to `[T, N]`, 0 where the rollout has no step."""
        flat = field.new_zeros(self.shape[0] * self.shape[1])
        flat[self.index[self.mask]] = field[self.mask]
        return flat.unflatten(0, self.shape)

    def with_last(self, obs: Tensors, next_obs: Tensors) -> Any:
        """Each segment's observations followed by its last `next_obs`: `[T, N, ...]` to `[S, L + 1, ...]`."""
        ends = self.mask.sum(1)  # [S]
        rows = torch.arange(len(ends), device=ends.device)

        def extend(now: Tensor, then: Tensor) -> Tensor:
            steps = self.take(now)
            steps = torch.cat((steps, steps[:, -1:]), 1)
            last = self.index[rows, ends - 1]
            steps[rows, ends] = then.flatten(0, 1).index_select(0, last)
            return steps

        return zip_leaves(extend, obs, next_obs)


def segments(rollout: Batch) -> Segments:
    """The segments of `replay.rollout()`, from its `mask` and `is_first`, both bool `[T, N]`."""
    mask, is_first = rollout.mask, rollout.is_first
    (steps, copies), device = mask.shape, mask.device
    starts = is_first.clone()
    starts[0] = True
    starts &= mask
    # Environment by environment, so that a segment's steps are consecutive.
    begin = starts.T.flatten().nonzero().squeeze(1)  # [S], e * T + t
    ends = torch.cat((begin[1:], begin.new_tensor([steps * copies])))
    column, taken = begin // steps, mask.sum(0)
    ends = torch.minimum(ends, column * steps + taken[column])
    length = ends - begin
    along = torch.arange(int(length.max()), device=device)
    place = begin[:, None] + torch.minimum(along, length[:, None] - 1)  # e * T + t
    index = (place % steps) * copies + place // steps
    first = torch.where(is_first.T.flatten()[begin], -1, column)
    return Segments(index, along < length[:, None], first, (steps, copies))
