"""Advantage actor-critic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..replay import Batch, Replay, Space
from .blocks.actor_critic import ActorCritic
from .blocks.advantages import advantages
from .blocks.arguments import check


class A2C(ActorCritic):
    """One step of policy gradient on each short rollout, on all environments at once.

        L = -E[log pi(a_t|s_t) A_t] + value_coef E[(V(s_t) - R_t)^2] - entropy_coef E[H(pi(.|s_t))]

    with advantages `A_t = R_t - V(s_t)` held constant, and `R_t` the rewards up to the end of the
    rollout completed by the critic.

    Source: Mnih et al. (2016), arXiv 1602.01783, section 4, with synchronous environments.

    Args:
        obs_spec, action_spec: What is seen and done; actions of every kind.
        steps: Length of a rollout, in steps of each environment.
        gae_lambda: Below 1: advantages lean on the critic (Schulman et al., 2015, arXiv 1506.02438).
        entropy_coef, value_coef: Weights of the entropy and of the critic's error.
        hidden: Widths of the layers of either network.
    """

    def __init__(
        self,
        obs_spec: Space | dict[str, Space],
        action_spec: Space | dict[str, Space],
        steps: int = 8,
        gae_lambda: float = 1.0,
        entropy_coef: float = 0.0,
        value_coef: float = 0.5,
        hidden: Sequence[int] = (64, 64),
    ):
        check(
            "A2C",
            counts={"steps": steps},
            amounts={"entropy_coef": entropy_coef, "value_coef": value_coef},
            shares={"gae_lambda": gae_lambda},
            widths={"hidden": hidden},
        )
        super().__init__(obs_spec, action_spec, hidden)
        self.steps, self.gae_lambda = steps, gae_lambda
        self.entropy_coef, self.value_coef = entropy_coef, value_coef

    def act(self, obs: Any) -> Any:
        """`[N, *obs.shape]` to a draw from the policy, or its mode when evaluating."""
        policy = self.policy(obs)
        if not self.training:
            return self.head.executable(policy.mode)
        action = policy.sample()
        # What was drawn: the environment gets it clipped.
        extras = {"raw_action": action} if self.head.clips else {}
        return self.head.executable(action), extras

    def learn(self, replay: Replay, log: Any) -> Tensor | None:
        """The loss of a rollout, once there is one."""
        if replay.fresh < self.steps:
            return None
        rollout = replay.rollout()
        mask = rollout.mask
        data = Batch(
            obs=rollout.obs,
            action=rollout.raw_action if "raw_action" in rollout else rollout.action,
        ).map(lambda field: field[mask])  # (T, N, ...) to (M, ...)
        policy, value = self.policy(data.obs), self.value(data.obs)
        constant = value.detach()
        value_TN = torch.zeros_like(rollout.reward).masked_scatter(mask, constant)
        advantage = advantages(rollout, value_TN, self.value, gae_lambda=self.gae_lambda)[mask]
        log.policy_loss = policy_loss = -(policy.log_prob(data.action) * advantage).mean()
        log.value_loss = value_loss = F.mse_loss(value, advantage + constant)
        log.entropy = entropy = policy.entropy().mean()
        return policy_loss + self.value_coef * value_loss - self.entropy_coef * entropy
