"""The networks of on-policy agents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ...replay import Batch, Space
from ...replay.batch import Tensors
from ...replay.tree import slashed
from ..blocks.encoder import Layers, encoder
from ..traits import Traits
from .advantages import advantages, at, next_values, places
from .composition import Composition
from .episodes import segments
from .heads import action_head, estimate, executable
from .masks import ACTION_MASK, mask_in, restricted
from .parts import ACTION
from .states import State, as_steps, first_steps


class ActorCritic(nn.Module):
    """A policy and a value function: two networks that share nothing, or modules of the user's.

    Our own networks start with orthogonal weights: gain sqrt(2) in hidden layers, 1 for values, and 0.01
    for actions, so that the initial policy is nearly uniform and explores (Andrychowicz et al., 2020, arXiv
    2006.05990).

    With `env_info=[action_mask]` the policy excludes masked actions, both when it acts and when it learns;
    see `agents/policy/masks.py`. With a recurrent part, everything is `[B, T, ...]`.

    Args:
        obs_spec, action_spec: Spaces of observations, `[B, *shape]`, and of actions; or dicts of them.
        hidden: Widths of the layers of either network, in units; tanh follows each (ReLU on images).
        parts: The user's `encoder`, `policy` and `critic`, any of which may be None; see `Composition`.
    """

    def __init__(
        self,
        obs_spec: Space | dict[str, Space],
        action_spec: Space | dict[str, Space],
        hidden: Sequence[int],
        parts: dict[str, nn.Module | None],
    ):
        super().__init__()
        self.action_spec = action_spec
        self.composition: Composition | None = None
        if any(part is not None for part in parts.values()):
            self.composition = Composition(obs_spec, action_spec, hidden, **parts)
        self._carries_state = self.composition is not None and self.composition.recurrent
        self.antelope_traits = Traits(
            recurrent=self._carries_state,
            by_sequence=self._carries_state,
            on_policy=True,
            composition=self.composition,
            logits=True,
        )
        if self.composition is not None:
            return
        images = isinstance(obs_spec, Space) and len(obs_spec.shape) == 3
        activation = nn.ReLU if images else Tanh
        self.head = action_head(action_spec)
        seen, critic_encoder = (encoder(obs_spec, hidden, activation) for _ in range(2))
        self.actor = Layers(*seen, nn.Linear(seen.out_features, self.head.out_features))
        self.critic = Layers(*critic_encoder, nn.Linear(critic_encoder.out_features, 1))
        for network, gain in ((self.actor, 0.01), (self.critic, 1.0)):
            for layer in network.modules():
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    nn.init.orthogonal_(layer.weight, gain if layer is network[-1] else 2**0.5)
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)

    def forward(self, obs: Tensors, state: State = None) -> Any:
        """`[B, *obs.shape]` to logits or the mean action, `[B, *action.shape]`; recurrent: and the state."""
        if self.composition is None:
            return self.head.estimate(self.actor(obs))
        policy, _, state = self.composition(obs, state)
        output = estimate(self.action_spec, policy)
        return (output, state) if self._carries_state else output

    def act(self, obs: Tensors, state: State = None, info: dict[str, Any] | None = None) -> Any:
        """`[N, *obs.shape]` to a sample from the policy, or to its mode in evaluation.

        Returns:
            In evaluation, actions `[N, *shape]`; in training, `(actions, extras)` with `log_prob` and
            `value`, float32 `[N]`. A recurrent agent returns `(actions, extras, state)` in both.
        """
        mask = mask_in(info)
        if not (self.training or self._carries_state):
            return self.executable(restricted(self.policy(obs), mask).mode)
        if self._carries_state:
            obs, mask = as_steps(obs), None if mask is None else as_steps(mask)
        policy, value, state = self.both(obs, state)
        policy = restricted(policy, mask)
        action = policy.sample() if self.training else policy.mode
        extras = {}
        if self.training:
            extras = {"log_prob": policy.log_prob(action), "value": value}
            if self.clips:
                # The unclipped sample, whose log-probability is known.
                extras["raw_action"] = action
        action = self.executable(action)
        if self._carries_state:
            return first_steps(action), first_steps(extras), state
        return action, extras

    def both(self, obs: Tensors, state: State = None) -> tuple[Distribution, Tensor, State]:
        """The policy, the values `[B]`, and the next state."""
        if self.composition is not None:
            return self.composition(obs, state)
        return self.policy(obs), self.value(obs), None

    def policy(self, obs: Tensors) -> Distribution:
        """`[B, *obs.shape]` to a distribution over actions."""
        if self.composition is not None:
            return self.composition(obs)[0]
        return self.head(self.actor(obs))

    def value(self, obs: Tensors) -> Tensor:
        """`[B, *obs.shape]` to the expected return, float32 `[B]`."""
        if self.composition is not None:
            return self.composition(obs)[1]
        return self.critic(obs).squeeze(-1).float()

    @property
    def clips(self) -> bool:
        """Whether sampled actions may lie outside the space."""
        return self.head.clips if self.composition is None else True

    def executable(self, action: Any) -> Any:
        """The action that the environment receives for a sampled one: within the space's bounds."""
        if self.composition is None:
            return self.head.executable(action)
        return executable(self.action_spec, action)

    def head_layers(self) -> dict[str, tuple[nn.Module | None, slice]]:
        """The layer that computes each action's logits, and which of its outputs they are.

        Keys are the actions' names: `arm/door` in nested dicts, `action` for a single action.
        """
        if self.composition is not None:
            heads = self.composition.heads
            return {name or ACTION: (layer, slice(None)) for name, layer in heads.items()}
        layers: dict[str, tuple[nn.Module | None, slice]] = {}
        start = 0  # The output is split among the actions in the order of the dict.
        for name, space in slashed(self.action_spec).items():
            end = start + action_head(space).out_features
            layers[name or ACTION] = (self.actor[-1], slice(start, end))
            start = end
        return layers

    def with_advantages(self, rollout: Batch, *, gae_lambda: float) -> Batch:
        """A rollout's transitions with their advantages: `obs`, `action`, `advantage`, `target`, ...

        Args:
            rollout: `[T, N, ...]`, as `replay.rollout()` returns it.
            gae_lambda: Float in [0, 1]; see `advantages`.

        Returns:
            M transitions, `[M, ...]`. For a recurrent agent, S segments of episodes, `[S, L, ...]`, with
            `mask`, bool `[S, L]`, and `state`, each segment's initial state.
        """
        data = Batch(
            obs=rollout.obs,
            action=rollout.raw_action if "raw_action" in rollout else rollout.action,
        )
        for name in ("log_prob", ACTION_MASK):
            if name in rollout:
                data[name] = rollout[name]
        if not self._carries_state:
            value = rollout.value
            following = next_values(rollout, value, self.value)
            data["advantage"] = advantages(rollout, value, following, gae_lambda=gae_lambda)
            data["target"] = data.advantage + value
            real = places(rollout.mask)
            return data.map(lambda field: at(field, real))  # (T, N, ...) to (M, ...)
        composition = self.composition
        assert composition is not None
        cut = segments(rollout)
        state = composition.select(rollout.state, cut.first)
        with torch.no_grad():
            values = composition(cut.with_last(rollout.obs, rollout.next_obs), state)[1]
        value, following = cut.back(values[:, :-1]), cut.back(values[:, 1:])  # [T, N]
        data["advantage"] = advantages(rollout, value, following, gae_lambda=gae_lambda)
        data["target"] = data.advantage + value
        return Batch(**data.map(cut.take), mask=cut.mask, state=state)

    def rows_of(self, data: Batch, rows: Tensor) -> Batch:
        """Some rows of the result of `with_advantages`; `rows` is int64 `[n]`."""
        if not self._carries_state:
            return data[rows]
        assert self.composition is not None
        fields = Batch(**{name: data[name] for name in data if name != "state"})[rows]
        return Batch(**fields, state=self.composition.select(data.state, rows))

    def evaluate_actions(self, batch: Batch) -> tuple[Tensor, Tensor, Distribution, Batch]:
        """Log-probabilities and values `[M]`, the policy, and the batch's unmasked steps `[M, ...]`."""
        rules = mask_in(batch)
        if not self._carries_state:
            policy, value, _ = self.both(batch.obs)
            policy = restricted(policy, rules)
            return policy.log_prob(batch.action), value, policy, batch
        policy, value, _ = self.both(batch.obs, batch.state)
        policy = restricted(policy, rules)
        mask, names = batch.mask, ("log_prob", "advantage", "target")
        steps = Batch(**{name: batch[name][mask] for name in names if name in batch})
        return policy.log_prob(batch.action)[mask], value[mask], policy, steps

    def entropy(self, policy: Distribution, batch: Batch) -> Tensor:
        """The mean entropy of the policy over the unmasked steps, in nats."""
        entropy = policy.entropy()
        return (entropy[batch.mask] if self._carries_state else entropy).mean()


class Tanh(nn.Module):
    """tanh(x) as 2 sigmoid(2 x) - 1, which agrees to 2e-7.

    On a CPU, for 256x64 numbers, torch's tanh takes 33 us and this 10 us, which saves 5 % of an update.
    """

    def forward(self, x: Tensor) -> Tensor:
        # A graph for other tools is for any number of rows, and so has no such branch.
        if torch.compiler.is_exporting() or x.numel() < 4096 or x.device.type != "cpu":
            return x.tanh()
        return torch.rsub(torch.sigmoid(x + x), -1, alpha=-2)
