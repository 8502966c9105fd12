"""Sequences of different lengths, of ids or of numbers, as one vector each.

Legend: B rows, T steps of the longest of them.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from ...replay import Space

_WIDTH = 64  # Width of an embedding.
_ROWS = 65_521  # Rows of the embedding at most: beyond, several ids share a row.


class Sequences(nn.Module):
    """An embedding and a GRU over the real steps; their mean and the last one decide.

    Cho et al. (2014, arXiv 1406.1078). Padding comes after a row's real steps, so that the GRU never sees it
    before them, and it is left out afterwards.

    Args:
        space: Space of the inputs, `[T, *features]` int64 or float32.
        out_features: Width of the output, float32 `[B, out_features]`.
        hidden: Width of the GRU's state.
    """

    def __init__(self, space: Space, out_features: int, hidden: int = 128):
        super().__init__()
        features = prod(space.shape[1:])
        self.first = self.rows = 0
        if space.ids is not None:
            self.first = int(space.low)  # type: ignore[arg-type]
            self.rows = max(1, min(space.ids - self.first, _ROWS))
            self.embedding: nn.Module = nn.Embedding(self.rows, _WIDTH)
        else:
            self.embedding = nn.Linear(features, _WIDTH)
        self.memory = nn.GRU(_WIDTH, hidden, batch_first=True)
        self.head = nn.Linear(2 * hidden, out_features)

    def forward(self, obs: Tensor, length: Tensor, mask: Tensor) -> Tensor:
        """`[B, T, *features]`, with int64 `[B]` and bool `[B, T]`, to `[B, out_features]`."""
        steps = obs.flatten(2) if obs.dim() > 2 else obs[..., None]
        if self.rows:
            steps = self.embedding((steps - self.first).remainder(self.rows)).mean(2)
        else:
            steps = self.embedding(steps)
        steps = self.memory(steps)[0]  # [B, T, hidden]
        last = (length - 1)[:, None, None].expand(-1, 1, steps.shape[2])
        last = steps.gather(1, last).squeeze(1)
        mean = (steps * mask[..., None]).sum(1) / length[:, None]
        return self.head(torch.cat([mean, last], 1))
