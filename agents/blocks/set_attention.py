"""Attention over a set of items."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...replay import ConfigError
from .attention import transformer


class SetAttention(nn.Module):
    """A transformer without positions: the order of the items does not matter.

    Sets `[B, N, ...]`, of any number of items, to `[B, out_features]`, the output of a learnt token that
    attends to all of them: pooling by attention (Lee et al., 2019, "Set Transformer", arXiv
    1810.00825, section 3.2, with one seed).

    Args:
        in_shape: `(N, ...)`; only the shape of an item matters.
        out_features: Width of the output.
        width: Width of a token, a multiple of `heads`.
        depth: Number of layers.
        heads: Attention heads per layer.

    Raises:
        ConfigError: If `in_shape` holds no items, or `width` is not a multiple of `heads`.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_features: int,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
    ):
        super().__init__()
        if len(in_shape) < 1:
            raise ConfigError(
                "SetAttention needs sets, in_shape=[items, features], got a single number. MLP takes "
                "observations of any shape."
            )
        self.embed = nn.Linear(prod(in_shape[1:]), width)
        self.token = nn.Parameter(torch.randn(width) * 0.02)
        self.transformer = transformer("SetAttention", width, depth, heads)
        self.head = nn.Linear(width, out_features)

    def forward(self, obs: Tensor, mask: Tensor | None = None) -> Tensor:
        """`[B, N, ...]` to `[B, out_features]`.

        Args:
            obs: The items, `[B, N, ...]`.
            mask: Bool `[B, N]`, True for items and False for padding. A set may be empty.
        """
        items = self.embed(obs.flatten(2) if obs.dim() > 2 else obs[..., None])
        tokens = torch.cat([self.token.expand(len(items), 1, -1), items], 1)  # [B, 1 + N, width]
        missing = None if mask is None else F.pad(~mask, (1, 0), value=False)
        return self.head(self.transformer(tokens, src_key_padding_mask=missing)[:, 0])
