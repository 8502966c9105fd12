"""The layers of a model that strategies work on, and the outputs of one network per task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ...replay import ConfigError, Space
from ...replay.padding import unpadded
from ...replay.tree import map_tree
from ..calling import call
from .context import HIDDEN, Context, evaluating

Layer = nn.Linear | nn.Conv2d


def called_layers(agent: nn.Module, context: Context) -> list[Layer]:
    """The `nn.Linear` and `nn.Conv2d` layers in the order of a forward's calls, one entry per call.

    Runs one forward on zeros in eval mode. A layer whose weights are read without calling it, as
    `nn.MultiheadAttention` does with its output projection, is missing from the list.
    """
    layers = [m for m in agent.modules() if isinstance(m, Layer)]
    called: list[Layer] = []
    hooks = [layer.register_forward_hook(lambda met, *_: called.append(met)) for layer in layers]
    zeros = map_tree(lambda space: _zeros(space, context.device), context.spec.obs)
    try:
        with evaluating(agent), torch.no_grad():
            call(agent, zeros)
    finally:
        for hook in hooks:
            hook.remove()
    return called


def _zeros(space: Space, device: torch.device) -> Tensor:
    """Two inputs as the agent receives them, of zeros."""
    dtype = torch.float32 if space.ids is None else torch.int64
    zeros = torch.zeros(2, *space.shape, dtype=dtype, device=device)
    return unpadded(zeros) if space.ragged else zeros


def output_layer(
    agent: nn.Module, context: Context, strategy: str, *, weights: bool = True
) -> nn.Linear:
    """The `nn.Linear` that computes the outputs: the last one called with the right number of outputs.

    Args:
        strategy: The strategy's name, for the error.
        weights: Whether the strategy needs the layer's weights, not only its input.

    Raises:
        ConfigError: If there is none.
    """
    n = context.spec.action.n
    for layer in reversed(called_layers(agent, context)):
        if not isinstance(layer, nn.Linear) or layer.out_features != n:
            continue
        if weights and "weight" not in layer._parameters:
            name = next(name for name, module in agent.named_modules() if module is layer)
            raise ConfigError(
                f"strategy={strategy} needs plain weights in the output layer, but those of `{name}` are "
                "parametrized (weight_norm, spectral_norm, ...). Remove the parametrization, or choose "
                "another strategy."
            )
        return layer
    raise ConfigError(
        f"strategy={strategy} works on the output layer, and {type(agent).__name__} calls no nn.Linear "
        f"with out_features={n}. Let one such layer end its forward."
    )


def computed_weights(agent: nn.Module) -> list[str]:
    """Names of modules whose weight is parametrized."""
    return [
        name
        for name, module in agent.named_modules()
        if is_parametrized(module)
        or any(
            isinstance(hook, (WeightNorm, SpectralNorm))
            for hook in module._forward_pre_hooks.values()
        )
    ]


def features(agent: nn.Module, layer: nn.Module, obs: Tensor) -> Tensor:
    """A layer's input when the agent receives `obs`, float32 `[B, D]`: in eval mode, without gradient."""
    met: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, args: met.append(args[0]))
    try:
        with evaluating(agent), torch.no_grad():
            call(agent, obs)
    finally:
        hook.remove()
    return met[-1].flatten(1)


def names_of(agent: nn.Module, layer: nn.Module) -> dict[str, str]:
    """The agent's names for the parameters of one of its layers: `{"weight": "net.5.weight"}`."""
    named = {id(parameter): name for name, parameter in agent.named_parameters()}
    return {own: named[id(parameter)] for own, parameter in layer.named_parameters(recurse=False)}


def put_together(outputs: Sequence[Tensor], classes: Sequence[Tensor]) -> Tensor:
    """For each class, the output of its own task's network: for rows whose task is unknown.

    Args:
        outputs: Outputs `[B, n]` of each learnt task's network.
        classes: Output indices of each task, int64. Where tasks share an output, the highest one counts.

    Returns:
        `[B, n]`; outputs of classes that no task has introduced yet are very negative.
    """
    together = torch.full_like(outputs[0], HIDDEN)
    for output, own in zip(outputs, classes, strict=False):
        together[:, own] = torch.maximum(together[:, own], output[:, own])
    return together


def rest_normalisation(agent: nn.Module) -> None:
    """Freeze running statistics by putting their layers into eval mode."""
    for module in agent.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()


def running_statistics(agent: nn.Module) -> dict[str, Tensor]:
    """The buffers of normalisation layers, by the agent's names."""
    return {
        f"{path}.{name}".lstrip("."): buffer
        for path, module in agent.named_modules()
        if isinstance(module, nn.modules.batchnorm._NormBase)
        for name, buffer in module.named_buffers(recurse=False)
    }
