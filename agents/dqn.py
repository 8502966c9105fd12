"""DQN: learns the value of each choice, and takes the best one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..replay import ConfigError, Replay, Space
from ..replay.batch import Tensors
from .blocks.encoder import Layers, rows
from .blocks.schedule import Falling
from .blocks.target import follow, target_of
from .log import Log
from .policy.in_numpy import in_numpy
from .policy.masks import NEXT_ACTION_MASK, draw_allowed, mask_in, masked
from .policy.outputs import check_outputs
from .policy.parts import Part, trunk


class DQN(nn.Module):
    """Deep Q-network (Mnih et al., 2015, Nature 518; arXiv 1312.5602).

        y = r + d max_a Q'(s', a)                    L = huber(y - Q(s, a))
        y = r + d Q'(s', argmax_a Q(s', a))          with `double` (van Hasselt, 1509.06461)
        Q(s, a) = V(s) + A(s, a) - mean_a A(s, a)    with `dueling` (Wang, 1511.06581)

    Q' is a copy of Q that is updated every `target_every` learning steps. With `nstep=n`, r is the
    discounted sum of n rewards and d its discount. With `replay.prioritized=true` rows are weighted, and
    |y - Q| is their new priority (Schaul et al., 2015, arXiv 1511.05952).

        L + conservative (log sum_a exp Q(s, a) - Q(s, a_data))

    is conservative Q-learning (Kumar et al., 2020, arXiv 2006.04779, CQL(H)), for learning offline: it
    keeps Q of untried actions below Q of tried ones. Otherwise nothing would correct an overestimate.

    With `env_info=[action_mask]` a ranges over the actions that the mask of its own state allows: in the
    policy, in exploration, in the max and the argmax over a', and in the sum over a.

    Args:
        hidden: Widths of the layers; images pass a CNN first.
        double: Let the network choose the next action, and its target only evaluate it.
        dueling: Learn the state's value separately from the actions' advantages.
        epsilon: Share of random actions, first and last, in [0, 1]; it falls linearly, in each task again.
        explore_steps: Environment steps over which it falls; default: a fifth of `train_steps`.
        target_every: Learning steps between updates of the target.
        tau: Fraction of the distance that the target moves per update, a float in [0, 1]; small values with
            `target_every=1` make it follow smoothly.
        conservative: Weight of the conservative term, a float; 0: none. Offline, 0.5 to 1 is usual, with a
            target that follows quickly (`target_every=1 tau=0.05`): no new data arrives while it waits.
        encoder: Replaces our first layers: `[B, *obs.shape]` to features `[B, ...]`.
        critic: Replaces the whole network: `[B, *obs.shape]` to Q-values `[B, num_actions]`.
        train_steps: Environment steps of each task of the run.
    """

    def __init__(
        self,
        obs_spec: Space | dict[str, Space],
        action_spec: Space | dict[str, Space],
        hidden: Sequence[int] = (256, 256),
        double: bool = True,
        dueling: bool = False,
        epsilon: tuple[float, float] = (1.0, 0.05),
        explore_steps: int | None = None,
        target_every: int = 200,
        tau: float = 1.0,
        conservative: float = 0.0,
        encoder: nn.Module | None = None,
        critic: nn.Module | None = None,
        train_steps: int = 50_000,
    ):
        super().__init__()
        self.num_actions = choices(action_spec)
        self.space: Any = action_spec
        self.choose_by_network = double
        if explore_steps is None:
            explore_steps = train_steps // 5
        self.epsilon = Falling(*epsilon, explore_steps)
        self.target_every, self.tau, self.conservative = target_every, tau, conservative
        self.network: nn.Module
        if critic is not None:
            self.network = Values(critic, obs_spec, self.num_actions)
        else:
            self.network = q_network(
                obs_spec, self.num_actions, hidden, dueling=dueling, encoder=encoder
            )
        self.target = target_of(self.network)
        self.learning_steps = 0

    def forward(self, obs: Tensors) -> Tensor:
        """`[B, *obs.shape]` to Q-values `[B, num_actions]`."""
        return self.network(obs)

    def act(self, obs: Tensors, info: dict[str, Any] | None = None) -> Tensor:
        """`[N, *obs.shape]` to actions, int64 `[N]`: the best ones; in training, sometimes random ones."""
        mask = mask_in(info)
        if not self.training:
            return self.best(obs, mask)
        n = rows(obs)
        epsilon = self.epsilon.next(n)
        # Python's random numbers: drawing so few as tensors would take as long as the network.
        explore = [random.random() < epsilon for _ in range(n)]
        if True not in explore:
            return self.best(obs, mask)
        if False not in explore:
            return self._any(n, mask)
        action = self.best(obs, mask).cpu()  # Wanted there: what is drawn need not go up first.
        chance = self._any(n, mask)
        return torch.where(torch.tensor(explore), chance, action)

    def best(self, obs: Tensors, mask: Tensor | None = None) -> Tensor:
        """`[N, *obs.shape]` to the actions with the highest Q-values, int64 `[N]`, among those allowed."""
        values = in_numpy(self.network, obs)
        if values is None:
            return masked(self.network(obs), mask).argmax(1)
        if mask is not None:
            return masked(torch.from_numpy(values), mask).argmax(1)
        return torch.from_numpy(values.argmax(1))

    def _any(self, n: int, mask: Tensor | None) -> Tensor:
        """n actions at random, on the host."""
        if mask is None:
            return torch.randint(self.num_actions, (n,))
        return draw_allowed(self.space, mask).cpu()

    def learn(self, replay: Replay, log: Log) -> Tensor:
        batch = next(replay)
        if self.learning_steps % self.target_every == 0:
            follow(self.target, self.network, self.tau)
        self.learning_steps += 1
        all_q = self.network(batch.obs)  # [B, num_actions]
        q = all_q.gather(1, batch.action[:, None]).squeeze(1)  # [B]
        with torch.no_grad():
            following = self.next_value(batch.next_obs, mask_in(batch, NEXT_ACTION_MASK))  # [B]
            target = batch.reward + batch.discount * following  # [B]
        if self.learning_steps % 10 == 0:  # It takes as long as a layer.
            log.q = q.detach().mean()
        if replay.prioritized:
            replay.update_priorities(batch.index, (target - q).detach().abs())
            loss = (batch.weight * F.smooth_l1_loss(q, target, reduction="none")).mean()
        else:
            loss = F.smooth_l1_loss(q, target)
        if self.conservative:
            gap = (masked(all_q, mask_in(batch)).logsumexp(1) - q).mean()
            loss = loss + self.conservative * gap
            log.gap = gap.detach()
        return loss

    def begin_task(self, task: int) -> None:
        """Explore again: the best actions of an earlier task may never reach what this one rewards."""
        self.epsilon.taken = 0

    def next_value(self, next_obs: Tensors, mask: Tensor | None = None) -> Tensor:
        """`[B, *obs.shape]` to the value of the best allowed action there, float32 `[B]`."""
        next_q = self.target(next_obs)  # [B, num_actions]
        if not self.choose_by_network:
            return masked(next_q, mask).amax(1)
        best = masked(self.network(next_obs), mask).argmax(1, keepdim=True)
        return next_q.gather(1, best).squeeze(1)


def q_network(
    obs_spec: Space | dict[str, Space],
    num_actions: int,
    hidden: Sequence[int],
    *,
    dueling: bool,
    encoder: nn.Module | None = None,
) -> Layers:
    """From `[B, *obs.shape]` to Q-values `[B, num_actions]`."""
    seen = trunk(encoder, obs_spec, hidden)
    if not dueling:
        return Layers(*seen, nn.Linear(seen.out_features, num_actions))
    return Layers(*seen, nn.Linear(seen.out_features, 1 + num_actions), Dueling())


class Values(nn.Module):
    """The user's module as a network of Q-values.

    Raises:
        ConfigError: If it raises, is recurrent, or returns anything but Q-values.
    """

    def __init__(self, module: nn.Module, obs_spec: Space | dict[str, Space], num_actions: int):
        super().__init__()
        self.part, name = Part(module), type(module).__name__
        if self.part.recurrent:
            raise ConfigError(
                f"critic={name} carries a state, which DQN does not support. PPO does."
            )
        output, sources = self.part.probe(obs_spec, {})
        space = Space((num_actions,), torch.int64, discrete=True)
        check_outputs(output, space, 2, name, sources)

    def forward(self, obs: Tensors) -> Tensor:
        return self.part(obs)[0]


class Dueling(nn.Module):
    """V and A, `[B, 1 + num_actions]`, to Q = V + A - mean A, `[B, num_actions]`."""

    def forward(self, streams: Tensor) -> Tensor:
        value, advantage = streams[:, :1], streams[:, 1:]
        return value + advantage - advantage.mean(1, keepdim=True)


def choices(space: Space | dict[str, Space], agent: str = "DQN") -> int:
    """The number of actions to choose from.

    Raises:
        ConfigError: If an action is anything but a single choice.
    """
    if isinstance(space, dict):
        given = f"a dict of {', '.join(space)}. Take PPO or A2C"
    elif not space.discrete:
        given = f"{space}. Take SAC, TD3, DDPG or PPO, or set discrete=true to cut it into bins"
    elif space.nvec or space.binary:
        given = f"{space}. Take PPO or A2C"
    else:
        return space.n
    raise ConfigError(
        f"{agent} takes one choice among n, but this environment's action is {given}."
    )
