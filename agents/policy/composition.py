"""A policy and a value function composed of the user's modules and our own.

Legend: B the batch, T time steps. With a recurrent part everything is `[B, T, ...]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution

from ...replay import Space
from ...replay.batch import Tensors
from ...replay.tree import leaves, map_tree, slashed
from ..blocks.encoder import encoder as own_encoder
from ..traits import takes_state
from .distributions import parts_of
from .heads import distribution, logits_shape
from .parts import ACTION, OBS, CriticPart, Part, PolicyPart, value_of
from .states import State


class Composition(nn.Module):
    """Encoder, policy and critic, any of which may be the user's; the others are constructed to fit.

    Keys that the policy returns beside the actions' logits are passed on to a critic that takes dicts, so
    that a shared embedding is computed once; without a critic, a key `value` is the value estimate. An
    encoder runs once, and both policy and critic receive its features.

    Args:
        obs_spec, action_spec: Spaces of observations, `[B, *shape]`, and of actions; or dicts of them.
        hidden: Widths of our own networks' layers, ints from 1.
        encoder: `forward(obs)` to features `[B, ...]`.
        policy: `forward(obs)` to logits `[B, ...]` or distributions, and extra keys.
        critic: `forward(obs)` to values, float32 `[B]` or `[B, 1]`.

    Raises:
        ConfigError: If a part raises, or its output does not fit.
    """

    def __init__(
        self,
        obs_spec: Space | dict[str, Space],
        action_spec: Space | dict[str, Space],
        hidden: Sequence[int],
        *,
        encoder: nn.Module | None = None,
        policy: nn.Module | None = None,
        critic: nn.Module | None = None,
    ):
        super().__init__()
        self.action_spec = action_spec
        given = [part for part in (encoder, policy, critic) if part is not None]
        self.recurrent = any(takes_state(part) for part in given)
        sequences = self.recurrent
        seen = obs_spec
        self.encoder: Part | None = None
        if encoder is not None:
            self.encoder = Part(encoder, sequences=sequences)
            features, _ = self.encoder.probe(obs_spec, {})
            seen = Space(tuple(features.shape[2 if sequences else 1 :]))
        policy = Heads(seen, action_spec, hidden) if policy is None else policy
        self.policy = PolicyPart(policy, action_spec, sequences=sequences)
        output, sources = self.policy.probe(seen, {})
        self.policy.check(output, sources)
        # Where each head's logits come from, by the head's name.
        self.heads = {name: sources.layer(logits) for name, logits in self._named(output).items()}
        extras = self.policy.split(output)[1]
        self.critic: CriticPart | None = None
        if critic is not None or "value" not in extras:
            critic = Value(seen, hidden) if critic is None else critic
            self.critic = CriticPart(critic, sequences=sequences)
            self._hands_over = bool(extras) and self.critic.takes_extras(seen)
            values, sources = self.critic.probe(seen, extras if self._hands_over else {})
            self.critic.check(values, sources)

    def forward(self, obs: Tensors, state: State = None) -> tuple[Distribution, Tensor, State]:
        """The policy at `obs`, the values there, float32 `[B]`, and the next state."""
        before = state or {}
        after: dict[str, State] = {}
        if self.encoder is not None:
            obs, after["encoder"] = self.encoder(obs, before.get("encoder"))
        output, after["policy"] = self.policy(obs, before.get("policy"))
        actions, extras = self.policy.split(output)
        if self.critic is None:
            name = type(self.policy.module).__name__
            value = value_of(extras, name, sequences=self.recurrent)
        else:
            if self._hands_over:
                obs = {**(obs if isinstance(obs, dict) else {OBS: obs}), **extras}
            value, after["critic"] = self.critic.value(obs, before.get("critic"))
        state = {name: part for name, part in after.items() if part is not None}
        policy = distribution(self.action_spec, actions, batch_shape=tuple(value.shape))
        return policy, value, state

    def select(self, state: State, index: Tensor) -> State:
        """Rows of a state by index, int64 `[S]`; -1 selects the initial state of an episode."""
        parts = {"encoder": self.encoder, "policy": self.policy, "critic": self.critic}
        return {name: parts[name].select(part, index) for name, part in state.items()}  # type: ignore[union-attr]

    def _named(self, output: object) -> dict[str, Any]:
        """The output for every head, by its name: `arm/door` in nested dicts."""
        return slashed(self.policy.split(output)[0])


class View(nn.Module):
    """A composition with parts and outputs under their names, for drawing."""

    def __init__(self, composition: Composition):
        super().__init__()
        for name, part in composition.named_children():
            self.add_module(name, part.module)  # type: ignore[arg-type]
        self._composition = [composition]  # In a list, so that it is not drawn as a submodule.

    def forward(self, obs: Tensors) -> dict[str, Any]:
        composition = self._composition[0]
        policy, value, state = composition(obs)
        actions = parts_of(policy)
        actions = actions if isinstance(actions, dict) else {ACTION: actions}
        return {**actions, "value": value, **({"state": state} if state else {})}


class Heads(nn.Module):
    """Our own policy: layers of the widths in `hidden`, then logits of every action."""

    def __init__(
        self,
        obs_spec: Space | dict[str, Space],
        action_spec: Space | dict[str, Space],
        hidden: Sequence[int],
    ):
        super().__init__()
        self.trunk = own_encoder(obs_spec, hidden)
        self.action_spec = action_spec
        # Not a ModuleDict: an action's name may hold a dot, or be `keys`.
        self.layers = nn.ModuleList(
            nn.Linear(self.trunk.out_features, logits_shape(space)[0])
            for space in leaves(action_spec)
        )

    def forward(self, obs: Tensors) -> Any:
        features = self.trunk(obs)
        layers = iter(self.layers)  # One head per action, in the same order.
        return map_tree(lambda _: next(layers)(features), self.action_spec)


class Value(nn.Module):
    """Our own critic: layers of the widths in `hidden`, then one number."""

    def __init__(self, obs_spec: Space | dict[str, Space], hidden: Sequence[int]):
        super().__init__()
        self.trunk = own_encoder(obs_spec, hidden)
        self.layer = nn.Linear(self.trunk.out_features, 1)

    def forward(self, obs: Tensors) -> Tensor:
        return self.layer(self.trunk(obs)).squeeze(-1)
