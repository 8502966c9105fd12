"""Classification learnt from rewards only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..replay import Replay, Space
from .calling import call, output_of
from .log import Log
from .supervised import network


class Bandit(nn.Module):
    """Chooses a class and learns whether it was right, but never which class would have been right.

        p = softmax(q(s))          a ~ p          r = 1 if a is the label, else 0
        L = -r log p_a - (1 - r) log(1 - p_a)

    Exactly one class is right, so p_a is the expected reward of choosing a: the value of a choice without
    a future (Sutton & Barto, 2018, section 2.9, associative search), learnt by maximum likelihood. A wrong
    choice says "not this one", and likely classes are tried more often.

    Args:
        obs_spec, action_spec: Spaces of the inputs, `[B, *shape]`, and of the classes.
        hidden: Width of an MLP's layers, in units; convolutions have a fraction as many channels.
        encoder: Replaces our first layers: `[B, *obs.shape]` to features `[B, ...]`.
    """

    def __init__(
        self,
        obs_spec: Space,
        action_spec: Space,
        hidden: int = 256,
        encoder: nn.Module | None = None,
    ):
        super().__init__()
        self.network = network(obs_spec, action_spec.n, hidden, encoder)

    def forward(self, obs: Tensor) -> Tensor:
        """`[B, *obs.shape]` to logits of the choices, `[B, n]`."""
        return call(self.network, obs)

    def learn(self, replay: Replay, log: Log) -> Tensor:
        batch = next(replay)
        q = output_of(self, batch)
        with torch.no_grad():
            action = q.softmax(1).multinomial(1)  # [B, 1]
            reward = (action.squeeze(1) == batch.label).float()
        log.reward = reward.mean()
        log_total = q.logsumexp(1)
        log_p = q.gather(1, action).squeeze(1) - log_total
        # 1 - p as the sum of the others' p: exact where p rounds to 1 in float32, with a nonzero gradient.
        log_not_p = q.scatter(1, action, -1e30).logsumexp(1) - log_total
        return -(reward * log_p + (1 - reward) * log_not_p).mean()
