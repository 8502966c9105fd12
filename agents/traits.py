"""What the launcher may know of a module: its methods of the contract, and what our agents say.

Every other attribute of a user's module is the user's own. An agent of ours that has something to
say which no signature tells says it through one reserved attribute, `antelope_traits`.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, eq=False)
class Traits:
    """What a module says of itself in `antelope_traits`, of its class or set in `__init__`.

    >>> class Sampler(nn.Module):
    ...     antelope_traits = Traits(generates=True)
    >>> traits(Sampler()).generates, traits(nn.Linear(1, 1)).generates
    (True, False)

    Attributes:
        recurrent: Whether `forward` and `act` carry a state; None: as `forward`'s signature says.
        by_sequence: Whether it receives steps as sequences of one, `[B, 1, ...]`.
        on_policy: Whether it learns from what it has just done, so not from a saved replay.
        generates: Whether it makes observations, `sample(n)`, and has a held-out loss in
            `loss(batch)`, if it has that method.
        conditional: Whether it makes those of a class, `sample(n, label)`.
        decision: How it learns, in a line of the header.
        core: The agent inside that does the learning, where this one only chose it.
        composition: The user's modules that it is put together from.
        learns_by: The method that its learning step is written in.
        reads: Settings of the optimiser that it reads itself.
        logits: Whether `forward` gives the logits of a policy where an action is one choice; else it
            gives Q-values.
    """

    recurrent: bool | None = None
    by_sequence: bool = False
    on_policy: bool = False
    generates: bool = False
    conditional: bool = False
    decision: str | None = None
    core: nn.Module | None = None
    composition: nn.Module | None = None
    learns_by: str = "learn"
    reads: tuple[str, ...] = ()
    logits: bool = False

    @property
    def observes(self) -> bool:
        """Whether it learns by `observe`, as Mammoth's models do: the launcher's `Observer`."""
        return self.learns_by == "observe"


_NONE = Traits()
_IN_C = (types.BuiltinFunctionType, types.MethodDescriptorType)  # torch.tanh, torch.Tensor.relu


def traits(module: Any) -> Traits:
    """What a module says of itself; the defaults for one that says nothing."""
    said = getattr(module, "antelope_traits", None)
    return said if isinstance(said, Traits) else _NONE


def hook(owner: Any, name: str) -> Callable[..., Any] | None:
    """A method of the contract, of an object or a class; None where the name holds something else.

    `self.act = nn.GELU()` and `self.act = F.relu` are activations, although they can be called:
    modules, classes and torch's own functions are never hooks.
    """
    value = getattr(owner, name, None)
    if not callable(value) or isinstance(value, (nn.Module, type)):
        return None
    function = value
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, (nn.Module, type, *_IN_C)):
        return None
    home = getattr(function, "__module__", None) or type(function).__module__
    return None if home == "torch" or home.startswith("torch.") else value


def takes_info(act: Any) -> bool:
    """Whether an `act` has a parameter `info`: it receives the fields that `env_info` names."""
    try:
        return "info" in inspect.signature(act).parameters
    except (TypeError, ValueError):  # Written in C, it has no signature.
        return False


def has_forward(agent: Any) -> bool:
    """Whether a module or its class predicts; an agent of many ways sets `forward` to None if not."""
    forward = getattr(agent, "forward", None)
    return callable(forward) and getattr(forward, "__func__", forward) is not nn.Module.forward


def takes_state(module: nn.Module) -> bool:
    """Whether a module's `forward` has a parameter `state`: that makes it recurrent."""
    if not has_forward(module):
        return False
    try:
        return "state" in inspect.signature(module.forward).parameters
    except (TypeError, ValueError):  # Written in C, it has no signature.
        return False
