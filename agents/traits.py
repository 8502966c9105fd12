"""What a module can do, looked at once: its methods of the contract, and what our agents say of themselves.

Every other attribute of a user's module is the user's own. An agent of ours that has something to
say which no signature tells says it through one reserved attribute, `antelope_traits`.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

Method = Callable[..., Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class Traits:
    """What a module can do. `traits(module)` looks; keep the answer rather than ask at every step.

    A module states the second half in `antelope_traits`, on its class or set in `__init__`; the first
    half is looked up, whatever it states.

    >>> class Sampler(nn.Module):
    ...     antelope_traits = Traits(generates=True)
    >>> traits(Sampler()).generates, traits(nn.Linear(1, 1)).generates
    (True, False)
    >>> traits(nn.Linear(1, 1)).forward, traits(nn.Linear(1, 1)).learn
    (True, None)

    Attributes:
        forward: Whether it predicts.
        act: Its method that chooses actions; None if it has none. So are the next five.
        learn: Its learning step, `learn(replay)` or `learn(replay, log)`.
        observe: Its learning step in the way of Mammoth.
        loss: `loss(batch)`, a held-out loss.
        begin_task: `begin_task(task)`.
        end_task: `end_task(replay)`.
        takes_info: Whether `act` has a parameter `info`, for the fields that `env_info` names.
        needs_info: Whether `act` cannot be called without it.
        act_takes_state: Whether `act` has a parameter `state`.
        updates_itself: Whether it has no `learn`, or one annotated to return None, never a loss.

        recurrent: Whether `forward` and `act` carry a state. Stated as None: as `forward`'s signature has
            it.
        by_sequence: Whether it receives steps as sequences of one, `[B, 1, ...]`.
        on_policy: Whether it learns from what it has just done, so not from a saved replay.
        generates: Whether it makes observations, `sample(n)`, and neither predicts nor acts.
        conditional: Whether it makes those of a class, `sample(n, label)`.
        task_told: Whether `forward(obs, task)` receives the task, too.
        decision: How it learns, in a line of the header.
        core: The agent inside that does the learning, where this one only chose it.
        composition: The user's modules that it is put together from.
        learns_by: The method that its learning step is written in.
        reads: Settings of the optimiser that it reads itself.
        logits: Whether `forward` returns the logits of a policy where an action is one choice; else it
            returns Q-values.
    """

    antelope_state: ClassVar[bool] = False  # Left out of what its holder saves.

    forward: bool = False
    act: Method | None = None
    learn: Method | None = None
    observe: Method | None = None
    loss: Method | None = None
    begin_task: Method | None = None
    end_task: Method | None = None
    takes_info: bool = False
    needs_info: bool = False
    act_takes_state: bool = False
    updates_itself: bool = True

    recurrent: bool | None = None
    by_sequence: bool = False
    on_policy: bool = False
    generates: bool = False
    conditional: bool = False
    task_told: bool = False
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


_NOTHING_STATED = Traits()
_IN_C = (types.BuiltinFunctionType, types.MethodDescriptorType)  # torch.tanh, torch.Tensor.relu


def traits(module: object) -> Traits:
    """What a module, or the instances of a class of modules, can do."""
    stated = stated_traits(module)
    act, learn, forward = hook(module, "act"), hook(module, "learn"), has_forward(module)
    of_act = _parameters(act)
    core = module if stated.core is None else stated.core
    return replace(
        stated,
        forward=forward,
        act=act,
        learn=learn,
        observe=hook(module, "observe"),
        loss=hook(module, "loss"),
        begin_task=hook(module, "begin_task"),
        end_task=hook(module, "end_task"),
        takes_info="info" in of_act,
        needs_info="info" in of_act and of_act["info"].default is inspect.Parameter.empty,
        act_takes_state="state" in of_act,
        updates_itself=_returns_none(hook(core, "learn")),
        recurrent=takes_state(module) if stated.recurrent is None else stated.recurrent,
        generates=stated.generates and not forward and act is None,
    )


def stated_traits(module: object) -> Traits:
    """What a module states in `antelope_traits`; the defaults for one that states nothing."""
    stated = getattr(module, "antelope_traits", None)
    return stated if isinstance(stated, Traits) else _NOTHING_STATED


def hook(owner: object, name: str) -> Method | None:
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


def has_forward(module: object) -> bool:
    """Whether a module or its class predicts; one that sets `forward` to None does not."""
    forward = getattr(module, "forward", None)
    return callable(forward) and getattr(forward, "__func__", forward) is not nn.Module.forward


def takes_state(module: object) -> bool:
    """Whether the `forward` of a module or its class has a parameter `state`: that makes it recurrent."""
    return has_forward(module) and "state" in _parameters(getattr(module, "forward", None))


def takes_info(act: Method | None) -> bool:
    """Whether an `act` has a parameter `info`: it receives the fields that `env_info` names."""
    return "info" in _parameters(act)


def needs_info(act: Method | None) -> bool:
    """Whether an `act` cannot be called without `info`."""
    info = _parameters(act).get("info")
    return info is not None and info.default is info.empty


def _parameters(method: Method | None) -> dict[str, inspect.Parameter]:
    try:
        return {} if method is None else dict(inspect.signature(method).parameters)
    except (TypeError, ValueError):  # Written in C, it has no signature.
        return {}


def _returns_none(learn: Method | None) -> bool:
    try:
        annotated = None if learn is None else inspect.signature(learn).return_annotation
    except (TypeError, ValueError):
        return False
    return annotated is None or annotated == "None"
