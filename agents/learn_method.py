"""The learning step of a module: its own `learn`, or the usual loss of its `forward`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..replay import ConfigError, Replay, Spec
from .log import Log
from .supervised import supervised_loss
from .traits import has_forward, hook, stated_traits

LearnMethod = Callable[
    [Replay, Log], Any
]  # Returns a loss, or None where it updates the model itself.

_OTHERS = {"training_step": "Lightning", "train_step": "Keras"}


def learn_method(
    agent: nn.Module,
    spec: Spec,
    *,
    supervised: bool,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> LearnMethod | None:
    """`learn(replay, log)` for any module, or None if it has no way to learn.

    Args:
        supervised: Whether a module without `learn` is trained by the usual loss of its `forward`.
        loss: Takes the place of the usual loss, `loss(output, label)`; or None.

    Raises:
        ConfigError: If `learn` takes something other than `(replay)` or `(replay, log)`.
    """
    if loss is not None and trained_by_usual_loss(agent):
        return lambda replay, log: supervised_loss(agent, next(replay), spec.action, loss)
    name = type(agent).__name__
    held, learn = getattr(agent, "learn", None), hook(agent, "learn")
    if held is not None and not callable(held):
        raise ConfigError(f"{name}.learn is a {type(held).__name__}, not a method.")
    if learn is None:
        if not (supervised and has_forward(agent)):
            return None
        return lambda replay, log: supervised_loss(agent, next(replay), spec.action)
    signature = inspect.signature(learn)
    parameters = [
        p
        for p in signature.parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    required = [p for p in parameters if p.default is p.empty]
    anything = any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())
    demanded = [
        p.name
        for p in signature.parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty
    ]
    if len(required) > 2 or not (parameters or anything) or demanded:
        raise ConfigError(
            f"{name}.learn{signature} cannot be called: write learn(self, replay) or "
            "learn(self, replay, log)."
        )
    takes_log = anything or len(required) == 2 or any(p.name == "log" for p in parameters[1:2])
    return learn if takes_log else lambda replay, log: learn(replay)


def trained_by_usual_loss(agent: nn.Module) -> bool:
    """Whether labels train a module by the usual loss of its `forward`: it has no step of its own."""
    learn = hook(agent, "learn")
    if learn is None:
        return has_forward(agent) and hook(agent, "observe") is None
    # A class derived from our agent may have a `learn` of its own.
    ours = learn.__module__.rpartition(".")[0] == __package__
    return ours and stated_traits(agent).supervised


def warn_of_others(agent: nn.Module) -> None:
    """Warn about a learning step written for another library, where the module has no `learn`."""
    if hook(agent, "learn") is not None or not has_forward(agent):
        return
    for method, whose in _OTHERS.items():
        if hook(agent, method) is not None:
            warnings.warn(
                f"`{type(agent).__name__}.{method}` is {whose}'s and is not called here: this model has no "
                "learn(self, replay), and is trained with the usual loss of its forward. Write learn, with "
                "`batch = next(replay)` for the batch, and return the loss.",
                stacklevel=2,
            )
