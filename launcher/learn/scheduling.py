"""Builds a `Scheduler` from `scheduler=` and `lr_decay_epochs=`."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from ...replay import ConfigError
from ..assembly.optimisation import held_arguments
from ..assembly.schedule import Duration
from ..settings.construct import construct
from ..settings.named import Named
from ..settings.object_names import class_name, name_of
from ..settings.plan import Plan
from .rates import StandIn, copied, preview
from .schedulers import Scheduler
from .torch_schedulers import Steps, load_state, mode_of, parts_of, state_of, usual_every

_LENGTH = ("total_steps", "num_training_steps")  # Parameters that ask for the schedule's length.

Make = Callable[[Optimizer, Duration], Steps]
Parameters = Mapping[str, inspect.Parameter]


class CosineToZero(CosineAnnealingLR):
    """CosineAnnealingLR that stays at its final rate, where torch's rises again."""

    def get_lr(self) -> list[Any]:
        if self.last_epoch > self.T_max:
            return [group["lr"] for group in self.optimizer.param_groups]
        return super().get_lr()


@dataclass(frozen=True)
class _Choice:
    """The scheduler that the plan asks for.

    Attributes:
        name: Its name in messages.
        make: Makes one for an optimiser and a duration.
        usual: When it steps unless `scheduler_every=` says otherwise.
        trial: A scheduler over a `StandIn` of the optimiser; None if the given one cannot be copied.
        told_length: Whether `make` uses the duration.
    """

    name: str
    make: Make
    usual: str
    trial: Steps | None
    told_length: bool = False


def build_scheduler(
    plan: Plan,
    optimizer: Optimizer | None,
    durations: list[Duration],
    *,
    evaluations: bool = True,
    validation: bool = False,
) -> tuple[Scheduler | None, list[str]]:
    """The scheduler that the plan asks for, and the lines about it: one for the header, then problems.

    Args:
        optimizer: The optimiser to schedule; this function does not change it.
        durations: Each task's, in learning steps and epochs; a single one without task boundaries.
        evaluations: Whether there is an evaluation before the end of a task.
        validation: Whether these evaluations use rows held out of the training data.

    Raises:
        ConfigError: If it cannot be constructed, or does not fit the run.
    """
    decay = plan.lr_decay_epochs
    if plan.scheduler is None and decay is None:
        if "scheduler_every" in plan.given:
            warnings.warn(
                "`scheduler_every` has no effect in this run: there is no scheduler=.", stacklevel=3
            )
        return None, []
    if plan.scheduler is not None and decay is not None:
        raise ConfigError("scheduler= and lr_decay_epochs= both set the learning rate. Give one.")
    if optimizer is None:
        raise ConfigError(
            "A scheduler needs an optimiser, and this model has no parameters to train."
        )
    epochs = durations[0].batches_per_epoch is not None
    if not epochs and decay is not None:
        raise ConfigError("lr_decay_epochs needs a data set: environments have no epochs.")
    if not epochs and plan.scheduler_every == "epoch":
        raise ConfigError("scheduler_every=epoch needs a data set: environments have no epochs.")
    chosen = _choose(plan, optimizer, durations[0], epochs=epochs)
    _check(chosen, plan.scheduler_every, epochs=epochs, evaluations=evaluations)
    scheduler = Scheduler(
        chosen.name,
        chosen.make,
        every=plan.scheduler_every or chosen.usual,
        durations=durations,
        validation=validation,
        told_length=chosen.told_length,
    )
    return scheduler, preview(scheduler.name, scheduler.every, chosen.trial, durations[0])


