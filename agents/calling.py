"""Calls a module on a batch's inputs, with the lengths of sequences if its `forward` asks for them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import nn

from ..replay import Batch
from ..replay.padding import steps_of

PROVIDED = ("length", "mask")  # Parameters of `forward` that sequences fill.
# Other names for them: `lens`, `seq_len`, `seqlens`; not `silent` or `challenge`.
_LIKE = re.compile(r"mask|(^|_)len|len(s|gths?)?(_|$)")


def output_of(module: nn.Module, batch: Batch) -> Any:
    """`module(batch.obs)`, with `length=` and `mask=` if its `forward` has those parameters.

    Args:
        module: Any module with a `forward`.
        batch: Its `obs` may be padded sequences `[B, T, ...]`, with `length`, int64 `[B]`, and `mask`, bool
            `[B, T]`, True at real steps.
    """
    # As `call`, without its cost: this runs in every learning step.
    obs = batch.obs
    return module(obs) if steps_of(obs) is None else call(module, obs)


def call(module: nn.Module, obs: Any, *rest: Any) -> Any:
    """`module(obs, *rest)`, with the lengths that padded inputs carry if its `forward` asks for them."""
    if steps_of(obs) is None:
        return module(obs, *rest)
    return module(obs, *rest, **steps_asked(module, obs))


def steps_asked(module: nn.Module, obs: Any) -> dict[str, Any]:
    """`length` and `mask` of padded inputs, as far as the module's `forward` names them."""
    steps = steps_of(obs)
    if steps is None:
        return {}
    # The function itself: Python binds a new method at each access, which the cache would never find.
    forward = getattr(module.forward, "__func__", module.forward)
    return {name: getattr(steps, name) for name in _asked(forward)}


def takes_steps(module: nn.Module) -> bool:
    """Whether its `forward` asks for lengths, or for the mask, of padded sequences."""
    forward = getattr(module, "forward", None)
    return callable(forward) and bool(_asked(getattr(forward, "__func__", forward)))


def misnamed(module: nn.Module) -> str | None:
    """A parameter of `forward` that reads like `length` or `mask`; None: there is none.

    To be asked of a module that already runs without them: `lengths=None`, `src_key_padding_mask=None`.
    """
    try:
        parameters = inspect.signature(module.forward).parameters
    except (TypeError, ValueError):  # Written in C, it has no signature.
        return None
    return next((name for name in parameters if _LIKE.search(name.lower())), None)


def about_steps(module: nn.Module, obs: Any, error: BaseException) -> str:
    """Advice for a `forward` that requires an argument which `obs` does not carry; empty for any other.

    Args:
        error: What it raised.
    """
    if isinstance(error, KeyError) and (name := str(error).strip("'")) in PROVIDED:
        return (
            f". `{name}` is passed to a forward that names it: write forward(self, x, {name}=None)."
        )
    lacks = [name for name in _required(module.forward)[1:] if name not in steps_asked(module, obs)]
    if not lacks:
        return ""
    if steps_of(obs) is not None:
        return (
            f". Sequences come with `length`, int64 [B], and `mask`, bool [B, T], True at real steps, and "
            f"forward receives those that it names: rename `{lacks[0]}`."
        )
    if set(lacks) <= set(PROVIDED):
        return (
            f". Only sequences of different lengths come with `{lacks[0]}`, and these inputs all have one "
            f"shape. Write {lacks[0]}=None."
        )
    return ""


def about_own_call(module: nn.Module, error: BaseException) -> str:
    """Advice for a module that calls itself without `length` or `mask`; empty for any other error."""
    text = str(error)
    asked = [name for name in PROVIDED if f"'{name}'" in text and takes_steps(module)]
    if not (isinstance(error, TypeError) and "forward() missing" in text and asked):
        return ""
    given = ", ".join(f"{name}=batch.{name}" for name in asked)
    return f" Antelope passes it in its own calls only. Here: self(batch.obs, {given})."


def _required(forward: Callable[..., Any]) -> list[str]:
    """The parameters without a default."""
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):  # Written in C, it has no signature.
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in kinds]


@lru_cache(maxsize=64)
def _asked(forward: Callable[..., Any]) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(forward).parameters
    except (TypeError, ValueError):  # Written in C, it has no signature.
        return ()
    return tuple(name for name in PROVIDED if name in parameters)
