"""The smallest network of the tests in this folder."""

from __future__ import annotations

from torch import Tensor, nn


class Net(nn.Module):
    """A linear layer."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs.flatten(1))
