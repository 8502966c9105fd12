"""What a module can do, inspected once: the methods of the contract, and the traits that our agents state.

Every other attribute of a user's module is the user's own. Our agents state what no signature shows
through a single reserved attribute, `antelope_traits`.
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
    """What a module can do. Call `traits(module)` once and keep the result: inspecting takes time.

    A module states the second group below in `antelope_traits`, on its class or in `__init__`; the first
    group is always looked up.

    >>> class Sampler(nn.Module):
    ...     antelope_traits = Traits(generates=True)
    >>> traits(Sampler()).generates, traits(nn.Linear(1, 1)).generates
    (True, False)
    >>> traits(nn.Linear(1, 1)).forward, traits(nn.Linear(1, 1)).learn
    (True, None)

    Attributes:
        forward: Whether it predicts.
        act: Its method that chooses actions; None if it has none. The next five are None likewise.
        learn: Its learning step, `learn(replay)` or `learn(replay, log)`.
        observe: Its learning step, if it follows Mammoth's interface.
        loss: `loss(batch)`, a held-out loss.
        begin_task: `begin_task(task)`.
        end_task: `end_task(replay)`.
        takes_info: Whether `act` has a parameter `info`, for the fields that `env_info` names.
        needs_info: Whether `act` cannot be called without it.
        act_takes_state: Whether `act` has a parameter `state`.
        updates_itself: Whether it has no `learn`, or one annotated to return None, never a loss.

        recurrent: Whether `forward` and `act` carry a state. Stated as None: inferred from the signature
            of `forward`.
        by_sequence: Whether it receives single steps as sequences of one, `[B, 1, ...]`.
        on_policy: Whether it learns from its own latest steps only, so not from a saved replay.
        generates: Whether it generates observations, `sample(n)`, and neither predicts nor acts.
        conditional: Whether it generates by class, `sample(n, label)`.
        task_told: Whether `forward(obs, task)` also receives the task.
        decision: How it learns, in one line for the run's header.
        core: The agent inside that learns, if this module only chose it.
        composition: The user's modules that it is composed of.
        learns_by: Name of the method that holds its learning step.
        reads: Optimiser settings that the module reads itself.
        leaves_padding_out: Whether padded sequences are read as they should be, although `forward` has no
            parameter `length` or `mask`.
        supervised: Whether its `learn` is the usual loss of its `forward`, in whose place another may come.
        logits: Whether `forward` returns a policy's logits where an action is one choice; otherwise it
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
    leaves_padding_out: bool = False
    supervised: bool = False
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
    """A method of the contract, on an object or a class; None if the name holds anything else.

    `self.act = nn.GELU()` and `self.act = F.relu` are activations, although they are callable: modules,
    classes and torch's own functions never count as methods of the contract.
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
    """Whether the `forward` of a module or class has a parameter `state`, which makes it recurrent."""
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
