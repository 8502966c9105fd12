"""Computes the learning rates of a schedule before the run, to show them and to find mistakes."""

from __future__ import annotations

import copy
import itertools
import warnings
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)

from ...replay import ConfigError
from ..assembly.schedule import Duration
from .torch_schedulers import Steps, options_of

_PREVIEWED = 50_000  # Steps computed at most, which takes half a second.
_OVER, _SHARE = 1e-4, 0.25  # Over: below this part of its peak, for this share of a task.
# Their rates follow from their arguments alone, so that an error comes from these.
_OF_NUMBERS = (StepLR, MultiStepLR, ExponentialLR, CosineAnnealingLR, PolynomialLR, LinearLR)
_HARDLY = 0.02  # Relative change of the rate, below which it hardly changes.
_WHEN = {"epoch": "once an epoch", "step": "at each update", "evaluation": "at each evaluation"}


class StandIn(Optimizer):
    """Takes an optimiser's place while its schedule is only previewed.

    Args:
        optimizer: Stays untouched: its options are copied, its parameters are left out.
    """

    # Schedulers warn of a step before the optimiser's unless they find this.
    _opt_called = True

    def __init__(self, optimizer: Optimizer):
        groups = [{**options, "params": [torch.zeros(1)]} for options in options_of(optimizer)]
        super().__init__(groups, dict(optimizer.defaults))

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Does nothing."""

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]


def copied(scheduler: Steps, optimizer: Optimizer) -> Steps | None:
    """A copy of a scheduler over a `StandIn` of its optimiser; None where it cannot be copied."""
    try:
        return copy.deepcopy(scheduler, {id(optimizer): StandIn(optimizer)})
    except Exception:  # A user's scheduler may hold anything.
        return None


def preview(name: str, every: str, trial: Steps | None, duration: Duration) -> list[str]:
    """The header's line, then problems of the schedule for a task of this length.

    Args:
        name: The scheduler's name, for messages.
        every: When it steps: "epoch", "step" or "evaluation".
        trial: A scheduler over a `StandIn`, which this function steps to its end; None: nothing to try.
        duration: The first task's, in learning steps and epochs.

    Raises:
        ConfigError: If one of torch's schedulers cannot step with its arguments.
    """
    short = f"{name}, {_WHEN[every]}"
    if every == "evaluation":
        return [short]
    length = duration.length(every)
    if trial is None or length > _PREVIEWED or not hasattr(trial, "optimizer"):
        return [short]
    rates, ended = _rates(name, trial, trial.optimizer, length)
    if not rates:
        return [short]
    unit = ("epoch" if every == "epoch" else "update") + "s" * (length > 1)
    line = f"{short}: lr {rates[0]:.3g} to {rates[-1]:.3g} in {length:,} {unit}"
    if max(rates) > max(rates[0], rates[-1]):
        line += f", {max(rates):.3g} at most"
    if ended:
        problem: str | None = (
            f"{name} ends after {len(rates) - 1} of this run's {length} {unit}; the learning rate then "
            f"stays at {rates[-1]:.3g}. Leave its length out: Antelope fills it in."
        )
    else:
        problem = _wasted(name, rates, unit, every)
    if problem is not None:
        warnings.warn(problem, stacklevel=4)
        return [line]
    return [line, *_unfinished(name, rates, f"{length} {unit}", every)]


def _rates(name: str, trial: Steps, optimizer: Optimizer, length: int) -> tuple[list[float], bool]:
    """The rate at each step, and whether the schedule ends early; no rates if they cannot be computed.

    Args:
        length: Number of steps to compute.
    """
    group = optimizer.param_groups[0]
    rates: list[float] = []
    for _ in range(length):
        rates.append(float(group["lr"]))
        try:
            trial.step()
        except ValueError:  # OneCycleLR, past its end.
            return rates, True
        except Exception as error:
            if type(trial) in _OF_NUMBERS:
                raise ConfigError(
                    f"scheduler={name} cannot step ({type(error).__name__}: {error}). Check the types of "
                    "its arguments."
                ) from error
            return [], False  # A user's scheduler may read gradients, which a stand-in lacks.
    return rates, False


def _wasted(name: str, rates: list[float], unit: str, every: str) -> str | None:
    """Why a large part of the run would learn next to nothing; None if it would not.

    Args:
        rates: The learning rate at each epoch or update.
        unit: What they are counted in, for the message.
    """
    length, peak, by_epoch = len(rates), max(rates), every == "epoch"
    alive = max((i for i, rate in enumerate(rates) if rate > 1.001 * _OVER * peak), default=0) + 1
    if length - alive > _SHARE * length:
        return (
            f"{name} ends long before the run: after {alive} of {length} {unit} the learning "
            f"rate is {rates[alive]:.3g}, and almost nothing is learnt. It steps "
            f"{_WHEN[every]}{'' if by_epoch else '; scheduler_every=epoch changes that'}."
        )
    if length == 1 and by_epoch:
        return (
            f"{name} never steps: it would step once an epoch, and the run has only one. "
            "scheduler_every=step steps it at each update."
        )
    if length > 1 and by_epoch and rates[0] <= _OVER * peak:
        return (
            f"{name} begins with an epoch at a learning rate of {rates[0]:.3g}, in which almost "
            "nothing is learnt. It steps once an epoch; scheduler_every=step steps it at each "
            "update."
        )
    return None


def _unfinished(name: str, rates: list[float], where: str, every: str) -> list[str]:
    """Remarks on a schedule that the run's end cuts short: its numbers may count other steps."""
    if len(rates) == 1:
        return []
    how = ""
    if every == "epoch":
        how = ". It steps once an epoch; scheduler_every=step steps it at each update"
    span = f"({rates[0]:.4g} to {rates[-1]:.4g})"
    if max(rates) - min(rates) < _HARDLY * max(rates):
        return [f"{name} hardly changes the learning rate {span} in {where}{how}."]
    if all(a < b for a, b in itertools.pairwise(rates)):
        return [f"{name} still raises the learning rate {span} at the end of {where}{how}."]
    return []
