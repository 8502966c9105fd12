"""The default agent: what trains when no model is given, and trains modules that have no `learn`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..replay import ConfigError, Replay, Space, Spec
from ..replay.batch import Tensors
from .bandit import Bandit
from .dqn import DQN
from .generative.dcgan import DCGAN
from .log import Log
from .policy.parts import PolicyPart, asks_for
from .ppo import PPO
from .sac import SAC
from .supervised import Supervised, supervised_loss
from .td3 import TD3
from .traits import hook, stated_traits, takes_info, takes_state


class AC2Agent(nn.Module):
    """Encoder, actor and critic for any spec: it chooses how to learn from what it receives.

        what it learns from     actions            how
        labels                  classes, values    cross-entropy, squared error (`Supervised`)
        rewards for labels      classes            the value of each choice (`Bandit`), with `rl`
        inputs                  -                  generator and discriminator (`DCGAN`), with `generate`
        an environment          one of n           Q-learning (`DQN`)
        an environment          bounded numbers    a squashed Gaussian policy (`SAC`)
        an environment          any other          policy gradient (`PPO`), also with `policy` or `critic`
        a saved replay          one of n           conservative Q-learning (`DQN`), with `offline`
        a saved replay          bounded numbers    a policy near the data's (`TD3`), with `offline`

    A `model` that returns one number per action is trained according to what the numbers mean: Q-values
    of choices (`DQN`), or the action itself (`TD3`, also for a `policy`). Any other is a policy (`PPO`).

    Args:
        spec: Spaces of the inputs, `[B, *spec.obs.shape]`, and of actions or targets.
        environment: Whether `spec` describes an environment, not a data set.
        rl, generate, offline: See above.
        model: A whole network for an environment, without a `learn` of its own.
        encoder, policy, critic, generator, discriminator: Modules that replace our own networks.
        hidden: Width of our own layers, in units: of an MLP on labels; half as many in environments.
        conditional: Generate by label.
        standardize: Whether a data set's inputs are standardised; only generation needs to know.

    Attributes:
        decision: What it chose, in one line.
    """

    decision: str

    def __init__(
        self,
        spec: Spec,
        environment: bool = False,
        rl: bool = False,
        generate: bool = False,
        offline: bool = False,
        model: nn.Module | None = None,
        encoder: nn.Module | None = None,
        policy: nn.Module | None = None,
        critic: nn.Module | None = None,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        hidden: int = 256,
        conditional: bool = False,
        standardize: bool = True,
    ):
        super().__init__()
        self.spec, self.hidden = spec, hidden
        actor = {"policy": policy, "critic": critic}
        pair: dict[str, Any] = {"generator": generator, "discriminator": discriminator}
        if environment:
            self._refuse("an environment", rl=rl or None, generate=generate or None, **pair)
            # The attribute's name is part of every checkpoint's keys.
            self.way = self._acting(model, encoder, offline=offline, **actor)
        elif generate:
            self._refuse("generate=true", rl=rl or None, encoder=encoder, **actor)
            self.way = DCGAN(
                spec.obs, spec.action, conditional=conditional, standardize=standardize, **pair
            )
            self.decision = "generation, by a generator against a discriminator (GAN)"
        elif rl:
            self._refuse("rl=true", **actor, **pair)
            if not spec.has_classes:
                raise ConfigError("rl=true needs classes to choose among, one per row.")
            self.way = Bandit(spec.obs, spec.action, hidden, encoder)
            self.decision = "classification by reward alone (the value of each choice)"
        else:
            self._refuse("a data set", **actor, **pair)
            self.way = Supervised(spec.obs, spec.action, hidden, encoder)
            self.decision = _SUPERVISED[spec.action.kind]
        stated = stated_traits(self.way)
        self._carries_state = bool(stated.recurrent)
        self.antelope_traits = dataclasses.replace(
            stated, recurrent=self._carries_state, decision=self.decision, core=self.way
        )
        # `traits` looks methods up: None hides those that this choice does not support.
        if not environment:
            self.act = None  # type: ignore[assignment]
        if generate:
            self.forward = None  # type: ignore[assignment]
        else:
            self.sample = None  # type: ignore[assignment]

    def forward(self, obs: Tensors, state: Any = None) -> Any:
        """`[B, *obs.shape]` to logits, Q-values or values, float32 `[B, *action.shape]`."""
        return self.way(obs, state) if self._carries_state else self.way(obs)

    def act(self, obs: Tensors, state: Any = None, info: dict[str, Any] | None = None) -> Any:
        """`[N, *obs.shape]` to actions, with exploration when training."""
        more = {"info": info} if info and takes_info(self.way.act) else {}
        return (
            self.way.act(obs, state, **more) if self._carries_state else self.way.act(obs, **more)
        )

    def learn(self, replay: Replay, log: Log) -> Tensor | None:
        """One learning step, or the loss for one."""
        if isinstance(self.way, Supervised):  # Calls this module's forward, which strategies hook.
            return supervised_loss(self, next(replay), self.spec.action)
        return self.way.learn(replay, log)

    def begin_task(self, task: int) -> None:
        """Pass a new task on to the agent inside, if that has a `begin_task`."""
        if (begin := hook(self.way, "begin_task")) is not None:
            begin(task)

    def sample(self, n: int, label: Tensor | None = None) -> Tensor:
        """n generated inputs, float32 `[n, *obs.shape]`; `label` is int64 `[n]`, or None."""
        return self.way.sample(n, label)

    def _acting(
        self,
        model: nn.Module | None,
        encoder: nn.Module | None,
        policy: nn.Module | None,
        critic: nn.Module | None,
        *,
        offline: bool,
    ) -> Any:
        """Construct the agent for an environment."""
        obs, action = self.spec.obs, self.spec.action
        choice, bounded = _is_choice(action), _is_bounded(action)
        given = policy if model is None else model
        plain = given is None or self._gives_actions(given)
        how = "from a saved replay, " if offline else ""
        if plain and choice and policy is None and critic is None:
            self.decision = f"{how}{'conservative ' * offline}Q-learning of discrete actions (DQN)"
            more = _OFFLINE_DQN if offline else _DQN
            return DQN(obs, action, self._widths, encoder=encoder, critic=model, **more)
        if plain and bounded and critic is None and (given is not None or offline):
            self.decision = how + "a deterministic policy of continuous actions (TD3)"
            more = _OFFLINE_TD3 if offline else {}
            return TD3(obs, action, self._widths, encoder=encoder, policy=given, **more)
        if plain and bounded and critic is None:
            self.decision = "a squashed Gaussian policy of continuous actions (SAC)"
            return SAC(obs, action, self._widths, encoder=encoder, **_SAC)
        if offline:
            raise ConfigError(
                "offline= needs actions that are one choice among n or bounded numbers, and supports neither "
                "critic= nor a policy that returns distributions: actor-critic agents need their own steps."
            )
        state = ", with a state" if _recurrent(encoder, given, critic) else ""
        self.decision = f"policy gradient (PPO){state}"
        return PPO(obs, action, steps=256, encoder=encoder, policy=given, critic=critic)

    @property
    def _widths(self) -> Sequence[int]:
        return (max(1, self.hidden // 2),) * 2

    def _gives_actions(self, policy: nn.Module) -> bool:
        """Whether a module returns one number per action: a choice's value, or the action itself."""
        if takes_state(policy) or asks_for(policy, "action_logits_shapes"):
            return False
        action = self.spec.action
        if isinstance(action, dict) or not (_is_choice(action) or _is_bounded(action)):
            return False
        output, _ = PolicyPart(policy, action).probe(self.spec.obs, {})
        return isinstance(output, Tensor) and tuple(output.shape) == (2, *action.shape)

    def _refuse(self, where: str, **parts: object) -> None:
        """Raise if any of these parts was passed: they have no use there."""
        if wrong := [f"`{name}`" for name, part in parts.items() if part is not None]:
            raise ConfigError(f"{' and '.join(wrong)} cannot be used with {where}.")


_SUPERVISED = {
    "classes": "classification (cross-entropy)",
    "values": "regression (squared error)",
    "labels": "several labels per row (binary cross-entropy)",
    "pixels": "segmentation (cross-entropy)",
}

# Tuned to reach 475 on CartPole-v1 within 40,000 steps, and -200 on Pendulum-v1 within 8,000.
_DQN: dict[str, Any] = {"explore_steps": 5000, "target_every": 1, "tau": 0.005}
_SAC: dict[str, Any] = {"tau": 0.02, "color": 0.0}
_OFFLINE_DQN: dict[str, Any] = {"target_every": 1, "tau": 0.05, "conservative": 0.5}
_OFFLINE_TD3: dict[str, Any] = {"imitation": 0.4}


def _recurrent(*modules: nn.Module | None) -> bool:
    return any(module is not None and takes_state(module) for module in modules)


def _is_choice(action: object) -> bool:
    return isinstance(action, Space) and action.discrete and not (action.nvec or action.binary)


def _is_bounded(action: object) -> bool:
    if not isinstance(action, Space) or action.discrete:
        return False
    bounds = (action.low, action.high)
    return all(b is not None and bool(torch.isfinite(torch.as_tensor(b)).all()) for b in bounds)
