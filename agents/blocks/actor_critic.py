"""The two networks of the agents that learn on-policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution

from ...replay import Space
from .distributions import ActionHead
from .encoder import encoder


class ActorCritic(nn.Module):
    """A policy and a value function that share nothing.

    Weights are orthogonal: gain sqrt(2) inside, 1 for values, and 0.01 for actions, so that the first
    policy explores everything (Andrychowicz et al., 2020, arXiv 2006.05990).

    Args:
        obs_spec, action_spec: What is seen and done.
        hidden: Widths of the layers of either network; tanh follows each (ReLU on images).
    """

    def __init__(
        self, obs_spec: Space | dict[str, Space], action_spec: Space, hidden: Sequence[int]
    ):
        super().__init__()
        images = isinstance(obs_spec, Space) and len(obs_spec.shape) == 3
        activation = nn.ReLU if images else nn.Tanh
        seen, judged = (encoder(obs_spec, hidden, activation) for _ in range(2))
        self.actor = nn.Sequential(seen, nn.Linear(seen.out_features, action_spec.n))
        self.critic = nn.Sequential(judged, nn.Linear(judged.out_features, 1))
        self.head = ActionHead(action_spec)
        for network, gain in ((self.actor, 0.01), (self.critic, 1.0)):
            for layer in network.modules():
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    nn.init.orthogonal_(layer.weight, gain if layer is network[-1] else 2**0.5)
                    nn.init.zeros_(layer.bias)

    def forward(self, obs: Any) -> Tensor:
        """`[B, *obs.shape]` to logits or the mean action, `[B, *action.shape]`."""
        output = self.actor(obs)
        if self.head.space.discrete:
            return output
        return self.head.executable(self.head(output).mode)

    def policy(self, obs: Any) -> Distribution:
        """`[B, *obs.shape]` to a distribution over actions."""
        return self.head(self.actor(obs))

    def value(self, obs: Any) -> Tensor:
        """`[B, *obs.shape]` to the return expected, `[B]`."""
        return self.critic(obs).squeeze(-1).float()
