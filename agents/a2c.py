"""Advantage actor-critic."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..replay import Replay, Space
from .blocks.arguments import check
from .log import Log
from .policy.actor_critic import ActorCritic

_ROLLOUT = 64  # Default length of a rollout, in steps of all environments together.


class A2C(ActorCritic):
    """One policy-gradient step per short rollout, over all environments at once.

        L = -E[log pi(a_t|s_t) A_t] + value_coef E[(V(s_t) - R_t)^2] - entropy_coef E[H(pi(.|s_t))]

    with advantages `A_t = R_t - V(s_t)` held constant, where `R_t` is the discounted reward up to the end
    of the rollout plus the critic's value of the state after it.

    With `env_info=[action_mask]` pi is masked: pi(a|s) = 0 where the mask of s rules a out, and H is the
    entropy over the remaining actions (Huang & Ontanon, 2022, arXiv 2006.14171).

    Source: Mnih et al. (2016), arXiv 1602.01783, section 4, with synchronous environments.

    Args:
        obs_spec, action_spec: Spaces of observations, `[B, *shape]`, and of actions of any kind; or dicts.
        steps: Length of a rollout, in steps of each environment; default: 64 steps, counted over all of
            them together.
        gae_lambda: Float in [0, 1]; below 1, advantages rely more on the critic (Schulman et al., 2015,
            arXiv 1506.02438).
        entropy_coef, value_coef: Weights of the entropy and of the critic's error, floats from 0.
        hidden: Widths of the layers of either network, ints from 1.
        encoder, policy, critic: Replacements for our networks, from `[B, *obs.shape]`; see `Composition`.
        num_envs: Environments of the run, N: a rollout has `steps` rows of each.
    """

    def __init__(
        self,
        obs_spec: Space | dict[str, Space],
        action_spec: Space | dict[str, Space],
        steps: int | None = None,
        gae_lambda: float = 1.0,
        entropy_coef: float = 0.0,
        value_coef: float = 0.5,
        hidden: Sequence[int] = (64, 64),
        encoder: nn.Module | None = None,
        policy: nn.Module | None = None,
        critic: nn.Module | None = None,
        num_envs: int = 1,
    ):
        if steps is None:
            steps = max(1, _ROLLOUT // num_envs)
        check(
            "A2C",
            counts={"steps": steps},
            amounts={"entropy_coef": entropy_coef, "value_coef": value_coef},
            shares={"gae_lambda": gae_lambda},
            widths={"hidden": hidden},
        )
        parts = {"encoder": encoder, "policy": policy, "critic": critic}
        super().__init__(obs_spec, action_spec, hidden, parts)
        self.steps, self.gae_lambda = steps, gae_lambda
        self.entropy_coef, self.value_coef = entropy_coef, value_coef

    def learn(self, replay: Replay, log: Log) -> Tensor | None:
        """The loss of a complete rollout; None until `steps` steps are collected."""
        if replay.new_steps < self.steps:
            return None
        rollout = replay.rollout()
        data = self.with_advantages(rollout, gae_lambda=self.gae_lambda)
        log_prob, value, policy, steps = self.evaluate_actions(data)
        log.policy_loss = policy_loss = -(log_prob * steps.advantage).mean()
        log.value_loss = value_loss = F.mse_loss(value, steps.target)
        log.entropy = entropy = self.entropy(policy, data)
        return policy_loss + self.value_coef * value_loss - self.entropy_coef * entropy
