"""Learning-rate schedulers: which one, when it steps, and its new start with every task."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    StepLR,
)

from ...replay import CheckpointError, ConfigError, Replay
from ..metrics import better, score_names
from ..record.state import load_object_state, object_state
from ..settings.construct import construct
from ..settings.object_names import makes_objects, name_of
from ..settings.plan import Plan

_PER_STEP = (OneCycleLR, CyclicLR)  # PyTorch's own examples step these after every batch.
_LENGTH = ("total_steps", "num_training_steps")  # Parameters that ask for the schedule's length.
_PREVIEWED = 50_000  # Steps that are computed before a run, at most: half a second.
_OVER, _SHARE = 1e-4, 0.25  # Below this part of its peak for this share of a task: it is over.
# Schedulers whose rates follow from their arguments alone, so that only these can be wrong.
_OF_NUMBERS = (StepLR, MultiStepLR, ExponentialLR, CosineAnnealingLR, PolynomialLR, LinearLR)
_HARDLY = 0.02  # A rate that changes by less than this part hardly changes.

Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class Duration:
    """How long a task is, as far as the settings say.

    Attributes:
        steps: Learning steps at most; None: by epochs alone.
        epochs: Passes over the data at most; None: by steps alone.
        batches_per_epoch: None for what has no epochs.
        accumulate: Learning steps per update.
    """

    steps: int | None
    epochs: int | None
    batches_per_epoch: int | None
    accumulate: int = 1

    @property
    def learning_steps(self) -> int:
        bounds = [] if self.steps is None else [self.steps]
        if self.epochs is not None and self.batches_per_epoch is not None:
            bounds.append(self.epochs * self.batches_per_epoch)
        return min(bounds)

    def length(self, every: str) -> int:
        """Epochs or updates of the task, the last of which may be incomplete."""
        one = self.batches_per_epoch if every == "epoch" else self.accumulate
        assert one is not None
        return max(1, math.ceil(self.learning_steps / max(1, one)))

    def of(self, replay: Replay) -> Duration:
        """The duration of the task that the replay holds now, whose rows a strategy may have chosen."""
        if self.batches_per_epoch is None:
            return self
        return replace(self, batches_per_epoch=replay.batches_per_epoch)


class CosineToZero(CosineAnnealingLR):
    """CosineAnnealingLR that stays at its end, where torch's rises again."""

    def get_lr(self) -> list[Any]:
        if self.last_epoch > self.T_max:
            return [group["lr"] for group in self.optimizer.param_groups]
        return super().get_lr()