def _choose(plan: Plan, optimizer: Optimizer, duration: Duration, *, epochs: bool) -> _Choice:
    """The plan's choice: a decay, an instance, or the product of a class or function."""
    every = plan.scheduler_every
    if plan.scheduler is None:
        assert plan.lr_decay_epochs is not None
        make: Make = functools.partial(
            _decay, epochs=plan.lr_decay_epochs, per_step=every == "step"
        )
        trial: Steps | None = make(StandIn(optimizer), duration)
        return _Choice(f"lr_decay_epochs={plan.lr_decay_epochs}", make, "epoch", trial)
    if not plan.scheduler.constructs:
        given = plan.scheduler.target
        make = _give_back(plan, given, optimizer)
        usual = usual_every(given, epochs=epochs)
        return _Choice(type(given).__name__, make, usual, copied(given, optimizer))
    target = plan.scheduler.target
    guess = every or usual_every(target, epochs=epochs)
    construction = _Construction(plan, plan.scheduler, guess)
    trial = construction(StandIn(optimizer), duration)
    usual = usual_every(trial, epochs=epochs)
    # What a function makes is known only now, and its length may count other steps than guessed.
    if (every or usual) not in (guess, "evaluation"):
        construction = _Construction(plan, plan.scheduler, every or usual)
        trial = construction(StandIn(optimizer), duration)
    name = class_name(target)
    if name == "<lambda>" or inspect.isroutine(target):
        name = type(trial).__name__
    return _Choice(name, construction, usual, trial, construction.told_length)


def _check(chosen: _Choice, every: str | None, *, epochs: bool, evaluations: bool) -> None:
    """Refuse a scheduler that cannot be stepped in this run, and warn of one that never is.

    Raises:
        ConfigError: Naming what it needs.
    """
    name = chosen.name
    if chosen.trial is not None:
        needed = [
            key
            for key, p in inspect.signature(chosen.trial.step).parameters.items()
            if p.default is p.empty and key != "metrics" and p.kind is p.POSITIONAL_OR_KEYWORD
        ]
        if needed:  # timm's schedulers need the number of the epoch or update at each step.
            raise ConfigError(
                f"{name}.step needs {', '.join(needed)}; Antelope calls step(), or step(metrics). Use a "
                "scheduler of torch.optim.lr_scheduler, or LambdaLR with a function."
            )
    if chosen.usual != "evaluation":
        return
    if every is not None:
        raise ConfigError(
            f"{name} steps at each evaluation, and scheduler_every={every} is given. Leave it out: "
            "eval_every= says how often."
        )
    if not epochs and mode_of(chosen.trial) == "min":
        raise ConfigError(
            f"{name} with mode=min monitors the loss, which evaluations in environments do not have. "
            "Write scheduler.mode=max to monitor the return."
        )
    if not evaluations:
        warnings.warn(
            f"{name} waits for evaluations, but there is none before the end of a task: it changes "
            "nothing. eval_every= says how often to evaluate.",
            stacklevel=4,
        )


def _decay(optimizer: Optimizer, duration: Duration, *, epochs: int, per_step: bool) -> Steps:
    """A cosine decay to zero over `epochs`, stepped once an epoch or (`per_step`) at each update."""
    updates = math.ceil((duration.batches_per_epoch or 1) / duration.accumulate)
    return CosineToZero(optimizer, epochs * (updates if per_step else 1))


def _give_back(plan: Plan, given: Steps, optimizer: Optimizer) -> Make:
    """A function that returns the user's instance, reset to its state of now.

    Raises:
        ConfigError: If it is not a scheduler, or belongs to another optimiser.
    """
    if not hasattr(given, "step"):
        raise ConfigError(f"scheduler={name_of(given)} has no `step` method.")
    others = {id(o): o for part in parts_of(given) if (o := getattr(part, "optimizer", None))}
    others.pop(id(optimizer), None)
    if others:
        also = "Give" if "optim" in plan.objects else "Give optim= that optimiser too, or"
        raise ConfigError(
            f"The {type(given).__name__} given belongs to an optimiser other than the one that steps. "
            f"{also} the scheduler's class instead of an instance."
        )
    first = copy.deepcopy(state_of(given))

    def make(optimizer: Optimizer, duration: Duration) -> Steps:
        load_state(given, copy.deepcopy(first))  # A scheduler may change the state that it loads.
        return given

    return make


