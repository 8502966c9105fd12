"""Follows a model's parameters: layers may be unfrozen, added, replaced or dropped while it learns."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from ..assembly.optimisation import Average

_REQUIRES_GRAD, _SHAPE, _NUMEL = (
    attrgetter("requires_grad"),
    attrgetter("shape"),
    nn.Parameter.numel,
)


class Parameters:
    """Adapts the optimiser and the average to changes of a module's parameters.

    New parameters are stepped and averaged from then on; removed ones are dropped with their state. A
    parameter that replaces another of the same name takes its place in the optimiser, but not its
    state. One with a new name joins the group of the parameters with the most similar names.

    If the user's optimiser left out some trainable parameters from the start, no new ones are added.

    Args:
        agent: The module that learns.
        optimizer: Steps its parameters, or None.
        average: Their moving average, or None.

    Attributes:
        trained: The parameters that the optimiser steps, in its order.
        changed: Called after each change with the names of newly trained parameters.
    """

    def __init__(
        self,
        agent: nn.Module,
        optimizer: Optimizer | None = None,
        average: Average | None = None,
    ):
        self.agent, self.average = agent, average
        self.optimizer: Optimizer | None = None
        self._state_at_once = False
        self.changed: list[Callable[[list[str]], None]] = []
        self._once: set[int] = set()  # Ids of parameters that have ever been trained.
        self._walk()
        self._trained_now()
        self.use(optimizer)

    def use(self, optimizer: Optimizer | None) -> None:
        """Adapt this optimiser from now on; at this moment it holds all it should."""
        if optimizer is not self.optimizer:
            # Adagrad makes its state when it is constructed, and fails later without it.
            self._state_at_once = optimizer is not None and bool(optimizer.state)
        self.optimizer = optimizer
        held = self._held()
        left_out = {n for n, p in self.named.items() if p.requires_grad and id(p) not in held}
        self._follows = not left_out
        self._warned = left_out  # By name: the user has left them out.
        self.trained = self._trained()

    def look(self, *, closely: bool = True) -> bool:
        """Adapt to changes since the last look.

        Args:
            closely: False within a step, where each microsecond counts: a parameter replaced inside a
                wholly frozen layer is then found by a later look.

        Returns:
            Whether anything has changed.
        """
        if not (self._is_different() or (closely and self._is_different_inside())):
            return False
        before, sized = self.named, list(zip(self._moving, self._shapes, strict=True))
        self._walk()
        reshaped = {id(p) for p, shape in sized if p.shape != shape}
        self._follow(before, reshaped)
        self.trained = self._trained()
        new = self._trained_now()
        for tell in self.changed:
            tell(new)
        return True

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """The module's buffers by name, as of now; its own walk over the modules takes ten times as long."""
        for prefix, buffers in self._buffers:
            for name, buffer in buffers.items() if buffers else ():
                if buffer is not None:
                    yield f"{prefix}{name}", buffer

    def _trained_now(self) -> list[str]:
        """Names of the parameters that are trained for the first time."""
        now = {name: id(p) for name, p in self.named.items() if p.requires_grad}
        new = [name for name, known in now.items() if known not in self._once]
        self._once = (self._once & {id(p) for p in self.named.values()}) | set(now.values())
        return new

    def _is_different(self) -> bool:
        # The modules' own dictionaries were kept: walking over the modules takes ten times as long.
        return bool(
            any(self._empty)
            or self._ids_of(self._filled) != self._ids
            or (self._still and list(map(len, self._still)) != self._still_sizes)
            or (self._frozen and any(map(_REQUIRES_GRAD, self._frozen)))
            # `weight.data = larger`: fused optimisers would write past the end of their state.
            # Sizes, not shapes: so many tuples would trigger the garbage collector more often.
            or list(map(_NUMEL, self._moving)) != self._sizes
            or (self._lazy and not all(map(is_lazy, self._lazy)))
        )

    def _is_different_inside(self) -> bool:
        shapes = list(map(_SHAPE, self._moving))
        return self._ids_of(self._still) != self._still_ids or shapes != self._shapes

    @staticmethod
    def _ids_of(entries: Sequence[Mapping[str, Any]]) -> list[int]:
        return [id(x) for d in entries for x in d.values()]

    def _walk(self) -> None:
        entries: list[dict[str, Any]] = []
        self._still: list[dict[str, Any]] = []  # Of layers that are frozen as a whole.
        self._buffers: list[tuple[str, dict[str, Tensor | None]]] = []
        for prefix, module in self.agent.named_modules():
            self._buffers.append((f"{prefix}." if prefix else "", module._buffers))
            own = module._parameters
            still = bool(own) and not any(p is not None and p.requires_grad for p in own.values())
            (self._still if still else entries).append(own)
            entries.append(module._modules)
        self._filled, self._empty = [d for d in entries if d], [d for d in entries if not d]
        self._ids, self._still_ids = self._ids_of(self._filled), self._ids_of(self._still)
        self._still_sizes = list(map(len, self._still))
        named = dict(self.agent.named_parameters())
        self.named = {name: p for name, p in named.items() if not is_lazy(p)}
        self._lazy = [p for p in named.values() if is_lazy(p)]  # Until their first forward.
        self._frozen = [p for p in self.named.values() if not p.requires_grad]
        self._moving = [p for p in self.named.values() if p.requires_grad]
        self._shapes = list(map(_SHAPE, self._moving))
        self._sizes = list(map(_NUMEL, self._moving))

    def _held(self) -> set[int]:
        if self.optimizer is None:
            return set()
        return {id(p) for group in self.optimizer.param_groups for p in group["params"]}

    def _trained(self) -> list[nn.Parameter]:
        if self.optimizer is None:
            return [p for p in self.named.values() if p.requires_grad]
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _follow(self, before: Mapping[str, nn.Parameter], reshaped: set[int]) -> None:
        if self.average is not None:
            self.average.follow()
        if self.optimizer is None:
            return
        held, present = self._held(), {id(p) for p in self.named.values()}
        new = {n: p for n, p in self.named.items() if p.requires_grad and id(p) not in held}
        if not self._follows and new:
            self._warn(list(new))
            new = {}
        heir = {id(before[n]): p for n, p in new.items() if n in before}
        gone = {id(p): p for p in before.values() if id(p) not in present}
        places = {
            n: (i, before[n].dim())
            for i, group in enumerate(self.optimizer.param_groups)
            for n in _names(group["params"], before)
        }
        taken: set[int] = set()
        for group in self.optimizer.param_groups:
            kept: list[nn.Parameter] = []
            for parameter in group["params"]:
                if id(parameter) in heir and id(parameter) in gone:
                    kept.append(heir[id(parameter)])
                    taken.add(id(kept[-1]))
                    self._begin_state(kept[-1], group)
                elif id(parameter) not in gone:
                    kept.append(parameter)
                    if id(parameter) in reshaped:
                        self.optimizer.state.pop(parameter, None)
                        self._begin_state(parameter, group)
            group["params"][:] = kept
        for parameter in gone.values():
            self.optimizer.state.pop(parameter, None)
        for name, parameter in new.items():
            if id(parameter) not in taken:
                group = self.optimizer.param_groups[_nearest(name, parameter.dim(), places)]
                group["params"].append(parameter)
                self._begin_state(parameter, group)

    def _begin_state(self, parameter: nn.Parameter, group: Mapping[str, Any]) -> None:
        if not self._state_at_once:
            return
        assert self.optimizer is not None
        kind = type(self.optimizer)
        takes = inspect.signature(kind).parameters
        options = {key: value for key, value in group.items() if key in takes and key != "params"}
        self.optimizer.state[parameter] = kind([parameter], **options).state[parameter]

    def _warn(self, names: list[str]) -> None:
        names = [name for name in names if name not in self._warned]
        self._warned |= set(names)
        if names:
            warnings.warn(
                f"Nothing trains {in_words(names)} of {type(self.agent).__name__}: the optimiser given holds "
                "only a part of the parameters, so new ones are not added to it. Call its "
                "add_param_group, or give the optimiser's class.",
                stacklevel=2,
            )


def in_words(names: Sequence[str]) -> str:
    """The first few of many names: `` `a.weight`, `a.bias` and 7 more ``."""
    shown = ", ".join(f"`{name}`" for name in names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _names(parameters: Sequence[nn.Parameter], named: Mapping[str, nn.Parameter]) -> list[str]:
    known = {id(p): name for name, p in named.items()}
    return [known[id(p)] for p in parameters if id(p) in known]


def _nearest(name: str, dims: int, places: Mapping[str, tuple[int, int]]) -> int:
    """The group of the most similar parameter: by shared path, own name, and number of dimensions.

    Args:
        name: Of the new parameter, such as `body.0.weight`.
        dims: Its number of dimensions.
        places: Group and number of dimensions of each parameter that the optimiser holds.
    """
    *path, own = name.split(".")

    def nearness(other: str) -> tuple[int, bool, bool, int]:
        *their_path, theirs = other.split(".")
        shared = 0
        while path[:shared] == their_path[:shared] and shared <= min(len(path), len(their_path)):
            shared += 1
        group, their_dims = places[other]
        return shared, own == theirs, dims == their_dims, -group

    return places[max(places, key=nearness)][0] if places else 0
