"""A class with `observe(inputs, labels, not_aug_inputs, epoch=None)` is trained as any other model."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from ...agents.continual.layers import put_together
from ...agents.traits import Traits, hook
from ...replay import ConfigError, Replay, Spec, Table
from ..assembly.infer import inferred
from ..record.log import Log
from ..settings.named import makes_objects
from ..settings.names import construct, resolve
from ..settings.plan import Plan
from .arguments import GENERAL
from .backbones import default_backbone
from .options import MORE, Options, constructor_names
from .provided import Arguments, fitted, make_optimizer, run_arguments, use_device
from .schedulers import get_scheduler
from .tasks.sequence import ContinualDataset
from .tasks.transform import OwnTransform, Transform
from .tasks.world import SequenceWorld

# What the methods of such a model can ask for.
OBSERVED = ("inputs", "labels", "not_aug_inputs", "epoch", "task", "indexes")
TOLD = ("dataset", "epoch", "task", "replay")
HOOKS = ("begin_task", "end_task", "begin_epoch", "end_epoch")
# What Mammoth passes by place, and `*args` receives.
_BY_PLACE = {
    "observe": OBSERVED[:3],
    **dict.fromkeys(("begin_task", "end_task"), ("dataset",)),
    **dict.fromkeys(("begin_epoch", "end_epoch"), ("epoch", "dataset")),
}
_ITERATIONS = ("task_iteration", "epoch_iteration")
_COUNTED = "_antelope_counted"  # An attribute that no model has of its own.


class _OfSequence:
    """An attribute of the model's sequence of tasks, until the model sets its own."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, model: Any, owner: type | None = None) -> Any:
        if model is None:
            return self
        sequence = model.__dict__.get("dataset")
        if sequence is None:
            raise AttributeError(
                f"{type(model).__name__}.{self.name}: the model has no dataset yet. Pass `dataset` on to "
                "super().__init__(backbone, loss, args, transform, dataset=dataset)."
            )
        return sequence.counters(0)[self.name]


class Counters:
    """Where in the sequence a model is. A base whose attributes do not count as the model's own."""

    current_task = task_iteration = epoch_iteration = 0
    n_classes_current_task = n_past_classes = n_seen_classes = n_remaining_classes = -1
    cpt, n_tasks, N_TASKS = _OfSequence(), _OfSequence(), _OfSequence()
    num_classes, N_CLASSES = _OfSequence(), _OfSequence()


