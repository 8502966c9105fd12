"""A module called with other weights than its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def call_with(
    agent: nn.Module,
    weights: dict[str, Tensor],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
) -> Any:
    """`agent(*args, **kwargs)` with some of its parameters and buffers replaced, by name.

    Modules with several names and tied weights are replaced everywhere, by the one name that
    `named_parameters` and `named_buffers` use. The agent itself is unchanged afterwards, even after an error.

    `torch.func.functional_call` alone does not suffice: it replaces a module with two names twice, and
    the second time it takes the first replacement for the module's own weight, and "restores" that.
    """
    # Recurrent layers hold their weights twice, and keep the substituted ones in this list until their next
    # forward: a checkpoint written before that would save them as the layer's.
    lists = [(m, m._flat_weights) for m in agent.modules() if isinstance(m, nn.RNNBase)]
    try:
        return torch.func.functional_call(
            agent, _at_every_place(agent, weights), args, kwargs, tie_weights=False
        )
    finally:
        for module, own in lists:
            if module._flat_weights is not own:
                module._init_flat_weights()


def tensors_of(agent: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return dict((*agent.named_parameters(), *agent.named_buffers()))


def _at_every_place(agent: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights by the name of every attribute that holds them, each module under one of its names."""
    name_of = {id(tensor): name for name, tensor in tensors_of(agent).items()}
    places: dict[str, Tensor] = {}
    for path, module in agent.named_modules():
        prefix = f"{path}." if path else ""
        for own, tensor in (*module._parameters.items(), *module._buffers.items()):
            name = name_of.get(id(tensor))
            if name in weights:
                places[prefix + own] = weights[name]
    return places
