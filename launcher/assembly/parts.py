"""Parts of an agent that the user names, each by a setting: `encoder=`, `policy=`, `critic=`, ..."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ...agents import NAMES
from ...agents.blocks.integers import fit_to_integers
from ...agents.policy.parts import Part, PolicyPart, takes_state
from ...replay import ConfigError, Space, Spec
from ..settings.object_names import makes_objects, name_of
from ..settings.plan import Plan
from ..settings.schema import PARTS
from .infer import advice, incoming, inferred, outgoing
from .networks import network

# Widths between two parts, which neither the data nor the user determines.
_FEATURES = 256  # From the encoder to the policy and the critic.
_NOISE = 64  # Of a generator's input.


def parts_given(plan: Plan) -> list[str]:
    """The parts that the plan names."""
    return [part for part in PARTS if part in plan.parts]


def refuse_parts(plan: Plan, target: Any) -> None:
    """Refuse parts, `generate` and `rl` for an agent that does not accept them.

    Args:
        target: The agent's class, a function that makes it, or the agent.

    Raises:
        ConfigError: Naming the agents that accept them.
    """
    wanted = parts_given(plan)
    wanted += [key for key, asked in {"generate": plan.generate, "rl": plan.rl}.items() if asked]
    if not wanted:
        return
    made = target if makes_objects(target) else type(target)
    name = name_of(made).rpartition(".")[2].rpartition(":")[2]
    # An agent that is already constructed has its parts.
    taken = inspect.signature(made).parameters if made is target else {}
    wrong = []
    for key in wanted:
        if key in taken:
            continue
        able = [
            agent for agent in _agents() if key in inspect.signature(_agents()[agent]).parameters
        ]
        wrong.append(f"{name} does not accept `{key}`. {' and '.join(able)} do.")
    if wrong:
        raise ConfigError("\n".join(wrong))


def _agents() -> dict[str, Any]:
    from ... import agents  # Late: only errors need all agents, which take time to import.

    return {name: getattr(agents, name) for name in NAMES["model"]}


def critic_scores_actions(target: Callable[..., object]) -> bool:
    """Whether the critic scores actions, there being no separate policy."""
    return "policy" not in inspect.signature(target).parameters


def build_parts(
    plan: Plan,
    spec: Spec,
    device: torch.device,
    *,
    policy: nn.Module | None = None,
    of_actions: bool = False,
) -> dict[str, nn.Module]:
    """The parts that the plan names, each constructed from the shapes of its inputs and outputs.

    The policy receives the encoder's features. The critic receives them too, with any keys that the
    policy returns beside the logits, and may ask for the policy itself by a parameter `policy`.

    Args:
        spec: The spaces of the world's observations and actions.
        device: Where the parts go.
        policy: The policy, if it exists already.
        of_actions: Whether the critic returns `[B, num_actions]` values, not one per observation.

    Raises:
        ConfigError: If one cannot be constructed, or is not a module.
    """
    built: dict[str, nn.Module] = {} if policy is None else {"policy": policy}
    seen: Any = spec.obs
    for name in parts_given(plan):
        table = inferred(Spec(seen, spec.action, spec.num_tasks), device=device)
        table |= _shapes(name, spec, of_actions=of_actions)
        if name == "critic" and "policy" in built:
            table["policy"] = built["policy"]
            shapes = _extras(built["policy"], seen, spec.action)
            table["obs_shapes"] = {**table["obs_shapes"], **shapes}
        why = advice(Spec(seen, spec.action))
        target, arguments = plan.parts[name].target, plan.parts[name].arguments
        part = target
        if plan.parts[name].constructs:
            part = network(target, arguments, table, seen, setting=name, instead=why)
        elif arguments:
            raise ConfigError(
                f"{name}= is already constructed, so {', '.join(arguments)} cannot be set."
            )
        if not isinstance(part, nn.Module):
            raise ConfigError(
                f"{name}={name_of(target)} returned a {type(part).__name__}, not a torch.nn.Module."
            )
        if name == "encoder":
            part = fit_to_integers(part, seen)
        built[name] = part.to(device)
        if name == "encoder":
            seen = _features(part, seen)
    return built


def _shapes(name: str, spec: Spec, *, of_actions: bool) -> dict[str, Any]:
    """What the spec does not say of a part's inputs and outputs, by parameters' names."""
    if name == "encoder":
        return outgoing((_FEATURES,))
    if name == "critic":
        # For scores of actions the inferred width, that of the actions, is right already.
        return {} if of_actions else outgoing((1,))
    if name == "policy":
        return {}
    classes = {"num_classes": spec.action.n if spec.has_classes else 0}
    if name == "discriminator":
        return outgoing((1,)) | classes
    # Convolutional generators ask for channels, not for the flattened size.
    channels = spec.obs.shape[0] if spec.obs.shape else 1
    return incoming((_NOISE,)) | outgoing(spec.obs.shape) | {"out_channels": channels} | classes


def _features(encoder: nn.Module, seen: Any) -> Space:
    """The space of an encoder's features, found by calling it.

    Args:
        seen: The space of its observations, or a dict of spaces.

    Raises:
        ConfigError: If it does not return one tensor `[B, ...]`.
    """
    part = Part(encoder, sequences=takes_state(encoder))
    output, _ = part.probe(seen, {})
    if not isinstance(output, torch.Tensor):
        raise ConfigError(
            f"encoder={type(encoder).__name__}: expected features (B, ...), got a "
            f"{type(output).__name__}."
        )
    return Space(tuple(output.shape[2 if part.sequences else 1 :]))


def _extras(policy: nn.Module, seen: Any, action: Any) -> dict[str, tuple[int, ...]]:
    """The shapes, without `[B]`, of what a policy returns beside the logits, found by calling it."""
    part = PolicyPart(policy, action, sequences=takes_state(policy))
    output, _ = part.probe(seen, {})
    lead = 2 if part.sequences else 1
    extras = part.split(output)[1]
    return {
        name: tuple(extra.shape[lead:])
        for name, extra in extras.items()
        if isinstance(extra, torch.Tensor)
    }
