"""Initial weights by `init=`, and a policy's initial action probabilities by `head_bias=`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...agents.blocks.initialisation import check_prior, initialise, set_head_bias
from ...agents.calling import call
from ...agents.policy.actor_critic import ActorCritic
from ...agents.policy.distributions import parts_of
from ...agents.policy.heads import distribution
from ...agents.policy.outputs import watched
from ...agents.policy.parts import ACTION, asks_for
from ...agents.traits import stated_traits
from ...envs.world import World
from ...replay import ConfigError, Space
from ...replay.batch import Tensors
from ...replay.suggestions import did_you_mean
from ...replay.tree import slashed
from ..settings.plan import Plan


def start_weights(plan: Plan, agent: nn.Module, world: World, obs: Tensors) -> None:
    """Draw the weights again, and set the biases of the heads, if the plan asks for it.

    Args:
        agent: The module that learns, in training mode, without lazy layers.
        obs: Two observations as the model receives them, `[2, *obs.shape]`; `[2, 1, *obs.shape]` for a
            recurrent model that takes sequences.

    Raises:
        ConfigError: If `head_bias` does not fit the actions, or the policy does not come out with it.
    """
    if plan.init is not None:
        _initialise(agent, plan.init)
    if plan.head_bias is None:
        return
    action = world.spec.action
    spaces = {name or ACTION: space for name, space in slashed(action).items()}
    names = list(spaces)
    priors = plan.head_bias
    if not isinstance(priors, dict) and isinstance(action, Space):
        priors = {ACTION: priors}
    elif not isinstance(priors, dict):
        raise ConfigError(
            f"head_bias={priors} is for a single action; this environment has {', '.join(names)}. Write "
            f"head_bias.{names[0].replace('/', '.')}=[...]."
        )
    # On the command line a dot stands for one more level: `head_bias.arm.door`.
    priors = {n if n in names else n.replace(".", "/"): p for n, p in slashed(priors).items()}
    if unknown := [name for name in priors if name not in names]:
        raise ConfigError(
            f"head_bias.{unknown[0]}: there is no such action.{did_you_mean(unknown[0], names)} The "
            f"environment has {', '.join(names)}."
        )
    core = stated_traits(agent).core or agent
    if isinstance(core, ActorCritic):
        layers = core.head_layers()
    elif world.labelled or asks_for(agent, "action_logits_shapes"):
        layers = _layers(agent, obs)
    else:
        raise ConfigError(
            f"head_bias sets probabilities, and {type(core).__name__} learns the values of actions. Use "
            "PPO or A2C, or leave it out."
        )
    for name, prior in priors.items():
        layer, rows = layers.get(name, (None, slice(None)))
        if not isinstance(layer, nn.Linear):
            raise ConfigError(
                f"head_bias.{name}: the logits do not come straight from a Linear layer, but from "
                f"{type(layer).__name__ if layer is not None else 'a function'}. Return the last Linear "
                "layer's output unchanged."
            )
        _set(layer, rows, spaces[name], prior, name)
    # A layer behind the head, such as a temperature, would change the probabilities.
    policy = core.both(obs)[0] if isinstance(core, ActorCritic) else _policy(agent, obs, action)
    parts = {name or ACTION: part for name, part in slashed(parts_of(policy)).items()}
    for name, prior in priors.items():
        check_prior(parts[name], spaces[name], prior, name=name)


def _initialise(agent: nn.Module, how: str) -> None:
    """Draw new weights for all trained parameters; copies of them, such as targets, become copies again."""
    before = {name: p.detach().clone() for name, p in agent.named_parameters()}
    trained = [name for name, p in agent.named_parameters() if p.requires_grad]
    initialise(agent, how)
    after = dict(agent.named_parameters())
    with torch.no_grad():
        for name, old in before.items():
            if after[name].requires_grad:
                continue
            # A frozen parameter with a trained one's exact values was copied from it.
            same = (t for t in trained if before[t].shape == old.shape)
            source = next((t for t in same if torch.equal(before[t], old)), None)
            after[name].copy_(old if source is None else after[source])


def _layers(agent: nn.Module, obs: Tensors) -> dict[str, tuple[nn.Module | None, slice]]:
    """For each action, the layer that returns its logits, and the layer's rows for it."""
    with torch.no_grad(), watched(agent, type(agent).__name__) as sources:
        output = call(agent, obs)
        named = slashed(output).items()
        return {name or ACTION: (sources.layer(part), slice(None)) for name, part in named}


def _policy(agent: nn.Module, obs: Tensors, action: Space | dict[str, Any]) -> Any:
    with torch.no_grad():
        output = call(agent, obs)
    if isinstance(output, dict) and isinstance(action, Space):
        output = output[ACTION]
    return distribution(action, output)


def _set(layer: nn.Linear, rows: slice, space: Space, prior: object, name: str) -> None:
    """`set_head_bias` for some of a layer's outputs, by way of a layer with only these.

    Args:
        rows: The outputs' rows in the weight, `[out_features, in_features]`.
        prior: Probabilities of the action's choices, float; see `set_head_bias`.
    """
    count = len(layer.weight[rows])
    head = nn.Linear(layer.in_features, count, bias=layer.bias is not None)
    set_head_bias(head, space, prior, name=name)
    with torch.no_grad():
        layer.weight[rows] = head.weight.to(layer.weight.device)
        layer.bias[rows] = head.bias.to(layer.bias.device)
