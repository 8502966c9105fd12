"""Several networks of one shape, computed together.

Legend: E members, B the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...replay import Batch, Replay
from .encoder import Trunk


class EnsembleLinear(nn.Module):
    """`members` linear layers in one product, each drawn as `nn.Linear` draws its weights.

    y_e = x_e W_e + b_e, from `[E, B, in_features]` (or `[B, in_features]`, the same for all of
    them) to `[E, B, out_features]`.
    """

    def __init__(self, members: int, in_features: int, out_features: int):
        super().__init__()
        bound = max(in_features, 1) ** -0.5
        # Outputs last, unlike nn.Linear: the gradient of the weights is a plain product then.
        weight = torch.empty(members, in_features, out_features).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.empty(members, 1, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            x = x.expand(len(self.weight), -1, -1)
        if self.weight.shape[2] == 1:  # A sum is several times faster than a product with a column.
            return (x * self.weight.mT).sum(2, keepdim=True) + self.bias
        return torch.baddbmm(self.bias, x, self.weight)

    def extra_repr(self) -> str:
        members, in_features, out_features = self.weight.shape
        return f"{members=}, {in_features=}, {out_features=}"


class Critics(nn.Module):
    """Q-functions that are trained apart and judged together (Fujimoto et al., 2018).

    Of continuous actions `[B, num_actions]`, which are an input: `critics(obs, action)` is `[E, B]`.
    Of choices, with `discrete`: `critics(obs)` is `[E, B, num_actions]`.

    Args:
        trunk: From observations to features; shared by the members.
        hidden: Widths of each member's layers.
    """

    def __init__(
        self,
        trunk: Trunk,
        num_actions: int,
        hidden: Sequence[int],
        *,
        members: int = 2,
        discrete: bool = False,
    ):
        super().__init__()
        self.trunk = trunk
        width = trunk.out_features + (0 if discrete else num_actions)
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [EnsembleLinear(members, width, size), nn.ReLU()]
            width = size
        layers += [EnsembleLinear(members, width, num_actions if discrete else 1)]
        self.members = nn.Sequential(*layers)

    def forward(self, obs: Any, action: Tensor | None = None) -> Tensor:
        features = self.trunk(obs)
        if action is None:
            return self.members(features)  # [E, B, num_actions]
        return self.members(torch.cat([features, action], 1)).squeeze(2)  # [E, B]


def td_loss(q: Tensor, target: Tensor, batch: Batch, replay: Replay) -> Tensor:
    """The members' mean squared errors, summed: `q` is `[E, B]`, `target` `[B]`.

    From a prioritised replay every row counts by its importance weight, and its priority is made the
    members' mean absolute error (Schaul et al., 2015, arXiv 1511.05952).
    """
    error = target - q
    loss = error.square()
    if replay.prioritized:
        replay.update_priorities(batch.index, error.detach().abs().mean(0))
        loss = loss * batch.weight
    return loss.mean(1).sum()
