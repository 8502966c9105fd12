"""The methods of a user's model that a run calls, and the arguments that each can ask for by name."""

from __future__ import annotations

import inspect
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from ...agents.traits import hook
from ...replay import ConfigError

# Names that each method may have parameters for.
OBSERVED = ("inputs", "labels", "not_aug_inputs", "epoch", "task", "indexes")
TOLD = ("dataset", "epoch", "task", "replay")
HOOKS = ("begin_task", "end_task", "begin_epoch", "end_epoch")
# What Mammoth passes by position, and therefore what `*args` receives.
_BY_PLACE = {
    "observe": OBSERVED[:3],
    **dict.fromkeys(("begin_task", "end_task"), ("dataset",)),
    **dict.fromkeys(("begin_epoch", "end_epoch"), ("epoch", "dataset")),
}


class ObservingModel(Protocol):
    """A user's model once the run has filled in what it lacks; an `nn.Module` or any other object.

    Whatever else it may have, such as `custom_scheduler`, is looked for with `hasattr`.
    """

    net: nn.Module
    opt: Optimizer
    args: Namespace

    @property
    def observe(self) -> Callable[..., Any]:
        """Learns from a batch, and returns its loss."""

    @property
    def forward(self) -> Callable[..., Tensor]:
        """Rows `[B, *obs.shape]` to logits `[B, n]`, if the model has it."""

    @property
    def get_optimizer(self) -> Callable[[], Optimizer]:
        """Makes `opt` again, if the model derives from Mammoth's base."""


def class_name(target: object) -> str:
    """The name of a class or a function; for any other object, of its class."""
    return target.__name__ if hasattr(target, "__name__") else type(target).__name__


def compatibility(target: object) -> tuple[str, ...]:
    """The settings that a model says it is for, such as `class-il`; empty if it says nothing."""
    said = target.COMPATIBILITY if hasattr(target, "COMPATIBILITY") else None
    return (said,) if isinstance(said, str) else tuple(said or ())


def methods_of(model: ObservingModel) -> Iterator[str]:
    """`observe`, and those of the hooks that the model has."""
    return (method for method in ("observe", *HOOKS) if hook(model, method) is not None)


def asked_by(model: ObservingModel, method: str) -> tuple[str, ...]:
    """The names that a method has parameters for, among those that Antelope provides.

    Raises:
        ConfigError: If the method cannot be called without another one.
    """
    provided = OBSERVED if method == "observe" else TOLD
    parameters = _parameters(model, method).values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    wrong = [p.name for p in named if p.default is p.empty and p.name not in provided]
    # Arguments are passed by name, so that a model may list them in any order and leave some out.
    wrong += [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
    if wrong:
        quoted = " and ".join(f"`{name}`" for name in wrong)
        raise ConfigError(
            f"{type(model).__name__}.{method} asks for {quoted}, which Antelope does not provide. It can "
            f"ask for: {', '.join(provided)}. Give {quoted} a default, or leave it out."
        )
    asked = {p.name for p in named} | set(placed_in(model, method))
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        asked |= set(provided[:4])  # What Mammoth itself passes; `task` and `indexes` are ours.
    return tuple(name for name in provided if name in asked)


def placed_in(model: ObservingModel, method: str) -> tuple[str, ...]:
    """The arguments that a method receives by position: Mammoth's, if it has only `*args` for them."""
    parameters, places = _parameters(model, method), _BY_PLACE[method]
    any_place = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
    return places if any_place and not set(places) & parameters.keys() else ()


def needs_task(model: ObservingModel) -> bool:
    """Whether `forward` receives the rows' task: it requires it, or the model supports task-IL only."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.default is p.empty for p in placed[1:2]):
        return True
    fits = compatibility(model) or ("class-il",)
    return len(placed) > 1 and not {"class-il", "domain-il", "general-continual"} & set(fits)


def _parameters(model: ObservingModel, method: str) -> dict[str, inspect.Parameter]:
    found = hook(model, method)
    assert found is not None  # `methods_of` has named it.
    return dict(inspect.signature(found).parameters)