class Observer(nn.Module):
    """What is trained in place of a model that observes, which it calls and which steps itself.

    Args:
        model: The user's object, an `nn.Module` or not.
        spec: Of the data.
        dataset: The sequence of tasks, as the model may know it.
        transform: Between rows in [0, 1] and what the model meets.
        provided: What the model is given under these names, unless it has them: made when needed.

    Attributes:
        replay: Where batches come from, once there is one.

    Raises:
        ConfigError: If a method asks for what is not to be had.
    """

    antelope_traits = Traits(learns_by="observe")
    replay: Replay | None = None
    _warned: tuple[str, ...] = ()

    def __init__(
        self,
        model: Any,
        spec: Spec,
        dataset: ContinualDataset,
        transform: Transform,
        provided: Mapping[str, Callable[[], Any]],
    ):
        super().__init__()
        self.model = model
        self.name = type(model).__name__
        self.spec, self.dataset, self.transform = spec, dataset, transform
        self._asks = {
            method: _asked(model, method, OBSERVED if method == "observe" else TOLD)
            for method in ("observe", *HOOKS)
            if hook(model, method) is not None
        }
        self._by_place = {method: _placed(model, method) for method in self._asks}
        for name, make in provided.items():
            if getattr(model, name, None) is None:
                setattr(model, name, make())
        if not isinstance(model.net, nn.Module):
            raise ConfigError(f"{self.name}.net is a {type(model.net).__name__}, not a module.")
        if not isinstance(model, nn.Module):
            # So that they are saved, counted, moved and put into evaluation mode.
            for name, part in vars(model).items():
                if isinstance(part, nn.Module):
                    # Its names are its own: a part may be called `model`, `transform` or `train`.
                    self.add_module(f"own_{name}" if hasattr(self, name) else name, part)
        # Its `net` predicts where the model has no forward, or one that does not work yet.
        own = getattr(type(model), "forward", None)
        self._net_predicts = own is None or own is nn.Module.forward
        task_told = not self._net_predicts and needs_task(model)
        self.antelope_traits = Traits(learns_by="observe", task_told=task_told)
        # Only for models of that base: others may use these names for anything.
        self._reopens = isinstance(model, Counters)
        names = [*dataset.counters(0), *(_ITERATIONS if self._reopens else ())]
        # What an earlier run counted for this very object is not the object's own doing.
        self._counted = getattr(model, _COUNTED, None) or tuple(
            name for name in names if not _sets(model, name)
        )
        setattr(model, _COUNTED, self._counted)
        self._count(0)
        self.started = False  # Whether anything was observed.
        self.under_way = (
            False  # In the middle of a task: some models cannot predict before its end.
        )
        self.epoch: int | None = None  # The one that is under way.
        self._iterations = [name for name in _ITERATIONS if name in self._counted]
        vars(model).update(dict.fromkeys(self._iterations, 0))
        self.scheduler: Any = None  # What `args.lr_scheduler` asks for.
        if self._reopens:
            self.scheduler = get_scheduler(model, model.args, reload_optim=False)

    @property
    def own(self) -> nn.Module:
        """The user's object if it is a module, else this one, which holds it as `model`."""
        return self.model if isinstance(self.model, nn.Module) else self

    def bind(self, replay: Replay) -> None:
        """Learn from this replay."""
        self.replay = self.dataset.replay = replay

    def parts_referred_to(self) -> dict[str, Any]:
        """Parts of the run that the model may refer to; they are not saved with the model."""
        return self.dataset.parts_referred_to()

    def take_as_learnt(self) -> None:
        """Set the state after the last task, for a loaded model."""
        last = self.dataset.N_TASKS - 1
        self.dataset.c_task, self.started = last, True
        self._count(last)

    def forward(self, obs: Tensor, task: int | None = None) -> Tensor:
        """The model's `forward`, or its network's: logits `[B, n]`.

        Args:
            task: The rows' task, for a model that asks for it, at most the current one. None: each task's
                outputs come from that task.
        """
        if self.antelope_traits.task_told:
            output = self._forward_told(obs, task)
        else:
            output = self.model.net(obs) if self._net_predicts else self._own_forward(obs)
        if self.started:
            output = fitted(output, self.spec.action.n)
        return self.dataset.outputs(output)

    def _forward_told(self, obs: Tensor, task: int | None) -> Tensor:
        last = max(self.dataset.c_task, 0)
        if task is not None:
            return self._own_forward(obs, min(task, last))
        outputs = [self._own_forward(obs, each) for each in range(last + 1)]
        offsets = [self.dataset.get_offsets(each) for each in range(last + 1)]
        return put_together(outputs, [torch.arange(*pair) for pair in offsets])

    def _own_forward(self, obs: Tensor, *task: int) -> Tensor:
        """The outputs of a model's own `forward`, which may need to have learnt something first.

        Mammoth calls it after each task alone: iCaRL's means are those of rows kept in `end_task`.
        """
        forward = self.model if isinstance(self.model, nn.Module) else self.model.forward
        if self.started and not self.under_way:
            return forward(obs, *task)
        try:
            return forward(obs, *task)
        except Exception as error:
            when = "in the midst of a task" if self.started else "before anything was observed"
            if when not in self._warned:
                warnings.warn(
                    f"{self.name}.forward raised {type(error).__name__} ({error}) {when}: until "
                    f"{'its end' if self.started else 'then'} its `net` stands in for it.",
                    stacklevel=2,
                )
                self._warned = (*self._warned, when)
            return self.model.net(obs)

    def learn(self, replay: Replay, log: Log) -> None:
        """Let the model observe the next batch; what it returns is logged as its loss."""
        batch = next(replay)
        epoch = replay.epoch
        if self.epoch is None:
            self.epoch = epoch
            self._tell("begin_epoch")
        self.started = True
        given: dict[str, Any] = {}
        for name in self._asks["observe"]:
            if name == "inputs":
                given[name] = batch.obs
            elif name == "labels":
                given[name] = self.dataset.labels(batch.label)
            elif name == "not_aug_inputs":
                raw = batch.raw if "raw" in batch else batch.obs
                given[name] = self.transform.undone(raw)
            elif name == "epoch":
                given[name] = epoch
            elif name == "task":
                given[name] = replay.task
            elif name == "indexes":
                given[name] = batch.index
            elif name in batch:  # A field that the model added to the task's rows.
                given[name] = batch[name]
        by_place = [given.pop(name) for name in self._by_place["observe"]]
        self._record(self.model.observe(*by_place, **given), log)
        self._count_iteration()
        # Where no border is told, the end of a task's rows is none either.
        if replay.passes > epoch and replay.borders:
            self._end_epoch()

    def _record(self, loss: Any, log: Log) -> None:
        values = loss if isinstance(loss, Mapping) else {"loss": loss}
        for name, value in values.items():
            if isinstance(value, (int, float)):
                log.record(name, float(value))
            elif isinstance(value, Tensor):
                log[name] = value
            elif value is not None:
                raise ConfigError(
                    f"{self.name}.observe returned a {type(value).__name__} ({value!r:.40}). Return "
                    "the loss as a float, or a dict of such values."
                )

    def begin_task(self, task: int) -> None:
        """Count, and tell the model."""
        self.dataset.c_task = task
        self.under_way = True
        self._count(task)
        vars(self.model).update(dict.fromkeys(self._iterations, 0))
        self.model.net.train()  # A model may have left it in evaluation mode.
        if self._reopens and getattr(self.model, "custom_scheduler", None) is None:
            # As in Mammoth: otherwise the previous task's momentum would carry over. Some set their own and
            # return None.
            self.model.opt = self.model.get_optimizer() or self.model.opt
        self._tell("begin_task")
        if self._reopens:
            self.scheduler = get_scheduler(self.model, self.model.args)
        self._replace_rows()

    def _replace_rows(self) -> None:
        """Learn from the rows with which the model replaced the task's."""
        rows, replay = self.dataset.rows_read, self.replay
        if rows is None or replay is None or not rows.changed:
            return
        assert isinstance(replay.storage, Table)
        replay.replace(rows.table().to(replay.storage.device))
        takes = inspect.signature(self.model.observe).parameters.values()
        named = {p.name for p in takes}
        if any(p.kind is p.VAR_KEYWORD for p in takes):
            named.update(rows.extra_return_fields)
        asked = self._asks["observe"]
        extra = [name for name in rows.extra_return_fields if name in named and name not in asked]
        self._asks["observe"] = (*asked, *extra)

    def end_task(self, replay: Replay) -> None:
        if self.epoch is not None:
            self._end_epoch()
        self._tell("end_task")
        self.under_way = False
        if (end_eval := hook(self.model, "end_eval")) is not None and self._reopens:
            end_eval(self.dataset, self.dataset.evaluate(self.model, self.dataset))
        if self.dataset.when_ended is not None:
            self.dataset.when_ended(self.model, self.dataset.c_task)
        if "current_task" in self._counted:
            self.model.current_task = self.dataset.c_task + 1

    def _count_iteration(self) -> None:
        held = vars(self.model)  # torch's own __setattr__ takes microseconds.
        for name in self._iterations:
            held[name] += 1
        if self._reopens:
            self._step_scheduler("iter")

    def _step_scheduler(self, after: str) -> None:
        """Step the model's or the run's scheduler, if it is due after an `iter` or `epoch`."""
        if getattr(self.model.args, "scheduler_mode", "epoch") != after:
            return
        scheduler = getattr(self.model, "custom_scheduler", None) or self.scheduler
        if scheduler is not None:
            scheduler.step()

    def _end_epoch(self) -> None:
        if self._reopens:
            self._step_scheduler("epoch")
        self._tell("end_epoch")
        self.epoch = None
        if "epoch_iteration" in self._iterations:
            vars(self.model)["epoch_iteration"] = 0

    def _tell(self, hook: str) -> None:
        if hook not in self._asks:
            return
        told = {
            "dataset": self.dataset,
            "epoch": self.epoch,
            "task": self.dataset.c_task,
            "replay": self.replay,
        }
        by_place = self._by_place[hook]
        named = {name: told[name] for name in self._asks[hook] if name not in by_place}
        getattr(self.model, hook)(*(told[name] for name in by_place), **named)

    def _count(self, task: int) -> None:
        for name, value in self.dataset.counters(task).items():
            if name in self._counted:
                setattr(self.model, name, value)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the network, which the model calls itself."""
        self.model.net.compile(*args, **kwargs)


def build_observer(
    target: Any,
    given: Mapping[str, Any],
    plan: Plan,
    world: Any,
    device: torch.device,
    *,
    transforms: tuple[Any, Any],
    epochs: int | None,
    network: Callable[[Any, dict[str, Any]], Any],
) -> Observer:
    """A model that observes, made if `target` is its class, and given what it lacks.

    Args:
        given: Sub-keys of the model.
        transforms: How batches are made to learn from, and to evaluate with.
        epochs: Per task, None where it is a number of steps.
        network: Makes a network that was named, with its arguments.

    Raises:
        ConfigError: If it does not fit the run, or an option is wrong.
    """
    name = getattr(target, "__name__", type(target).__name__)
    options = _checked_options(name, target, given, plan, world)
    dataset, transform = _sequence(target, plan, world, device, transforms)
    use_device(device)
    usual, decided = run_arguments(plan, dataset, epochs=epochs, device=device)
    usual = {**GENERAL, "model": getattr(target, "NAME", name), **usual, **MORE.get()}
    if decided["n_epochs"] is None and usual.get("n_epochs") is not None:
        del decided["n_epochs"]
    declared = {k: v for k, v in options.defaults.items() if v is not None or k not in usual}
    args = Arguments(**{**usual, **declared, **decided, **options.values})

    def new_backbone() -> nn.Module:
        return _backbone(options.constructor.get("backbone"), world.spec, network).to(device)

    backbone = cache(new_backbone)  # Made when it is asked for: the model may have its own.
    args.sequence, args.make_backbone = dataset, new_backbone
    dataset.args = args

    table = inferred(world.spec, device=device)
    table |= {"backbone": None, "loss": dataset.get_loss(), "args": args, "transform": transform}
    table["dataset"] = dataset
    model = target
    if makes_objects(target):
        model = _construct(target, options, table, backbone)
        if not MORE.get():  # `load_runner` takes over what a model sets itself, as Mammoth does.
            _keeps(name, args, {"n_epochs": epochs, "batch_size": plan.batch_size})
    dataset.args = getattr(model, "args", args)
    instance = None if plan.optim.constructs else plan.optim.target

    def opt() -> Any:
        parameters = (model if isinstance(model, nn.Module) else model.net).parameters()
        return instance or make_optimizer(args, [p for p in parameters if p.requires_grad])

    provided: dict[str, Callable[[], Any]] = {"net": backbone}
    for key in ("args", "loss", "transform", "dataset", "device"):
        provided[key] = partial(table.get, key)
    reads = hasattr(model, "args") or getattr(model, "opt", None) is None
    # A class of its own, so that messages name the user's.
    kind = type(type(model).__name__, (Observer,), {})
    observer: Observer = kind(model, world.spec, dataset, transform, {**provided, "opt": opt})
    if reads:
        settings_read = ("optim", "lr", "weight_decay")
        observer.antelope_traits = replace(observer.antelope_traits, reads=settings_read)
    return observer


def _checked_options(
    name: str, target: Any, given: Mapping[str, Any], plan: Plan, world: Any
) -> Options:
    """The options of a model that fits the run.

    Raises:
        ConfigError: If it does not, or for options; all of it at once.
    """
    if not world.labelled:
        raise ConfigError(
            f"{name}.observe learns from data sets, and this run from {world.name}. In environments "
            "write learn(self, replay, log)."
        )
    options = Options(target if makes_objects(target) else object, given)
    mistakes = [*_unfit(name, target, world, online=plan.online), *_wrapped(name, target)]
    if mistakes := [*mistakes, *options.mistakes]:
        raise ConfigError("\n".join(mistakes))
    return options


def _sequence(
    target: Any, plan: Plan, world: Any, device: torch.device, transforms: tuple[Any, Any]
) -> tuple[ContinualDataset, Transform]:
    """The run's sequence of tasks, one that the model or the data has already if there is one."""
    if isinstance(world, SequenceWorld):
        dataset: Any = world.sequence
        transform: Transform = OwnTransform(world.spec, world.rows, device)
    else:
        dataset = getattr(target, "dataset", None)
        transform = Transform(world.spec, transforms[1], transforms[0].augment, device)
    if not isinstance(dataset, ContinualDataset):
        return ContinualDataset(world, transform, online=plan.online), transform
    dataset.describe(world, transform, online=plan.online)
    return dataset, transform


