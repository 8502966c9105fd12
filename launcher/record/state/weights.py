"""A module's weights: loaded in place, into modules and buffers that came while it learnt too."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ....replay import CheckpointError
from ....replay.devices import destination
from .growth import begin_task, regrow


def load_weights(
    agent: nn.Module,
    weights: dict[str, Tensor],
    places: dict[str, str] | None = None,
    changed: dict[str, Any] | None = None,
    *,
    before: Callable[[int], None] | None = None,
) -> None:
    """Load a checkpoint's weights.

    Args:
        places: Where buffers were, as of `fill_empty_buffers`.
        changed: Which modules have come since the model was constructed, as of `grown`.
        before: Called before each task that the model begins again to get them.

    Raises:
        CheckpointError: Naming what is missing, left over, or of another shape.
    """

    def begin(task: int) -> None:
        if before is not None:
            before(task)
        begin_task(agent, task)

    regrow(agent, changed, begin=begin)
    fill_empty_buffers(agent, weights, places)
    add_copies(agent, weights)
    own = agent.state_dict()
    problems = [f"`{name}` is missing" for name in own if name not in weights]
    problems += [
        f"`{name}` is not in {type(agent).__name__}" for name in weights if name not in own
    ]
    problems += [
        f"`{name}` is {list(weights[name].shape)}, the model's is {list(own[name].shape)}"
        for name in own
        if name in weights
        and isinstance(own[name], Tensor)
        and weights[name].shape != own[name].shape
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(
            f"The checkpoint does not fit {type(agent).__name__}: "
            f"{'; '.join(problems[:3])}{more}. It was saved from a model that was constructed "
            "differently."
        )
    load_in_place(agent, weights)


def fill_empty_buffers(
    module: nn.Module, saved: Mapping[str, Tensor], places: Mapping[str, str] | None
) -> None:
    """Give buffers registered as None, and filled while the module learnt, their place.

    Args:
        saved: What they held, by name; names of other buffers are left alone.
        places: Where they were, those that were not on the CPU; None: not known, and where the
            module's parameters are now.
    """
    own = next((str(p.device) for p in module.parameters()), "cpu")
    for prefix, part in module.named_modules():
        for key, buffer in part._buffers.items():
            path = f"{prefix}.{key}" if prefix else key
            if buffer is None and path in saved:
                where = (
                    torch.device(own) if places is None else destination(places.get(path, "cpu"))
                )
                part._buffers[key] = torch.empty_like(saved[path], device=where)


def load_in_place(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into the module's tensors: optimisers hold these, recurrent layers refer to them."""
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(False)
    try:
        module.load_state_dict(weights)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)


def add_copies(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Make again what a module copied of itself while it learnt, such as a teacher: `deepcopy(net)`.

    Args:
        weights: A state of the module, which has entries for these parts.
    """
    parts = dict(module.named_modules())
    here = module.state_dict().keys()
    for path in dict.fromkeys(_first_not_in(parts, name) for name in weights if name not in here):
        inside = {n[len(path) + 1 :]: w for n, w in weights.items() if n.startswith(f"{path}.")}
        if inside and (copied := copy_of_like(parts.values(), inside)) is not None:
            owner, _, name = path.rpartition(".")
            setattr(parts[owner], name, copied)


def _first_not_in(parts: Mapping[str, nn.Module], name: str) -> str:
    """`teacher` of `teacher.0.weight`, where no part is called so."""
    pieces = name.split(".")
    paths = (".".join(pieces[: i + 1]) for i in range(len(pieces)))
    return next(path for path in paths if path not in parts)


def copy_of_like(parts: Iterable[Any], weights: Mapping[str, Tensor]) -> nn.Module | None:
    """A copy of the part that has weights of these names and shapes; None where they differ otherwise."""
    shapes = {name: weight.shape for name, weight in weights.items()}
    like = []
    for part in parts:
        if isinstance(part, nn.Module):
            own = {name: getattr(w, "shape", None) for name, w in part.state_dict().items()}
            if own == shapes:
                like.append(part)
    if len({repr(part) for part in like}) != 1:  # Two may have the same layers, and another ReLU.
        return None
    return copy.deepcopy(like[0])
