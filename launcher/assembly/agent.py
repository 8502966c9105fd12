"""Constructs the model from the spec, with the parts that the plan names, on its device."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from torch import nn

from ...agents.ac2agent import AC2Agent
from ...agents.policy.raw_observations import takes_normalised
from ...agents.traits import has_forward, hook, stated_traits
from ...envs.transform import Transform
from ...envs.wishes import ENV_STEPS
from ...envs.world import WorldSpec
from ...replay import ConfigError
from ..settings.kinds import model_kind
from ..settings.object_names import name_of
from ..settings.plan import Plan
from .infer import advice, inferred
from .networks import network
from .parts import build_parts, critic_scores_actions, refuse_parts
from .schedule import asked_lengths

_AGENTS = AC2Agent.__module__.rpartition(".")[0]  # The package of Antelope's own agents.


def build_agent(
    plan: Plan, world: WorldSpec, device: torch.device, transforms: tuple[Transform, Transform]
) -> tuple[nn.Module, nn.Module]:
    """The module that learns, and the user's module, constructed from the spec, on the device.

    These are the same, with two exceptions: a module with `observe` is wrapped in an `Observer`, and in
    an environment a module without `learn` becomes the policy of an `AC2Agent`.

    Args:
        world: Provides the spec, and facts such as the number of environments.
        transforms: From stored rows to batches, for learning and for evaluation.

    Raises:
        ConfigError: If it cannot be constructed, or is not an `nn.Module`.
    """
    target, arguments = plan.model.target, plan.model.arguments
    if arguments and not plan.model.constructs:
        raise ConfigError(
            f"The model is already constructed, so {', '.join(arguments)} cannot be set. Give its class "
            "instead."
        )
    # A module from a finished run still expects raw observations, as that run left it.
    takes_normalised(target)
    agent = _constructed(plan, world, device, transforms)
    if not isinstance(agent, nn.Module):
        raise ConfigError(
            f"model={name_of(target)} returned a {type(agent).__name__}, not a torch.nn.Module."
        )
    own: Any = agent.own if stated_traits(agent).observes else agent
    _check_train(own)
    if not world.labelled and has_forward(agent) and hook(agent, "learn") is None:
        refuse_parts(plan, AC2Agent)
        agent = _as_policy(agent.to(device), plan, world, device)
    agent.to(device)
    # `train()` unconditionally would thaw parts that the user put into eval mode.
    if not agent.training:
        agent.train()
    return agent, own


def _constructed(
    plan: Plan,
    world: WorldSpec,
    device: torch.device,
    transforms: tuple[Transform, Transform],
) -> Any:
    """The plan's model as its class or function returns it, wrapped if it needs an `Observer`.

    Raises:
        ConfigError: If it cannot be constructed.
    """
    target, arguments = plan.model.target, plan.model.arguments
    constructs = plan.model.constructs
    table = inferred(world.spec, device=device)
    if _is_ours(target):  # In a user's class, `rl` or `generate` may mean anything.
        table |= _facts(plan, world)
    make = functools.partial(network, table=table, obs=world.spec.obs, instead=advice(world.spec))
    parts: dict[str, nn.Module] = {}
    # Otherwise the module becomes an AC2Agent's policy, and `_as_policy` builds parts around it.
    if world.labelled or hook(target, "learn") is not None or not has_forward(target):
        refuse_parts(plan, target)
        of_actions = constructs and critic_scores_actions(target)
        parts = build_parts(plan, world.spec, device, of_actions=of_actions)
    agent, kind = target, model_kind(target)
    if constructs and kind is None:
        agent = make(target, {**arguments, **parts})
        kind = model_kind(agent)  # A function may return any model.
    if kind is None:
        return agent
    return kind.build(
        agent,
        arguments if agent is target else {},
        plan,
        world,
        device,
        transforms=transforms,
        epochs=world.lengths(asked_lengths(plan)).epochs,
        network=make,
    )


def _facts(plan: Plan, world: WorldSpec) -> dict[str, Any]:
    """The values that only Antelope's own agents can ask for by a parameter's name."""
    return {
        "rl": plan.rl,
        "generate": plan.generate,
        "offline": plan.offline is not None,
        "standardize": plan.standardize,
        "train_steps": plan.train_steps or ENV_STEPS,
        "num_envs": plan.num_envs,
        **world.facts(),  # These may correct `num_envs`: a vector environment has its own number.
    }


def _check_train(module: nn.Module) -> None:
    """Refuse a user's method `train` that hides torch's: `eval()` would run it, as `train(False)`.

    Raises:
        ConfigError: Naming its class.
    """
    for kind in {type(part): part for part in module.modules()}:
        if kind.train is nn.Module.train:
            continue
        taken = list(inspect.signature(kind.train).parameters.values())[1:]
        first = taken[0] if taken else None
        if first is None or (
            first.name != "mode"
            and not isinstance(first.default, bool)
            and first.kind is not first.VAR_POSITIONAL
        ):
            raise ConfigError(
                f"{kind.__name__}.train{inspect.signature(kind.train)} hides torch.nn.Module.train(mode), "
                "which eval() and train() call. Give the method another name; one that learns from batches "
                "is learn(self, replay)."
            )


def _is_ours(target: object) -> bool:
    """Whether a class is one of Antelope's agents, or derives from one."""
    bases = target.__mro__ if inspect.isclass(target) else ()
    return any(base.__module__.startswith(_AGENTS) for base in bases)


def _as_policy(module: nn.Module, plan: Plan, world: WorldSpec, device: torch.device) -> AC2Agent:
    """The default agent with a module without `learn` as its policy.

    Raises:
        ConfigError: If the module chooses its own actions, or the plan names a policy too.
    """
    name = type(module).__name__
    if hook(module, "act") is not None:
        raise ConfigError(
            f"{name} has `forward` and `act`, but no `learn`. Leave `act` out, so that the default agent "
            "explores and learns with it; or write learn(self, replay, log) too."
        )
    if "policy" in plan.parts:
        raise ConfigError(f"{name} has no `learn`, so it is the policy itself. Leave policy= out.")
    parts: dict[str, Any] = dict(build_parts(plan, world.spec, device, policy=module))
    parts["model"] = parts.pop("policy")  # An AC2Agent's name for it.
    facts = _facts(plan, world)
    options = {key: facts[key] for key in ("environment", "rl", "generate", "offline")}
    return AC2Agent(world.spec, **options, **parts)
