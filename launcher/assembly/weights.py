"""How weights start, by `init=` or from a checkpoint, and what a policy does at first, by `head_bias=`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...agents.blocks.initialisation import check_prior, initialise, set_head_bias
from ...agents.policy.actor_critic import ActorCritic
from ...agents.policy.distributions import parts_of
from ...agents.policy.heads import distribution
from ...agents.policy.outputs import watched
from ...agents.policy.parts import ACTION, asks_for
from ...agents.traits import stated_traits
from ...replay import ConfigError
from ...replay.suggestions import did_you_mean
from ...replay.tree import slashed
from ..settings.plan import Plan


def start_weights(plan: Plan, agent: nn.Module, world: Any, obs: Any) -> None:
    """Draw the weights anew, and give heads their biases, where the settings say so.

    Args:
        agent: What learns, in training mode, without lazy layers.
        obs: Two observations as the model meets them; sequences of one for a recurrent one.

    Raises:
        ConfigError: If the prior is none of the actions', or does not come out.
    """
    if plan.init is not None:
        _initialise(agent, plan.init)
    if plan.head_bias is None:
        return
    action = world.spec.action
    spaces = {name or ACTION: space for name, space in slashed(action).items()}
    names = list(spaces)
    priors = plan.head_bias
    if not isinstance(action, dict) and not isinstance(priors, dict):
        priors = {ACTION: priors}
    if not isinstance(priors, dict):
        raise ConfigError(
            f"head_bias={priors} is for one action; this environment has {', '.join(names)}. Write "
            f"head_bias.{names[0].replace('/', '.')}=[...]."
        )
    # In words a dot goes further down, as in `head_bias.arm.door`.
    priors = {n if n in names else n.replace(".", "/"): p for n, p in slashed(priors).items()}
    if unknown := [name for name in priors if name not in names]:
        raise ConfigError(
            f"head_bias.{unknown[0]}: there is no such action.{did_you_mean(unknown[0], names)} There "
            f"is {', '.join(names)}."
        )
    core = stated_traits(agent).core or agent
    if isinstance(core, ActorCritic):
        layers = core.head_layers()
    elif world.labelled or asks_for(agent, "action_logits_shapes"):
        layers = _layers(agent, obs)
    else:
        raise ConfigError(
            f"head_bias gives probabilities, and {type(core).__name__} learns what actions are worth. Take "
            "PPO or A2C, or leave it out."
        )
    for name, prior in priors.items():
        layer, rows = layers.get(name, (None, slice(None)))
        if not isinstance(layer, nn.Linear):
            raise ConfigError(
                f"head_bias.{name}: the logits do not come straight from a Linear layer, but from "
                f"{type(layer).__name__ if layer is not None else 'a function'}. Return them as a last "
                "layer gives them."
            )
        _set(layer, rows, spaces[name], prior, name)
    policy = core.both(obs)[0] if isinstance(core, ActorCritic) else _policy(agent, obs, action)
    parts = {name or ACTION: part for name, part in slashed(parts_of(policy)).items()}
    for name, prior in priors.items():
        check_prior(parts[name], spaces[name], prior, name=name)


def _initialise(agent: nn.Module, how: str) -> None:
    """New weights for everything that is trained; copies of it, such as targets, are copies again."""
    before = {name: p.detach().clone() for name, p in agent.named_parameters()}
    trained = [name for name, p in agent.named_parameters() if p.requires_grad]
    initialise(agent, how)
    after = dict(agent.named_parameters())
    with torch.no_grad():
        for name, old in before.items():
            if after[name].requires_grad:
                continue
            same = (t for t in trained if before[t].shape == old.shape)
            source = next((t for t in same if torch.equal(before[t], old)), None)
            after[name].copy_(old if source is None else after[source])


def _layers(agent: nn.Module, obs: Any) -> dict[str, tuple[nn.Module | None, slice]]:
    """The layer that each action's logits come from."""
    with torch.no_grad(), watched(agent, type(agent).__name__) as sources:
        output = agent(obs)
        named = slashed(output).items()
        return {name or ACTION: (sources.layer(part), slice(None)) for name, part in named}


def _policy(agent: nn.Module, obs: Any, action: Any) -> Any:
    with torch.no_grad():
        output = agent(obs)
    if isinstance(output, dict) and not isinstance(action, dict):
        output = output[ACTION]
    return distribution(action, output)


def _set(layer: nn.Linear, rows: slice, space: Any, prior: Any, name: str) -> None:
    """`set_head_bias` of some of a layer's outputs."""
    count = len(layer.weight[rows])
    head = nn.Linear(layer.in_features, count, bias=layer.bias is not None)
    set_head_bias(head, space, prior, name=name)
    with torch.no_grad():
        layer.weight[rows] = head.weight.to(layer.weight.device)
        layer.bias[rows] = head.bias.to(layer.bias.device)
