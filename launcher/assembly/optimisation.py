"""The optimiser that the settings ask for, and the averaged weights."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import OptState
from torch.nn.parameter import is_lazy
from torch.optim import SGD, Adam, AdamW, Optimizer

from ...agents.traits import hook
from ...replay import ConfigError
from ...replay.devices import has_float64
from ..settings.construct import construct
from ..settings.named import Named
from ..settings.object_names import name_of
from ..settings.plan import Plan
from .groups import check_options, divided, flat_patterns

_ELSEWHERE = " A scheduler goes into scheduler=."


def build_optimizer(plan: Plan, agent: nn.Module, own: nn.Module | None = None) -> Optimizer | None:
    """The optimiser of the agent's trainable parameters, or None if there are none.

    A model that may unfreeze or add parameters later has one from the start; see `Parameters`.

    Args:
        agent: The module that learns, on its device.
        own: The user's module inside `agent`: `optim.groups` may use its parameter names too.

    Raises:
        ConfigError: If it cannot be constructed, or does not hold the agent's parameters.
    """
    parameters = [p for p in agent.parameters() if p.requires_grad]
    if not parameters and may_get_parameters(agent):
        # torch refuses an optimiser without parameters; an empty one stands in until some come.
        parameters = list(agent.parameters()) or [nn.Parameter(torch.empty(0))]
    if not plan.optim.constructs:
        return _given_optimizer(plan.optim, agent)
    if not parameters:
        return None
    target, arguments = plan.optim.target, dict(plan.optim.arguments)
    for shorthand, value in {"lr": plan.lr, "weight_decay": plan.weight_decay}.items():
        if value is not None:
            arguments.setdefault(shorthand, value)  # `optim.lr=` is more specific than `lr=`.
    trained: list[Any] = parameters
    patterns: dict[str, Any] = {}
    # A user's optimiser may have a parameter `groups` of its own.
    if "groups" in arguments and "groups" not in inspect.signature(target).parameters:
        patterns = flat_patterns(arguments.pop("groups"))
        trained = divided(patterns, agent, own)
    base = target.func if isinstance(target, functools.partial) else target
    if inspect.isclass(base):
        # Before construction: a scheduler's class would raise an error that mentions no setting.
        if not issubclass(base, Optimizer):
            raise ConfigError(
                f"optim={name_of(target)} is not a torch.optim.Optimizer.{_ELSEWHERE}"
            )
        refuse_closures(base)
    first = _what_it_asks_for(target, agent, trained)
    said = (arguments, held_arguments(target), *patterns.values())
    inferred = _one_kernel(base, parameters, said)
    made = construct(target, arguments, inferred, setting="optim", positional=(first,))
    return _checked(made, plan.optim, agent, patterns, fused=inferred.get("fused", False))


def _one_kernel(
    base: Any, parameters: list[nn.Parameter], said: tuple[Mapping[str, Any], ...]
) -> dict[str, Any]:
    """The argument `fused` for torch's optimisers that have it, unless the user decides.

    Args:
        base: The optimiser's class, or a function that makes one.
        said: The optimiser's arguments, those of a `functools.partial`, and those of each group.
    """
    asked = said[0].keys() | said[1].keys()
    if base not in (Adam, AdamW, SGD) or {"foreach", "fused"} & asked:
        return {}
    # One kernel for all parameters: 1.2 to 1.3 times the default's speed on small networks.
    # It exists for floating-point tensors in memory only.
    fused = all(p.is_floating_point() and not p.is_meta for p in parameters)
    # `_begin_momentum` starts momentum at 0, so dampening would shrink its first gradient too.
    return {"fused": fused and not any(options.get("dampening") for options in said)}


def _checked(
    made: object, named: Named, agent: nn.Module, patterns: dict[str, Any], *, fused: bool
) -> Optimizer:
    """The constructed optimiser, ready to step.

    Args:
        patterns: Options by pattern of `optim.groups`.
        fused: Whether Antelope asked for one kernel for all parameters.

    Raises:
        ConfigError: If it does not hold the agent's parameters, or needs several losses per step.
    """
    target = named.target
    base = target.func if isinstance(target, functools.partial) else target
    if not isinstance(made, Optimizer):
        what = f"a {type(made).__name__}"
        also = _ELSEWHERE if isinstance(made, (tuple, list, dict)) else ""
        raise ConfigError(
            f"optim={name_of(target)} returned {what}, not a torch.optim.Optimizer. It is called "
            f"with the model's parameters, and must return an optimiser for them.{also}"
        )
    if inspect.isclass(base):
        # Schedulers write into a learning rate that is a tensor, and this one belongs to the user.
        for group in made.param_groups:
            group |= {k: v.clone() for k, v in group.items() if isinstance(v, Tensor)}
    else:
        # A function may return any optimiser, over any parameters; a class was checked before.
        refuse_closures(type(made))
        _check_parameters(made, agent)
    check_options(patterns, made)
    if base is SGD and fused:
        made.register_step_pre_hook(_begin_momentum)
    return made


def held_arguments(target: object) -> dict[str, Any]:
    """The arguments that a `functools.partial` already holds."""
    return target.keywords if isinstance(target, functools.partial) else {}


def refuse_closures(kind: type) -> None:
    """Refuse an optimiser that evaluates the loss itself.

    Raises:
        ConfigError: If its `step` needs a closure, as that of LBFGS does.
    """
    closure = inspect.signature(kind.step).parameters.get("closure")  # type: ignore[attr-defined]
    if closure is not None and closure.default is closure.empty:
        raise ConfigError(
            f"optim={kind.__name__} evaluates the loss several times per step, but `learn` "
            "returns it once. Use it inside the model, and return None."
        )


def may_get_parameters(agent: nn.Module) -> bool:
    """Whether a model without trainable parameters may get some later."""
    if hook(agent, "begin_task") is not None:
        return True
    # Its `learn` may unfreeze what is frozen now.
    return hook(agent, "learn") is not None and any(True for _ in agent.parameters())


def _begin_momentum(optimizer: Optimizer, *_: Any) -> None:
    """Start momentum at 0 for parameters with their first gradient.

    Fused SGD (torch 2.14) fails if some parameters have a momentum buffer and others do not.
    """
    for group in optimizer.param_groups:
        if not group["momentum"]:  # Looked up at every step: OneCycleLR may set it later.
            continue
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = optimizer.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def _what_it_asks_for(target: Callable[..., Any], agent: nn.Module, trained: list[Any]) -> Any:
    """The first argument for a function that makes an optimiser, by the name of its first parameter."""
    if inspect.isclass(target.func if isinstance(target, functools.partial) else target):
        return trained
    try:
        first = next(iter(inspect.signature(target).parameters), "")
    except (TypeError, ValueError):  # Written in C, it has no signature.
        return trained
    if first in ("model", "module", "net", "agent"):
        return agent
    if first == "named_parameters":
        return [(name, p) for name, p in agent.named_parameters() if p.requires_grad]
    return trained


def _given_optimizer(named: Named, agent: nn.Module) -> Optimizer:
    given = named.target
    if not isinstance(given, Optimizer):
        raise ConfigError(f"optim={name_of(given)} is not a torch.optim.Optimizer.")
    if arguments := named.arguments:
        raise ConfigError(
            f"optim={name_of(given)} is already constructed, so `{next(iter(arguments))}` cannot be set. "
            "Give its class instead."
        )
    refuse_closures(type(given))
    _check_parameters(given, agent)
    return given


def _check_parameters(optimizer: Optimizer, agent: nn.Module) -> None:
    own = {id(p) for p in agent.parameters()}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise ConfigError(
            "The optimiser given holds none of the model's parameters. Give the optimiser's class "
            "instead, or the model as an instance."
        )


def left_out(optimizer: Optimizer, agent: nn.Module) -> list[str]:
    """Names of trainable parameters with a gradient that the optimiser does not hold."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return [
        name
        for name, p in agent.named_parameters()
        if p.requires_grad and p.grad is not None and id(p) not in held
    ]


