"""Loads a module's weights in place, including modules and buffers that were added while it learnt."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ....replay import CheckpointError
from ....replay.devices import destination
from ....replay.structure import anything, each, fields, misfit, optional, table, text
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
        agent: Changed in place.
        weights: By name, as of `agent.state_dict()`.
        places: Devices of buffers, as for `fill_empty_buffers`.
        changed: Modules added since the model was constructed, as `grown` returns them.
        before: Called with each task that the model begins again to add these modules.

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
    check_weights(agent, weights, all_of_them=True)
    load_in_place(agent, weights)


def check_weights(
    agent: nn.Module, weights: Mapping[str, Tensor], *, all_of_them: bool = False
) -> None:
    """Check a checkpoint's weights against a model, which is not changed.

    Args:
        weights: By name, as of `agent.state_dict()`.
        all_of_them: Whether the model has all parts that a checkpoint may have added.

    Raises:
        CheckpointError: Naming what is missing, left over, or of another shape or kind.
    """
    own = agent.state_dict()
    problems = [f"`{name}` is missing" for name in own if name not in weights]
    if all_of_them:
        problems += [
            f"`{name:.100}` is not in {type(agent).__name__}" for name in weights if name not in own
        ]
    for name, here in own.items():
        saved = weights.get(name)
        if saved is None or not isinstance(here, Tensor):
            continue
        if saved.shape != here.shape:
            problems.append(f"`{name}` is {list(saved.shape)}, the model's is {list(here.shape)}")
        elif _kind(saved) != _kind(here):
            problems.append(f"`{name}` is {saved.dtype}, the model's is {here.dtype}")
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(
            f"The checkpoint does not fit {type(agent).__name__}: "
            f"{'; '.join(problems[:3])}{more}. It was saved from a model that was constructed "
            "differently."
        )


def _kind(tensor: Tensor) -> tuple[bool, bool]:
    """Real, complex or whole numbers: their precision may differ."""
    return tensor.is_floating_point(), tensor.is_complex()


_LAYOUT = table(
    fields(
        {"class": text, "parameters": table(optional(table(anything))), "buffers": each(text)},
        {"transient": each(text), "parts": table(optional(table(anything)))},
    )
)
_FACTS = table(fields({"plain": table(anything), "unsaid": each(text)}))


def check_growth(changed: Mapping[str, Any] | None, weights: Mapping[str, Tensor]) -> None:
    """Check what a checkpoint says of modules that were added: nothing larger than its weights is made.

    Args:
        changed: As for `load_weights`.
        weights: The weights that the modules are to receive.

    Raises:
        CheckpointError: Naming what is wrong.
    """
    if changed is None:
        return
    _LAYOUT(changed["built"], "learner.grown.built")
    _LAYOUT(changed["now"], "learner.grown.now")
    _FACTS(changed["facts"], "learner.grown.facts")
    for path, entry in changed["now"].items():
        for key, form in entry["parameters"].items():
            name = f"{path}.{key}".lstrip(".")
            if form is None or "same" in form:
                continue
            saved = weights.get(name)
            if saved is None or form.get("shape") not in (None, list(saved.shape)):
                raise CheckpointError(
                    f"The checkpoint says that `{name:.100}` was added with shape {form.get('shape')}, but "
                    "has no such weights."
                )
            if form.get("dtype") != str(saved.dtype):
                misfit(f"{name}, dtype", form.get("dtype"), str(saved.dtype))
    for path, facts in changed["facts"].items():
        for key in facts["plain"]:
            if hasattr(nn.Module, key) or (key.startswith("__") and key.endswith("__")):
                raise CheckpointError(f"The checkpoint would replace `{path:.100}.{key:.100}`.")


def fill_empty_buffers(
    module: nn.Module, saved: Mapping[str, Tensor], places: Mapping[str, str] | None
) -> None:
    """Allocate buffers that were registered as None, and filled while the module learnt.

    Args:
        saved: Their values, by name; other buffers are ignored.
        places: Devices by name, of those that were not on the CPU; None: not recorded, use the device of
            the module's parameters.
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
    """Copy weights into the module's own tensors, which optimisers and recurrent layers refer to."""
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(False)
    try:
        module.load_state_dict(weights)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)


def add_copies(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Recreate copies that a module made of its parts while it learnt, such as a teacher: `deepcopy(net)`.

    Args:
        weights: A state of the module, with entries for these copies.
    """
    parts = dict(module.named_modules())
    here = module.state_dict().keys()
    for path in dict.fromkeys(_first_not_in(parts, name) for name in weights if name not in here):
        inside = {n[len(path) + 1 :]: w for n, w in weights.items() if n.startswith(f"{path}.")}
        if inside and (copied := copy_of_like(parts.values(), inside)) is not None:
            owner, _, name = path.rpartition(".")
            setattr(parts[owner], name, copied)


def _first_not_in(parts: Mapping[str, nn.Module], name: str) -> str:
    """The first prefix that names no part: `teacher` for `teacher.0.weight`."""
    pieces = name.split(".")
    paths = (".".join(pieces[: i + 1]) for i in range(len(pieces)))
    return next(path for path in paths if path not in parts)


def copy_of_like(parts: Iterable[Any], weights: Mapping[str, Tensor]) -> nn.Module | None:
    """A copy of the part whose weights have these names and shapes; None if none has, or it is ambiguous."""
    shapes = {name: weight.shape for name, weight in weights.items()}
    like = []
    for part in parts:
        if isinstance(part, nn.Module):
            own = {name: getattr(w, "shape", None) for name, w in part.state_dict().items()}
            if own == shapes:
                like.append(part)
    # Two parts may have the same weights, but different activations.
    if len({repr(part) for part in like}) != 1:
        return None
    return copy.deepcopy(like[0])
