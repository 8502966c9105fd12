"""DRQN: a DQN that remembers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..replay import Replay, Space
from ..replay.batch import Tensors
from ..replay.tree import leaves, map_tree, zip_trees
from .blocks.encoder import encoder
from .blocks.target import follow, target_of
from .dqn import choices
from .log import Log
from .policy.masks import NEXT_ACTION_MASK, mask_in, masked


class DRQN(nn.Module):
    """Deep recurrent Q-network (Hausknecht & Stone, 2015, arXiv 1507.06527), with double Q-learning.

        h_t = GRU(x_t, h_{t-1})          Q_t = W h_t
        y_t = r_t + d_t Q'_{t+1}(argmax_a Q_{t+1}(a))
        L = mean over the steps of a sequence of huber(y_t - Q_t(a_t))

    Learns from sequences (`replay.sequence`) that begin with the state that the network had there
    (Kapturowski et al., 2019, R2D2: "stored state"). It explores like any model without `act`. With
    `env_info=[action_mask]` acting and the argmax range over the allowed actions only.

    Args:
        hidden: Width of the features and of the state, in units.
        tau: Fraction of the distance that the target network moves per learning step, in [0, 1].
    """

    def __init__(
        self,
        obs_spec: Space | dict[str, Any],
        action_spec: Space,
        hidden: int = 64,
        tau: float = 0.01,
    ):
        super().__init__()
        self.network = QMemory(obs_spec, choices(action_spec, "DRQN"), hidden)
        self.target = target_of(self.network)
        self.tau = tau

    def forward(self, obs: Tensors, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`[B, T, *obs.shape]` and a state `[1, B, hidden]` to Q-values `[B, T, n]` and the next state."""
        return self.network(obs, state)

    def learn(self, replay: Replay, log: Log) -> Tensor:
        batch = next(replay)
        follow(self.target, self.network, self.tau)
        q, _ = self._first_and_rest(self.network, batch)
        with torch.no_grad():
            next_q, _ = self._first_and_rest(self.target, batch)
            best = masked(q[:, 1:], mask_in(batch, NEXT_ACTION_MASK)).argmax(-1, keepdim=True)
            following = next_q[:, 1:].gather(-1, best).squeeze(-1)
            target = batch.reward + batch.discount * following  # [B, T]
        chosen = q[:, :-1].gather(-1, batch.action[..., None]).squeeze(-1)
        loss = F.smooth_l1_loss(chosen, target, reduction="none")
        log.q = chosen.mean()
        return (loss * batch.mask).sum() / batch.mask.sum()

    def _first_and_rest(self, network: QMemory, batch: Any) -> tuple[Tensor, Tensor]:
        """Q-values of the first observation and of every next one, `[B, T + 1, n]`."""
        obs = zip_trees(_before, batch.obs, batch.next_obs)
        return network(obs, batch.state)


class QMemory(nn.Module):
    """A layer (on images convolutions), a GRU and a head, over sequences."""

    def __init__(self, obs_spec: Space | dict[str, Any], num_actions: int, hidden: int):
        super().__init__()
        self.inputs = encoder(obs_spec, (hidden,))
        self.memory = nn.GRU(hidden, hidden, batch_first=True)
        self.head = nn.Linear(hidden, num_actions)

    def forward(self, obs: Tensors, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        length = leaves(obs)[0].shape[1]
        steps = self.inputs(map_tree(lambda x: x.flatten(0, 1), obs))  # [B * T, hidden]
        features, state = self.memory(steps.unflatten(0, (-1, length)), state)
        return self.head(features), state


def _before(obs: Tensor, next_obs: Tensor) -> Tensor:
    """The first observation, and every next one: `[B, T + 1, ...]` of two `[B, T, ...]`."""
    return torch.cat([obs[:, :1], next_obs], 1)