class Scaler(torch.amp.GradScaler):
    """torch's loss scaler for float16, which also works on devices without float64.

    torch computes the scale's reciprocal in float64, except on Apple's devices. Since the scale is a
    power of two, its reciprocal is exact in float32.
    """

    def unscale_(self, optimizer: Optimizer) -> None:
        if has_float64(self._device):
            super().unscale_(optimizer)
            return
        state = self._per_optimizer_states[id(optimizer)]
        assert self._scale is not None
        found = torch.zeros((), device=self._scale.device)
        state["found_inf_per_device"] = self._unscale_grads_(
            optimizer, self._scale.reciprocal(), found, False
        )
        state["stage"] = OptState.UNSCALED


class Average:
    """Exponential moving average of a module's weights.

        average <- decay * average + (1 - decay) * weight

    Source: Polyak & Juditsky (1992); Tarvainen & Valpola (2017, arXiv 1703.01780), eq. 2. Buffers
    (BatchNorm's statistics) are averages already and are copied.
    """

    def __init__(self, module: nn.Module, *, decay: float):
        self.module, self.decay = module, decay
        self.restart()

    def restart(self) -> None:
        """Restart the average from the module's current weights."""
        self._named: dict[str, nn.Parameter] = {}
        self.average: list[Tensor] = []
        self.follow()

    def follow(self) -> None:
        """Start averages of new parameters at their current weights, and drop those of removed ones."""
        known = {
            id(p): average for p, average in zip(self._named.values(), self.average, strict=True)
        }
        now = self.module.named_parameters()
        self._named = {name: p for name, p in now if not is_lazy(p)}
        self.average = [
            average
            if (average := known.get(id(p))) is not None and average.shape == p.shape
            else p.detach().clone()
            for p in self._named.values()
        ]

    def _live(self) -> list[Tensor]:
        return [p.detach() for p in self._named.values()]

    def update(self) -> None:
        """Move the averages towards the weights, after an update of these."""
        torch._foreach_lerp_(self.average, self._live(), 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run the block with the averaged weights in the module."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchange weights and averages in place, so that optimisers keep their parameters."""
        for weight, average in zip(self._live(), self.average, strict=True):
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    def by_parameter(self) -> dict[nn.Parameter, Tensor]:
        """The average of each parameter."""
        return dict(zip(self._named.values(), self.average, strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {"average": dict(zip(self._named, self.average, strict=True))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        saved = state["average"]
        if isinstance(saved, dict):  # Before 0.5.0 a list, in the order of the parameters.
            saved = [saved[name] for name in self._named]
        for average, value in zip(self.average, saved, strict=True):
            average.copy_(value)