class _Construction:
    """Constructs a scheduler from its class or function, with the arguments that can be inferred.

    Args:
        every: When it will step, "epoch", "step" or "evaluation": the unit of its length.

    Attributes:
        told_length: Whether its arguments depend on the duration.
    """

    def __init__(self, plan: Plan, named: Named, every: str):
        self._plan, self._every = plan, every
        self._target, self._arguments = named.target, named.arguments
        self._parameters, self._passed_on = _parameters(named.target)
        self._given = {*named.arguments, *held_arguments(named.target)}
        # ChainedScheduler's first parameter is `schedulers`.
        order = list(self._parameters)
        self._by_name = "optimizer" in order and order[0] != "optimizer"
        lengths = {*_LENGTH, "steps_per_epoch", "epochs"}
        self.told_length = bool(lengths & self._parameters.keys() - self._given)

    def __call__(self, optimizer: Optimizer, duration: Duration) -> Steps:
        """A scheduler for this optimiser and a task of this duration.

        Raises:
            ConfigError: If an argument is wrong, or the result has no `step`.
        """
        inferred = self._inferred(duration)
        given = {key: _constructed(item, optimizer) for key, item in self._arguments.items()}
        given |= {k: v for k, v in inferred.items() if k in self._passed_on and k not in given}
        if self._by_name:
            inferred["optimizer"] = optimizer
        made: Steps = construct(
            self._target,
            given,
            inferred,
            setting="scheduler",
            positional=() if self._by_name else (optimizer,),
        )
        if not hasattr(made, "step"):
            raise ConfigError(
                f"scheduler={name_of(self._target)} returned a {type(made).__name__}, which has no `step` "
                "method."
            )
        return made

    def _inferred(self, duration: Duration) -> dict[str, Any]:
        """Values for the scheduler's parameters, by name."""
        parameters, given, settings = self._parameters, self._given, self._plan.values
        needed = [key for key, p in parameters.items() if p.default is p.empty]
        table: dict[str, Any] = {
            key: settings[key] for key in needed if settings.get(key) is not None
        }
        per_epoch = duration.batches_per_epoch and math.ceil(
            duration.batches_per_epoch / duration.accumulate
        )
        epochs = per_epoch and (duration.epochs or duration.length("epoch"))
        # OneCycleLR accepts these two only together.
        for key, value, other in (
            ("steps_per_epoch", per_epoch, "epochs"),
            ("epochs", epochs, "steps_per_epoch"),
        ):
            if value and (key in needed or (other in given and key in parameters)):
                table[key] = value
        # OneCycleLR refuses a length beside either of the two.
        if not given & {"epochs", "steps_per_epoch"}:
            length = duration.length("epoch" if self._every == "epoch" else "step")
            table |= dict.fromkeys(_LENGTH, length)
        return table


def _parameters(target: Callable[..., Any]) -> tuple[Parameters, set[str]]:
    """A scheduler's parameters, and which of them its `**options` pass on to its base class."""
    try:
        parameters = dict(inspect.signature(target).parameters)
    except (TypeError, ValueError):
        return {}, set()
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not (open_ended and inspect.isclass(target) and issubclass(target, OneCycleLR)):
        return parameters, set()
    theirs = dict(inspect.signature(OneCycleLR).parameters)
    passed_on = theirs.keys() - parameters.keys() - {"optimizer"}
    return {**parameters, **{key: theirs[key] for key in passed_on}}, passed_on


def _constructed(value: object, optimizer: Optimizer) -> Any:
    """An argument with its inner schedulers constructed: `{_target_: LinearLR, ...}` in a SequentialLR."""
    if isinstance(value, list):
        return [_constructed(item, optimizer) for item in value]
    if isinstance(value, Mapping) and "_target_" in value:
        target = value["_target_"]
        rest = {k: _constructed(v, optimizer) for k, v in value.items() if k != "_target_"}
        return construct(target, rest, {}, setting="scheduler", positional=(optimizer,))
    return value