def _construct(
    target: Any, options: Options, table: dict[str, Any], backbone: Callable[[], nn.Module]
) -> Any:
    """A model of a class, from its options and from what the run can give it (`table`)."""
    takes = constructor_names(target)
    own = {key: value for key, value in options.constructor.items() if key in takes}
    if "backbone" in takes:
        own["backbone"] = backbone()
    # What a base takes by way of `**kwargs`, of which the signature tells nothing.
    direct = constructor_names(target, passed_on=False)
    passed = {key: table[key] for key in takes if key in table and key not in direct}
    return construct(target, passed | own, table, setting="model")


def _backbone(value: Any, spec: Spec, network: Callable[[Any, dict[str, Any]], Any]) -> nn.Module:
    if value is None:
        return default_backbone(spec)
    arguments: dict[str, Any] = {}
    if isinstance(value, Mapping):
        arguments = {k: v for k, v in value.items() if k != "_target_"}
        value = value.get("_target_")
    if isinstance(value, str):
        value = resolve(value, "model")
    made = value if isinstance(value, nn.Module) else network(value, arguments)
    if not isinstance(made, nn.Module):
        raise ConfigError(f"model.backbone gave a {type(made).__name__}, not a torch.nn.Module.")
    return made


def needs_task(model: Any) -> bool:
    """Whether `forward` receives the rows' task: it asks for it, or the model only supports task-IL."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.default is p.empty for p in placed[1:2]):
        return True
    fits = getattr(model, "COMPATIBILITY", None) or ("class-il",)
    return len(placed) > 1 and not {"class-il", "domain-il", "general-continual"} & set(fits)


def _keeps(name: str, args: Arguments, decided: Mapping[str, Any]) -> None:
    for key, value in decided.items():
        if (own := getattr(args, key)) != value:
            word = "epochs" if key == "n_epochs" else key
            raise ConfigError(f"{name} sets {key}={own} itself. Pass {word}={own}.")


_SCENARIOS = {
    "class-il": "scenario=class",
    "task-il": "scenario=task",
    "domain-il": "scenario=domain",
    "general-continual": "online=true",
}


def _unfit(name: str, target: Any, world: Any, *, online: bool) -> Iterable[str]:
    """What a model's COMPATIBILITY says against this run."""
    fits = getattr(target, "COMPATIBILITY", None) or ()
    fits = [fits] if isinstance(fits, str) else list(fits)
    here = "general-continual" if online else f"{world.scenario}-il"
    if not fits or here in fits or (len(world.tasks) == 1 and not online):
        return
    there = [_SCENARIOS[fit] for fit in fits if fit in _SCENARIOS]
    right = f"Set {' or '.join(there)}, or extend it." if there else "Extend it."
    yield f"{name} is for {', '.join(fits)} (its COMPATIBILITY), and this run is {here}. {right}"


