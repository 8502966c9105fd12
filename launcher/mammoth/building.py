"""Constructs the `Observer` of a user's model: checks that it fits the run, and provides what it lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ...agents.traits import hook
from ...envs.table_world import TableWorld
from ...envs.transform import Transform as ToInputs
from ...replay import ConfigError, Space, Spec
from ..assembly.infer import inferred
from ..settings.construct import construct
from ..settings.names import resolve
from ..settings.object_names import makes_objects
from ..settings.plan import Plan
from .arguments import GENERAL
from .backbones import default_backbone
from .methods import ObservingModel, class_name, compatibility
from .observer import Observer
from .options import MORE, Options, constructor_names
from .provided import Arguments, make_optimizer, run_arguments, use_device
from .tasks.sequence import ContinualDataset
from .tasks.transform import OwnTransform, Transform
from .tasks.world import SequenceWorld

# Makes a network from what `model.backbone` names, and its arguments.
MakeNetwork = Callable[[Any, dict[str, Any]], Any]


def build_observer(
    target: object,
    given: Mapping[str, object],
    plan: Plan,
    world: TableWorld,
    device: torch.device,
    *,
    transforms: tuple[ToInputs, ToInputs],
    epochs: int | None,
    network: MakeNetwork,
) -> Observer:
    """The observer of a model, which is constructed if `target` is its class.

    Args:
        target: The class or the object.
        given: Sub-keys of the model: its options, and arguments of its constructor.
        world: The run's data; an environment is refused.
        transforms: What turns rows into batches, to learn from and to evaluate with.
        epochs: Passes over each task; None where `train_steps` bounds it.
        network: Constructs a `backbone` that was named.

    Raises:
        ConfigError: If the model does not fit the run, or an option is wrong.
    """
    options = _checked_options(target, given, plan, world)
    dataset, transform = _sequence(target, plan, world, device, transforms)
    use_device(device)
    args = _arguments(target, options, plan, dataset, epochs=epochs, device=device)

    def new_backbone() -> nn.Module:
        return _backbone(options.constructor.get("backbone"), world.spec, network).to(device)

    # Made when first needed, and once: a model with its own network should not draw weights for another.
    backbone = cache(new_backbone)
    args.sequence, args.make_backbone = dataset, new_backbone
    dataset.args = args
    table = inferred(world.spec, device=device)
    table |= {"backbone": None, "loss": dataset.get_loss(), "args": args, "transform": transform}
    table["dataset"] = dataset
    model: Any = target
    if makes_objects(target):
        model = _construct(model, options, table, backbone)
        if not MORE.get():  # `load_runner` lets a model set these itself, as Mammoth does.
            _refuse_changes(model, args, {"n_epochs": epochs, "batch_size": plan.batch_size})
    dataset.args = model.args if hasattr(model, "args") else args
    # What the run's optimiser settings reach: a model that brings its optimiser ignores them, which is warned
    # about.
    own_optimizer = hasattr(model, "opt") and model.opt is not None
    reads = ("optim", "lr", "weight_decay") if hasattr(model, "args") or not own_optimizer else ()
    provided: dict[str, Callable[[], Any]] = {"net": backbone}
    for key in ("args", "loss", "transform", "dataset", "device"):
        provided[key] = partial(table.get, key)
    provided["opt"] = partial(_optimizer, model, args, plan)
    # A subclass with the user's name, since messages and `repr` name the class of a module.
    kind: type[Observer] = type(type(model).__name__, (Observer,), {})
    observer = kind(model, world.spec, dataset, transform, provided)
    observer.antelope_traits = replace(observer.antelope_traits, reads=reads)
    return observer


def _checked_options(
    target: object, given: Mapping[str, object], plan: Plan, world: TableWorld
) -> Options:
    """The options of a model that fits the run.

    Raises:
        ConfigError: With everything that is wrong with the model and its options.
    """
    name = class_name(target)
    if not isinstance(world, TableWorld):
        raise ConfigError(
            f"{name}.observe needs a data set, but this run learns from {world.name}. For an environment, "
            "write learn(self, replay, log)."
        )
    if not isinstance(world.spec.obs, Space):
        raise ConfigError(
            f"{name}.observe receives one tensor of inputs, and those of {world.name} are a dict of "
            f"{', '.join(world.spec.obs)}. Write learn(self, replay, log): next(replay).obs is a dict."
        )
    options = Options(target if makes_objects(target) else object, given)
    mistakes = [*_unfit(target, world, online=plan.online), *_wrapped(target)]
    if mistakes := [*mistakes, *options.mistakes]:
        raise ConfigError("\n".join(mistakes))
    return options


def _sequence(
    target: object,
    plan: Plan,
    world: TableWorld,
    device: torch.device,
    transforms: tuple[ToInputs, ToInputs],
) -> tuple[ContinualDataset, Transform]:
    """The run's sequence of tasks: the data's own or the model's own, if either has one."""
    dataset: ContinualDataset | None = None
    if isinstance(world, SequenceWorld):
        dataset = world.sequence
        transform: Transform = OwnTransform(world.spec, world.rows, device)
    else:
        if hasattr(target, "dataset") and isinstance(target.dataset, ContinualDataset):
            dataset = target.dataset  # The object has been trained before.
        transform = Transform(world.spec, transforms[1], transforms[0].augment, device)
    if dataset is None:
        return ContinualDataset(world, transform, online=plan.online), transform
    dataset.describe(world, transform, online=plan.online)
    return dataset, transform


