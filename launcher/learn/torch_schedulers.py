"""What one can ask of a scheduler: one of torch's, or any object with a method `step`."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR

from ..record.state import check_scheduler, load_object_state, object_state

PER_STEP = (OneCycleLR, CyclicLR)  # torch's documentation steps these after every batch.

Groups = list[dict[str, Any]]  # The options of each group of an optimiser, without its parameters.


class Steps(Protocol):
    """Changes an optimiser's learning rates at every `step()`, or `step(metric)`."""

    @property
    def step(self) -> Callable[..., object]: ...


def state_of(scheduler: Steps) -> Any:
    """The state of a scheduler, which need not be one of torch's."""
    return scheduler.state_dict() if hasattr(scheduler, "state_dict") else object_state(scheduler)


def load_state(scheduler: Steps, state: Any) -> None:
    """Put back what `state_of` returned.

    Raises:
        CheckpointError: If it is not the state of such a scheduler.
    """
    if isinstance(scheduler, LRScheduler):
        check_scheduler(scheduler, state, "scheduler")
    if hasattr(scheduler, "load_state_dict"):
        scheduler.load_state_dict(state)
    else:
        load_object_state(scheduler, state)


def parts_of(scheduler: object) -> Iterable[Any]:
    """A scheduler, then all those inside it, as in a SequentialLR or ChainedScheduler."""
    yield scheduler
    for part in getattr(scheduler, "_schedulers", ()):
        yield from parts_of(part)


def usual_every(scheduler: object, *, epochs: bool) -> str:
    """When a scheduler or a class of schedulers usually steps: every "epoch", "step" or "evaluation".

    Args:
        epochs: Whether the run has epochs: only those on data sets do.
    """
    if takes_metric(scheduler):
        return "evaluation"
    target = _without_arguments(scheduler)
    if inspect.isclass(target):
        per_step = issubclass(target, PER_STEP)
    else:
        per_step = any(isinstance(part, PER_STEP) for part in parts_of(scheduler))
    return "step" if per_step or not epochs else "epoch"


def takes_metric(scheduler: object) -> bool:
    """Whether `step` needs an evaluation's metric (ReduceLROnPlateau)."""
    target = _without_arguments(scheduler)
    return hasattr(target, "step") and "metrics" in inspect.signature(target.step).parameters


def _without_arguments(scheduler: object) -> Any:
    """The class or function inside a `functools.partial`; anything else unchanged."""
    return scheduler.func if isinstance(scheduler, functools.partial) else scheduler


def mode_of(scheduler: Steps | None) -> str:
    """`min` or `max`: the direction in which a scheduler's metric improves."""
    return str(getattr(scheduler, "mode", "min"))


def options_of(optimizer: Optimizer) -> Groups:
    """The options of each group of an optimiser, copied."""
    return [
        {k: copy.deepcopy(v) for k, v in group.items() if k not in ("params", "param_names")}
        for group in optimizer.param_groups
    ]


def restore_options(optimizer: Optimizer, options: Groups) -> None:
    """Put back what `options_of` returned; groups added since then restart at their first rate."""
    for i, group in enumerate(optimizer.param_groups):
        if i >= len(options):
            group["lr"] = group.get("initial_lr", group["lr"])
            continue
        for key in group.keys() - options[i].keys() - {"params", "param_names"}:
            del group[key]
        for key, value in options[i].items():
            if isinstance(value, torch.Tensor) and isinstance(group.get(key), torch.Tensor):
                group[key].copy_(value)  # A captured CUDA graph reads this very tensor.
            else:
                group[key] = copy.deepcopy(value)