def _wrapped(name: str, target: Any) -> Iterable[str]:
    """Mammoth's wrappers of a model's methods, which are never called here."""
    for method in ("begin_task", "observe", "end_task", "begin_epoch", "end_epoch", "end_eval"):
        if hook(target, f"meta_{method}") is not None:
            yield f"{name}.meta_{method} is never called. Move its code into {method}."


def _asked(model: Any, method: str, there: tuple[str, ...]) -> tuple[str, ...]:
    """The names that a method has parameters for, of those that are to be had.

    Raises:
        ConfigError: If it cannot be called without another one.
    """
    parameters = inspect.signature(getattr(model, method)).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    wrong = [p.name for p in named if p.default is p.empty and p.name not in there]
    wrong += [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
    if wrong:
        quoted = " and ".join(f"`{name}`" for name in wrong)
        raise ConfigError(
            f"{type(model).__name__}.{method} asks for {quoted}, which Antelope does not provide. It can "
            f"ask for: {', '.join(there)}. Give {quoted} a default, or leave it out."
        )
    asked = {p.name for p in named} | set(_placed(model, method))
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        asked |= set(there[:4])  # What such a method is given everywhere.
    return tuple(name for name in there if name in asked)


def _placed(model: Any, method: str) -> tuple[str, ...]:
    """What a method takes by place: what Mammoth passes so, if it has `*args` and names none of it."""
    parameters, places = inspect.signature(getattr(model, method)).parameters, _BY_PLACE[method]
    any_place = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
    return places if any_place and not set(places) & parameters.keys() else ()


def _sets(model: Any, name: str) -> bool:
    """Whether a model has an attribute of its own doing."""
    if name in getattr(model, "__dict__", {}):
        return True
    return any(name in vars(kind) for kind in type(model).__mro__ if kind is not Counters)