def _arguments(
    target: object,
    options: Options,
    plan: Plan,
    dataset: ContinualDataset,
    *,
    epochs: int | None,
    device: torch.device,
) -> Arguments:
    """The `args` of a model: defaults, overridden by the run's decisions, then by the model's options."""
    usual, decided = run_arguments(plan, dataset, epochs=epochs, device=device)
    name = target.NAME if hasattr(target, "NAME") else class_name(target)
    usual = {**GENERAL, "model": name, **usual, **MORE.get()}
    # Steps bound the task, but `load_runner` was also told of epochs, which models read all the same.
    if decided["n_epochs"] is None and usual.get("n_epochs") is not None:
        del decided["n_epochs"]
    # `add_argument("--x")` has the default None, which must not hide Mammoth's own default of `x`.
    declared = {k: v for k, v in options.defaults.items() if v is not None or k not in usual}
    return Arguments(**{**usual, **declared, **decided, **options.values})


def _construct(
    target: type, options: Options, table: dict[str, Any], backbone: Callable[[], nn.Module]
) -> Any:
    """An object of a model's class, from its options and from what the run provides (`table`)."""
    names = constructor_names(target)
    own = {key: value for key, value in options.constructor.items() if key in names}
    if "backbone" in names:
        own["backbone"] = backbone()
    # `construct` reads the class's own signature only, not what a base accepts through `**kwargs`.
    direct = constructor_names(target, passed_on=False)
    passed = {key: table[key] for key in names if key in table and key not in direct}
    return construct(target, passed | own, table, setting="model")


def _optimizer(model: ObservingModel, args: Arguments, plan: Plan) -> Optimizer:
    """The optimiser of a model that has none: `optim=`'s object, or what `args` describes."""
    if not plan.optim.constructs:
        given: Optimizer = plan.optim.target
        return given
    # A model may have parameters outside its network, such as a projection head.
    module = model if isinstance(model, nn.Module) else model.net
    return make_optimizer(args, [p for p in module.parameters() if p.requires_grad])


def _backbone(value: object, spec: Spec, network: MakeNetwork) -> nn.Module:
    """The network that `model.backbone` names, or the default one for this data."""
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
        raise ConfigError(
            f"model.backbone returned a {type(made).__name__}, not a torch.nn.Module."
        )
    return made


def _refuse_changes(model: object, args: Arguments, decided: Mapping[str, int | None]) -> None:
    """Refuse a model whose constructor changed what the run has decided."""
    for key, value in decided.items():
        if (own := vars(args)[key]) != value:
            word = "epochs" if key == "n_epochs" else key
            raise ConfigError(f"{type(model).__name__} sets {key}={own} itself. Pass {word}={own}.")


_SCENARIOS = {
    "class-il": "scenario=class",
    "task-il": "scenario=task",
    "domain-il": "scenario=domain",
    "general-continual": "online=true",
}


def _unfit(target: object, world: TableWorld, *, online: bool) -> Iterable[str]:
    """A message if the model's COMPATIBILITY excludes this run."""
    fits = compatibility(target)
    here = "general-continual" if online else f"{world.scenario}-il"
    # With a single task, class-IL and task-IL are the same.
    if not fits or here in fits or (len(world.tasks) == 1 and not online):
        return
    there = [_SCENARIOS[fit] for fit in fits if fit in _SCENARIOS]
    right = f"Set {' or '.join(there)}, or extend it." if there else "Extend it."
    yield (
        f"{class_name(target)} is for {', '.join(fits)} (its COMPATIBILITY), but this run is {here}. "
        f"{right}"
    )


def _wrapped(target: object) -> Iterable[str]:
    """A message for each of Mammoth's wrappers `meta_...` of a method: Antelope calls the method itself."""
    # Silence would drop what a wrapper does: nothing else in the run would tell.
    for method in ("begin_task", "observe", "end_task", "begin_epoch", "end_epoch", "end_eval"):
        if hook(target, f"meta_{method}") is not None:
            yield f"{class_name(target)}.meta_{method} is never called. Move its code into {method}."