class Scheduler:
    """A scheduler of torch's kind, stepped when it is due, and started again with each task.

    Args:
        name: For messages.
        make: Makes one for an optimiser whose rates are the initial ones, and a duration.
        every: "epoch", "step" (each update) or "evaluation".
        durations: Of each task; a single one where tasks are not told apart.
        validation: Whether evaluations in mid-task are of rows set aside for them.
        told_length: Whether `make` uses the duration.

    Attributes:
        optimizer: The one scheduled; None until it is known.
        torch: The scheduler at work; None until then.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[Optimizer, Duration], Any],
        *,
        every: str,
        durations: list[Duration],
        validation: bool = False,
        told_length: bool = False,
    ):
        self.name, self.every, self._make = name, every, make
        self._durations, self._validation, self._told_length = durations, validation, told_length
        self.optimizer: Optimizer | None = None
        self.torch: Any = None
        self.initial: Groups = []  # The optimiser's settings before the scheduler changed them.
        self._duration = durations[0]
        self._task = 0
        self._began()

    def _began(self) -> None:
        self._updated = False  # Whether anything was updated since the schedule began.
        self._steps = self._epochs = 0  # Learning steps, and epochs stepped for, in this task.
        self._ended = False

    def attach(self, optimizer: Optimizer) -> None:
        """Schedule this optimiser, from its settings as they are."""
        self.optimizer, self.initial = optimizer, _options(optimizer)
        self.torch = self._make(optimizer, self._duration)

    def add_duration(self, duration: Duration) -> None:
        """Know of one more task."""
        self._durations.append(duration)

    def begin_task(self, task: int, replay: Replay) -> None:
        """Start the schedule again, with the optimiser's initial plan."""
        self._task = min(task, len(self._durations) - 1)
        duration = (
            self._durations[self._task].of(replay)
            if len(self._durations) > 1
            else self._durations[0]
        )
        if self.optimizer is None:
            self._duration = duration
            return
        if task == 0 and duration == self._duration:
            return  # It has only just begun.
        self._duration = duration
        _restore(self.optimizer, self.initial)
        self.torch = self._make(self.optimizer, duration)
        self._began()

    def updated(self) -> None:
        """After each update of the weights."""
        self._updated = True
        if self.every == "step":
            self._step()

    def learned(self, replay: Replay) -> None:
        """After each learning step: an epoch may have ended."""
        if self.every != "epoch":
            return
        self._steps += 1
        if not replay.borders:  # The stream is one pass, and where a task ends is not told.
            return
        # As the loop counts: a model need not draw its batches with next(replay).
        done = max(replay.passes, self._steps // max(1, replay.batches_per_epoch))
        while self._epochs < done:
            self._epochs += 1
            if self._updated:
                self._step()

    def evaluated(self, metrics: Mapping[str, float], *, validation: bool) -> None:
        """After each evaluation of the current task."""
        if self.every != "evaluation" or not self._updated or validation != self._validation:
            return
        direction = "less" if _mode(self.torch) == "min" else "more"
        names = [name for name in score_names() if better(name) == direction]
        value = next((metrics[name] for name in names if name in metrics), math.nan)
        if math.isnan(value):
            self._say(
                f"{self.name} (mode={_mode(self.torch)}) needs {' or '.join(names)}, which this "
                "evaluation does not give as a number: the learning rate stays unchanged."
            )
            return
        self._step(value)

    def _step(self, *metric: float) -> None:
        if self._ended:
            return
        assert self.optimizer is not None
        # float16's scaler may have skipped the first steps of the optimiser, which torch warns of.
        self.optimizer._opt_called = True  # type: ignore[attr-defined]
        try:
            self.torch.step(*metric)
        except ValueError as error:  # OneCycleLR, past its end.
            self._ended = True
            lr = float(self.optimizer.param_groups[0]["lr"])
            self._say(f"{self.name} is over: {error}. The learning rate stays at {lr:.3g}.")

    def _say(self, text: str) -> None:
        warnings.warn(text, stacklevel=2)

    def rebase(self, built: Groups) -> None:
        """Go on along the same curve from other initial plan.

        Args:
            built: Settings of each group of the optimiser.
        """
        assert self.optimizer is not None
        parts = list(_parts(self.torch))
        own_rates = any(isinstance(part, _PER_STEP) for part in parts)  # max_lr, base_lr.
        for group, initial, settings in zip(
            self.optimizer.param_groups, self.initial, built, strict=False
        ):
            factor = group["lr"] / initial["lr"] if initial["lr"] else 1
            for key in settings.keys() & group.keys() - {"lr"}:
                # What a schedule moves, as CyclicLR does momentum, it will move again.
                group[key] = copy.deepcopy(settings[key])
            if not own_rates:
                group["lr"], group["initial_lr"] = factor * settings["lr"], settings["lr"]
        if own_rates:
            return
        self.initial = copy.deepcopy(built)
        for part in parts:
            if hasattr(part, "base_lrs"):
                part.base_lrs = [group["lr"] for group in built]

    def state_dict(self) -> dict[str, Any]:
        return {
            "every": self.every,
            "task": self._task,
            "planned": [self._duration.learning_steps, self._duration.batches_per_epoch],
            "settings": self._durations[self._task].length("step"),
            "steps": self._steps,
            "epochs": self._epochs,
            "updated": self._updated,
            "ended": self._ended,
            "initial": self.initial,
            "scheduler": None if self.torch is None else _state(self.torch),
        }

    def load_state_dict(self, state: dict[str, Any], optimizer: Optimizer | None) -> None:
        """Continue exactly, `optimizer` being in the state of that moment.

        Raises:
            CheckpointError: If the saved one stepped at other moments.
        """
        if "every" not in state:  # Before 0.5.0: at every update, or evaluation.
            if self.every == "epoch":
                raise CheckpointError(
                    "The checkpoint's scheduler stepped at every update, as it did before 0.5.0. Resume with "
                    "scheduler_every=step to go on like that, or give the scheduler's numbers in epochs in a "
                    "run of another path, with load=PATH."
                )
            if self.torch is None and optimizer is not None:
                self.attach(optimizer)
            self.torch.load_state_dict(state)
            self._updated = True
            return
        if state["every"] != self.every:
            raise CheckpointError(
                f"The checkpoint's scheduler stepped once per {state['every']}, this run's once "
                f"per {self.every}. Resume with the scheduler_every it was saved with."
            )
        self._task = min(state["task"], len(self._durations) - 1)
        self._steps, self._epochs = state["steps"], state["epochs"]
        self._updated, self._ended = state["updated"], state["ended"]
        duration = self._durations[self._task]
        same = duration.length("step") == state["settings"]
        steps, batches = state["planned"]
        self._duration = (
            replace(duration, steps=steps, batches_per_epoch=batches) if same else duration
        )
        if state["scheduler"] is None or optimizer is None:
            return
        now = _options(optimizer)
        self.optimizer, self.initial = optimizer, state["initial"]
        _restore(optimizer, self.initial)
        self.torch = self._make(optimizer, self._duration)
        if self._told_length and not same:
            # Another length: as far along the new curve as it was along the old one.
            self._ended = False
            for _ in range(state["scheduler"].get("last_epoch", 0)):
                self._step()
            return
        _load(self.torch, state["scheduler"])
        _restore(optimizer, now)


def build_scheduler(
    plan: Plan,
    optimizer: Optimizer | None,
    durations: list[Duration],
    *,
    evaluations: bool = True,
    validation: bool = False,
) -> tuple[Scheduler | None, list[str]]:
    """The scheduler that the settings ask for, and what to say of it: the header's line, then problems.

    Args:
        optimizer: Not touched.
        durations: Of each task; a single one where tasks are not told apart.
        evaluations: Whether there is an evaluation before the end of a task.
        validation: Whether those are of rows set aside.

    Raises:
        ConfigError: If it cannot be made.
    """
    decay, every = plan.lr_decay_epochs, plan.scheduler_every
    wanted = plan.scheduler is not None
    if not wanted and decay is None:
        if "scheduler_every" in plan.given:
            warnings.warn(
                "`scheduler_every` has no effect in this run: there is no scheduler=.", stacklevel=3
            )
        return None, []
    if wanted and decay is not None:
        raise ConfigError("scheduler= and lr_decay_epochs= both set the learning rate. Give one.")
    if optimizer is None:
        raise ConfigError(
            "A scheduler needs an optimiser, and this model has no parameters to train."
        )
    epochs = durations[0].batches_per_epoch is not None
    if not epochs and decay is not None:
        raise ConfigError("lr_decay_epochs needs a data set: environments have no epochs.")
    if not epochs and every == "epoch":
        raise ConfigError("scheduler_every=epoch needs a data set: environments have no epochs.")
    told = False
    if decay is not None:
        name, make = f"lr_decay_epochs={decay}", _decay(decay, per_step=every == "step")
        trial, kind = make(_stub(optimizer), durations[0]), "epoch"
    elif plan.scheduler is not None and _is_instance(given := plan.scheduler.target):
        name, make = type(given).__name__, _given_scheduler(plan, given, optimizer)
        trial = _copied(given, optimizer)
        kind = _kind(given, epochs=epochs)
    else:
        assert plan.scheduler is not None
        target, arguments = plan.scheduler.target, plan.scheduler.arguments
        name = getattr(target, "__name__", type(target).__name__)
        guess = every or _kind(target, epochs=epochs)
        make, told = _maker(plan, target, arguments, guess)
        trial = make(_stub(optimizer), durations[0])
        kind = _kind(trial, epochs=epochs)
        if (every or kind) not in (guess, "evaluation"):  # A function: known by what it makes.
            make, told = _maker(plan, target, arguments, every or kind)
            trial = make(_stub(optimizer), durations[0])
        if name == "<lambda>" or inspect.isroutine(target):
            name = type(trial).__name__
    _check_step(name, trial)
    if kind == "evaluation":
        if every is not None:
            raise ConfigError(
                f"{name} steps at each evaluation, and scheduler_every={every} is given. Leave it out: "
                "eval_every= says how often."
            )
        if not epochs and _mode(trial) == "min":
            raise ConfigError(
                f"{name} with mode=min looks at the loss, and evaluations in environments give none. "
                "Write scheduler.mode=max: it then looks at the return."
            )
        if not evaluations:
            warnings.warn(
                f"{name} looks at evaluations, and there is none before the end of a task: it changes "
                "nothing. eval_every= says how often to evaluate.",
                stacklevel=3,
            )
    scheduler = Scheduler(
        name,
        make,
        every=every or kind,
        durations=durations,
        validation=validation,
        told_length=told,
    )
    return scheduler, _preview(scheduler, trial, durations[0])


def _check_step(name: str, scheduler: Any) -> None:
    """Refuse schedulers that are told at each step where they are, such as timm's."""
    if scheduler is None:
        return
    needed = [
        key
        for key, p in inspect.signature(scheduler.step).parameters.items()
        if p.default is p.empty and key != "metrics" and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    if needed:
        raise ConfigError(
            f"{name}.step needs {', '.join(needed)}; Antelope calls step(), or step(metrics). Use a "
            "scheduler of torch.optim.lr_scheduler, or LambdaLR with a function."
        )


def _decay(epochs: int, *, per_step: bool) -> Callable[[Optimizer, Duration], Any]:
    def make(optimizer: Optimizer, duration: Duration) -> Any:
        one = (
            1
            if not per_step
            else math.ceil((duration.batches_per_epoch or 1) / duration.accumulate)
        )
        return CosineToZero(optimizer, epochs * one)

    return make


def _given_scheduler(
    plan: Plan, given: Any, optimizer: Optimizer
) -> Callable[[Optimizer, Duration], Any]:
    """Gives the instance back in its first state, whatever it has done."""
    if not hasattr(given, "step"):
        raise ConfigError(f"scheduler={name_of(given)} has no `step` method.")
    others = {id(o): o for part in _parts(given) if (o := getattr(part, "optimizer", None))}
    others.pop(id(optimizer), None)
    if others:
        also = "Give" if "optim" in plan.objects else "Give optim= that optimiser too, or"
        raise ConfigError(
            f"The {type(given).__name__} given belongs to an optimiser that is not the one that steps. "
            f"{also} the scheduler's class instead of an instance."
        )
    first = copy.deepcopy(_state(given))

    def make(optimizer: Optimizer, duration: Duration) -> Any:
        _load(given, copy.deepcopy(first))
        return given

    return make


def _maker(
    plan: Plan, target: Any, arguments: dict[str, Any], every: str
) -> tuple[Callable[[Optimizer, Duration], Any], bool]:
    """What makes a scheduler of a class or function, and whether it is told the schedule's length."""
    parameters, passed_on = _parameters(target)
    given = {*arguments, *getattr(target, "keywords", {})}
    # ChainedScheduler has `schedulers` first.
    by_name = "optimizer" in parameters and next(iter(parameters)) != "optimizer"
    told = sorted({*_LENGTH, "steps_per_epoch", "epochs"} & parameters.keys() - given)

    def make(optimizer: Optimizer, duration: Duration) -> Any:
        inferred = _inferred(plan, duration, every, given, parameters)
        given_now = {key: _constructed(item, optimizer) for key, item in arguments.items()}
        given_now |= {k: v for k, v in inferred.items() if k in passed_on and k not in given_now}
        if by_name:
            inferred["optimizer"] = optimizer
        made = construct(
            target,
            given_now,
            inferred,
            setting="scheduler",
            positional=() if by_name else (optimizer,),
        )
        if not hasattr(made, "step"):
            raise ConfigError(
                f"scheduler={name_of(target)} gave a {type(made).__name__}, which has no `step` method."
            )
        return made

    return make, bool(told)


def _parameters(target: Any) -> tuple[dict[str, inspect.Parameter], set[str]]:
    """What a scheduler can be told, and which of it goes by its `**options` to the class it extends."""
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


def _inferred(
    plan: Plan,
    duration: Duration,
    every: str,
    given: set[str],
    parameters: Mapping[str, inspect.Parameter],
) -> dict[str, Any]:
    """What a scheduler's parameters can be told, by name."""
    table: dict[str, Any] = {}
    needed = [key for key, p in parameters.items() if p.default is p.empty]
    table |= {key: plan.values[key] for key in needed if plan.values.get(key) is not None}
    per_epoch = duration.batches_per_epoch and math.ceil(
        duration.batches_per_epoch / duration.accumulate
    )
    epochs = per_epoch and (duration.epochs or duration.length("epoch"))
    for key, value, other in (
        ("steps_per_epoch", per_epoch, "epochs"),
        ("epochs", epochs, "steps_per_epoch"),
    ):
        if value and (key in needed or (other in given and key in parameters)):
            table[key] = value
    # OneCycleLR is told either of the two.
    if not given & {"epochs", "steps_per_epoch"}:
        length = duration.length("epoch" if every == "epoch" else "step")
        table |= dict.fromkeys(_LENGTH, length)
    return table


def _constructed(value: Any, optimizer: Optimizer) -> Any:
    """Schedulers inside a SequentialLR or ChainedScheduler: `{_target_: LinearLR, ...}`."""
    if isinstance(value, list):
        return [_constructed(item, optimizer) for item in value]
    if isinstance(value, Mapping) and "_target_" in value:
        target = value["_target_"]
        rest = {k: _constructed(v, optimizer) for k, v in value.items() if k != "_target_"}
        return construct(target, rest, {}, setting="scheduler", positional=(optimizer,))
    return value


def _is_instance(given: Any) -> bool:
    return given is not None and not makes_objects(given)


def _state(scheduler: Any) -> Any:
    """The state of a scheduler, which need not be one of torch's."""
    return scheduler.state_dict() if hasattr(scheduler, "state_dict") else object_state(scheduler)


def _load(scheduler: Any, state: Any) -> None:
    if hasattr(scheduler, "load_state_dict"):
        scheduler.load_state_dict(state)
    else:
        load_object_state(scheduler, state)


def _parts(scheduler: Any) -> Iterable[Any]:
    """A scheduler, and those that it is made of."""
    yield scheduler
    for part in getattr(scheduler, "_schedulers", ()):
        yield from _parts(part)


def _kind(scheduler: Any, *, epochs: bool) -> str:
    """When a scheduler, or class of schedulers, usually steps."""
    if takes_metric(scheduler):
        return "evaluation"
    target = getattr(scheduler, "func", scheduler)  # functools.partial
    if inspect.isclass(target):
        per_step = issubclass(target, _PER_STEP)
    else:
        per_step = any(isinstance(part, _PER_STEP) for part in _parts(scheduler))
    return "step" if per_step or not epochs else "epoch"


def takes_metric(scheduler: Any) -> bool:
    """Whether `step` needs an evaluation's metric (ReduceLROnPlateau)."""
    step = getattr(getattr(scheduler, "func", scheduler), "step", None)
    return step is not None and "metrics" in inspect.signature(step).parameters


def _mode(scheduler: Any) -> str:
    return str(getattr(scheduler, "mode", "min"))


def _options(optimizer: Optimizer) -> Groups:
    """The settings of each group of an optimiser."""
    return [
        {k: copy.deepcopy(v) for k, v in group.items() if k not in ("params", "param_names")}
        for group in optimizer.param_groups
    ]


def _restore(optimizer: Optimizer, options: Groups) -> None:
    """Put back what `_options` found; groups that came later begin with their first rate."""
    for i, group in enumerate(optimizer.param_groups):
        if i >= len(options):
            group["lr"] = group.get("initial_lr", group["lr"])
            continue
        for key in group.keys() - options[i].keys() - {"params", "param_names"}:
            del group[key]
        for key, value in options[i].items():
            if isinstance(value, torch.Tensor) and isinstance(group.get(key), torch.Tensor):
                group[key].copy_(value)  # A captured graph reads this very tensor.
            else:
                group[key] = copy.deepcopy(value)


class _Stub(Optimizer):
    """Stands in for an optimiser while a schedule is only looked at."""

    # What schedulers look for, to warn of their own step before the optimiser's.
    _opt_called = True

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]


def _stub(optimizer: Optimizer) -> _Stub:
    groups = [{**options, "params": [torch.zeros(1)]} for options in _options(optimizer)]
    return _Stub(groups, dict(optimizer.defaults))


def _copied(scheduler: Any, optimizer: Optimizer) -> Any:
    """A copy of a scheduler, with a stand-in for its optimiser; None where it cannot be copied."""
    try:
        return copy.deepcopy(scheduler, {id(optimizer): _stub(optimizer)})
    except Exception:  # Any object may be in it.
        return None


def _preview(scheduler: Scheduler, trial: Any, duration: Duration) -> list[str]:
    """The header's line, and what is wrong with the schedule for a task of this length.

    Args:
        trial: A scheduler of a stand-in, which is used up.
    """
    name, every = scheduler.name, scheduler.every
    if every == "evaluation":
        return [f"{name}, at each evaluation"]
    when = "once an epoch" if every == "epoch" else "at each update"
    length = duration.length(every)
    unit = ("epoch" if every == "epoch" else "update") + "s" * (length > 1)
    if trial is None or length > _PREVIEWED or not hasattr(trial, "optimizer"):
        return [f"{name}, {when}"]
    group = trial.optimizer.param_groups[0]
    rates: list[float] = []
    ends = ""
    for _ in range(length):
        rates.append(float(group["lr"]))
        try:
            trial.step()
        except ValueError:
            ends = f"{name} ends after {len(rates) - 1} of this run's {length} {unit}"
            break
        except Exception as error:
            if type(trial) in _OF_NUMBERS:
                raise ConfigError(
                    f"scheduler={name} cannot step ({type(error).__name__}: {error}). Check the types of "
                    "its arguments."
                ) from error
            # One of the user's may look at gradients, which a stand-in does not have.
            return [f"{name}, {when}"]
    line = f"{name}, {when}: lr {rates[0]:.3g} to {rates[-1]:.3g} in {length:,} {unit}"
    peak = max(rates)
    if peak > max(rates[0], rates[-1]):
        line += f", {peak:.3g} at most"
    alive = max((i for i, rate in enumerate(rates) if rate > 1.001 * _OVER * peak), default=0) + 1
    if ends:
        warnings.warn(
            f"{ends}; the learning rate then stays at {rates[-1]:.3g}. Leave its length out: "
            "Antelope fills it in.",
            stacklevel=4,
        )
    elif length - alive > _SHARE * length:
        warnings.warn(
            f"{name} is over long before the run: after {alive} of {length} {unit} the learning "
            f"rate is {rates[alive]:.3g}, and almost nothing is learnt. It steps "
            f"{when}{'' if every == 'epoch' else '; scheduler_every=epoch changes that'}.",
            stacklevel=4,
        )
    elif length == 1 and every == "epoch":
        warnings.warn(
            f"{name} never steps: it does so once an epoch, and the run ends with the first. "
            "scheduler_every=step steps it at each update.",
            stacklevel=4,
        )
    elif length > 1 and every == "epoch" and rates[0] <= _OVER * peak:
        warnings.warn(
            f"{name} begins with an epoch at a learning rate of {rates[0]:.3g}, in which almost "
            "nothing is learnt. It steps once an epoch; scheduler_every=step steps it at each "
            "update.",
            stacklevel=4,
        )
    elif length > 1:
        return [line, *_unfinished(name, rates, f"{length} {unit}", every)]
    return [line]


def _unfinished(name: str, rates: list[float], where: str, every: str) -> list[str]:
    """What to say of a schedule that the run's end cuts short, as if its numbers were of other steps."""
    how = ""
    if every == "epoch":
        how = ". It steps once an epoch; scheduler_every=step steps it at each update"
    span = f"({rates[0]:.4g} to {rates[-1]:.4g})"
    if max(rates) - min(rates) < _HARDLY * max(rates):
        return [f"{name} hardly changes the learning rate {span} in {where}{how}."]
    if all(a < b for a, b in itertools.pairwise(rates)):
        return [f"{name} still raises the learning rate {span} at the end of {where}{how}."]
    return []
