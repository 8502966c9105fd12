"""Proximal policy optimisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..replay import Batch, Replay, Space
from ..replay.ranks import ranks
from .blocks.arguments import check
from .log import Log
from .policy.actor_critic import ActorCritic
from .policy.advantages import over_ranks

_ROLLOUT = (256, 2048)  # Steps of all environments together, at least and at most.


class PPO(ActorCritic):
    """Several epochs of policy gradient on each rollout, clipped where the policy has moved far enough.

        r_t(theta) = pi_theta(a_t|s_t) / pi_old(a_t|s_t)
        L = -E[min(r_t A_t, clip(r_t, 1 - eps, 1 + eps) A_t)]
            + value_coef E[(V(s_t) - R_t)^2] - entropy_coef E[H(pi(.|s_t))]

    with generalised advantages `A_t`, normalised over the rollout, and their returns `R_t`.

    With `env_info=[action_mask]` pi and pi_old are masked, pi(a|s) = 0 where the mask of s rules a out, in
    the ratio and in the entropy (Huang & Ontanon, 2022, arXiv 2006.14171).

    Source: Schulman et al. (2017), arXiv 1707.06347, eq. 7 and 9. It has an optimiser of its own, since
    one call of `learn` takes many steps.

    Args:
        obs_spec, action_spec: Spaces of observations, `[B, *shape]`, and of actions of any kind; or dicts.
        steps: Length of a rollout, in steps of each environment; default: 2048 steps, counted over all of
            them together, as in the paper; in short runs a tenth of the run, but at least 256.
        epochs: Passes over the steps of a rollout.
        minibatch_size: Approximate number of transitions per gradient step: a rollout is cut into equal
            parts.
        lr: Learning rate of Adam, a float above 0.
        clip: eps, a float: how far from 1 a change of the probability ratio is rewarded.
        gae_lambda: Float in [0, 1]. 1: advantages from rewards only; 0: from the critic only.
        entropy_coef, value_coef: Weights of the entropy and of the critic's error, floats from 0.
        max_grad_norm: Norm, a float, that the gradient is clipped to.
        hidden: Widths of the layers of either network, ints from 1.
        encoder, policy, critic: Replacements for our networks, from `[B, *obs.shape]`; see `Composition`.
        num_envs, train_steps: The run's number of environments, and steps of all of them together.
    """

    def __init__(
        self,
        obs_spec: Space | dict[str, Space],
        action_spec: Space | dict[str, Space],
        steps: int | None = None,
        epochs: int = 10,
        minibatch_size: int = 64,
        lr: float = 3e-4,
        clip: float = 0.2,
        gae_lambda: float = 0.95,
        entropy_coef: float = 0.0,
        value_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        hidden: Sequence[int] = (64, 64),
        encoder: nn.Module | None = None,
        policy: nn.Module | None = None,
        critic: nn.Module | None = None,
        num_envs: int = 1,
        train_steps: int = 50_000,
    ):
        if steps is None:
            least, most = _ROLLOUT
            steps = max(1, min(most, max(least, train_steps // 10)) // num_envs)
        check(
            "PPO",
            counts={"steps": steps, "epochs": epochs, "minibatch_size": minibatch_size},
            amounts={
                "lr": lr,
                "clip": clip,
                "entropy_coef": entropy_coef,
                "value_coef": value_coef,
                "max_grad_norm": max_grad_norm,
            },
            shares={"gae_lambda": gae_lambda},
            widths={"hidden": hidden},
        )
        parts = {"encoder": encoder, "policy": policy, "critic": critic}
        super().__init__(obs_spec, action_spec, hidden, parts)
        self.steps, self.epochs, self.minibatch_size = steps, epochs, minibatch_size
        self.clip, self.gae_lambda, self.max_grad_norm = clip, gae_lambda, max_grad_norm
        self.entropy_coef, self.value_coef = entropy_coef, value_coef
        self.optimizer = torch.optim.Adam(self.parameters(), lr, eps=1e-5, fused=True)

    def learn(self, replay: Replay, log: Log) -> None:
        """Learn from a complete rollout; does nothing until `steps` steps are collected."""
        if replay.new_steps < self.steps:
            return
        rollout = replay.rollout()
        data = self.with_advantages(rollout, gae_lambda=self.gae_lambda)
        counts = data.advantage[data.mask] if self._carries_state else data.advantage
        std, mean, steps, least = over_ranks(counts, len(data))
        data["advantage"] = (data.advantage - mean) / (std + 1e-8)
        # A recurrent agent draws whole segments, to keep each step's state right.
        parts = min(least, max(1, round(steps / self.minibatch_size)))
        parameters = list(self.parameters())
        for _ in range(self.epochs):
            order = torch.randperm(len(data), device=data.advantage.device)
            for rows in order.tensor_split(parts):
                loss, policy_loss, value_loss, log_ratio = self.losses(self.rows_of(data, rows))
                self.optimizer.zero_grad()
                loss.backward()
                ranks().settle(self.optimizer)  # Clipping needs the sum over all devices.
                nn.utils.clip_grad_norm_(parameters, self.max_grad_norm, foreach=True)
                self.optimizer.step()
        # From the last minibatch, where the policy is farthest from the one that acted.
        log.loss, log.policy_loss, log.value_loss = loss, policy_loss, value_loss
        off = log_ratio.expm1()
        log.approx_kl = (off - log_ratio).mean()
        log.clip_fraction = (off.abs() > self.clip).float().mean()
        # An estimate from the sampled actions.
        log.entropy = -rollout.log_prob[rollout.mask].mean()

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The loss on transitions `[B, ...]`, its policy and value parts, and `log r`, `[B]`."""
        log_prob, value, policy, steps = self.evaluate_actions(batch)
        log_ratio = log_prob - steps.log_prob
        # min(r A, clip(r) A) = min(r A, A + eps |A|), whatever the sign of A.
        bound = steps.advantage + self.clip * steps.advantage.abs()
        policy_loss = -torch.min(log_ratio.exp() * steps.advantage, bound).mean()
        value_loss = F.mse_loss(value, steps.target)
        loss = policy_loss + self.value_coef * value_loss
        if self.entropy_coef:
            loss = loss - self.entropy_coef * self.entropy(policy, batch)
        return loss, policy_loss, value_loss, log_ratio.detach()
