"""Checks that continual-learning strategies get what they need in a sequence of environments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ...agents.calling import call
from ...agents.continual.context import LOGITS, VALUES, Context, evaluating
from ...agents.continual.cumulative import Cumulative
from ...agents.continual.lwf import LwF
from ...agents.continual.strategy import Strategy
from ...agents.traits import Traits, hook, traits
from ...replay import Spec
from ...replay.batch import Tensors
from ...replay.randomness import forked_randomness

_RETURN_A_LOSS = (
    "DQN, DRQN, A2C, SAC, TD3, DDPG, DrQV2, or a model of your own whose learn returns it"
)
_OFF_POLICY = "DQN, DRQN, SAC, TD3, DDPG, DrQV2"


def outputs_of(agent: nn.Module, spec: Spec) -> str:
    """What an agent's `forward` returns: the logits of a policy over choices, or values."""
    space = spec.action
    one_choice = spec.discrete and not (space.nvec or space.binary)
    return LOGITS if one_choice and traits(agent).logits else VALUES


def unfit_in_environment(
    named: dict[str, Any], context: Context, obs: Tensors, *, steps: int, capacity: int
) -> Iterable[str]:
    """Messages on what each strategy needs and does not get in this run.

    Args:
        named: The strategies by name.
        obs: Two example observations as the model receives them, `[2, *obs.shape]`.
        steps: Environment steps of all tasks together.
        capacity: Rows that the replay holds.
    """
    agent, can = context.agent, traits(context.agent)
    name_of_agent = type(agent).__name__
    tensor = _gives_a_tensor(agent, can, obs)  # Once for all: it calls the model.
    for name, strategy in named.items():
        # A user's class need not derive from `Strategy`: the defaults hold for it.
        ours = strategy if isinstance(strategy, Strategy) else Strategy()
        if ours.no_environments is not None:
            yield (
                f"strategy={name} is not available in environments: {ours.no_environments}. Available are "
                "naive, cumulative, ewc, ewc_online, si, mas and lwf."
            )
            continue
        if hook(strategy, "predict") is not None:
            yield (
                f"strategy={name} has a `predict`, which is not called in environments: the agent chooses "
                "actions. Choose them in the model's `act`."
            )
        if works_on_the_loss(strategy):
            if can.learn is None:
                yield f"strategy={name} works on the loss, but {name_of_agent} has no `learn`."
                continue
            if can.updates_itself:
                yield (
                    f"strategy={name} works on the loss, but {name_of_agent} updates itself. Use an agent "
                    f"whose learn returns the loss: {_RETURN_A_LOSS}."
                )
                continue
        if ours.needs_forward and not tensor:
            yield (
                f"strategy={name} compares outputs, but {name_of_agent}{_no_tensor(can)}. strategy=si "
                "works on any loss."
            )
        elif (reason := ours.misfit(context)) is not None:
            yield f"strategy={name}: {reason}."
        if can.on_policy and isinstance(strategy, (Cumulative, LwF)):
            does = "draws from" if isinstance(strategy, Cumulative) else "compares outputs on"
            yield (
                f"strategy={name} {does} batches of the replay, but {name_of_agent} learns only from its "
                f"newest steps. Use {_OFF_POLICY}."
            )
        if isinstance(strategy, Cumulative):
            yield from _too_small(name, context.num_tasks, steps, capacity)


def works_on_the_loss(strategy: object) -> bool:
    """Whether a strategy has a hook that needs the loss that `learn` returns."""
    return any(hook(strategy, name) is not None for name in ("after_loss", "after_backward"))


def versions(agent: nn.Module) -> int:
    """A number that changes when a trained parameter is written to.

    torch counts writes per tensor, which costs nothing; comparing values would.
    """
    return sum(p._version for p in agent.parameters() if p.requires_grad)


def _too_small(name: str, tasks: int, steps: int, capacity: int) -> Iterable[str]:
    """Why the replay cannot keep the transitions of all tasks, if it cannot.

    Args:
        steps: Environment steps of all tasks together.
        capacity: Rows that the replay holds.
    """
    if capacity < steps:
        yield (
            f"strategy={name} keeps the transitions of all {tasks} tasks, {steps:,} steps, but "
            f"capacity={capacity} would drop the oldest. Set capacity={steps * 6 // 5} or more: each "
            "episode's last observation needs a row too."
        )


def _no_tensor(can: Traits) -> str:
    """Why `forward` does not return a single tensor, which could be compared."""
    if not can.forward:
        return " has no `forward`"
    return ".forward carries a state" if can.recurrent else ".forward returns more than one tensor"


def _gives_a_tensor(agent: nn.Module, can: Traits, obs: Tensors) -> bool:
    """Whether `forward` returns a single tensor `[B, ...]` for observations `[B, *obs.shape]`."""
    if not can.forward or can.recurrent:
        return False
    with forked_randomness(0), evaluating(agent), torch.no_grad():
        try:
            output = call(agent, obs)
        except Exception:  # `check_forward` reports what is wrong with a forward.
            return False
    return isinstance(output, Tensor) and output.dim() > 1
