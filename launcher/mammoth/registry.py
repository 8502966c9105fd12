"""Models, data sets and networks by their Mammoth names."""

from __future__ import annotations

import inspect
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from ...replay import ConfigError
from ...replay.suggestions import did_you_mean
from ..settings.object_names import name_of
from .arguments import IDLE, REQUIRED, SERVED
from .backbones import mnistmlp, reduced_resnet18, resnet18, resnet34
from .model import Sgd
from .options import declarations, defaults
from .progressive import mnistmlp_pnn, resnet18_pnn
from .provided import Arguments

T = TypeVar("T")

# Mammoth's augmentation of both CIFARs; its digits are neither augmented nor standardised.
_CROP_AND_FLIP = [{"_target_": "RandomCrop", "padding": 4}, "RandomHorizontalFlip"]
DATASETS: dict[str, dict[str, Any]] = {
    "seq-mnist": {"dataset": "MNIST", "tasks": 5, "standardize": False},
    "seq-cifar10": {"dataset": "CIFAR10", "tasks": 5, "aug": _CROP_AND_FLIP},
    "seq-cifar100": {"dataset": "CIFAR100", "tasks": 10, "aug": _CROP_AND_FLIP},
    "perm-mnist": {"dataset": "PermutedMNIST", "tasks": 20, "standardize": False},
    "rot-mnist": {"dataset": "RotatedMNIST", "tasks": 20, "standardize": False},
    "seq-digits": {"dataset": "Digits", "tasks": 5, "standardize": False},
}
# Mammoth's own defaults for these data sets, for arguments that are not given.
_CIFAR = {"n_epochs": 50, "batch_size": 32}
USUAL: dict[str, dict[str, Any]] = {
    "seq-mnist": {"n_epochs": 1, "batch_size": 64},
    "perm-mnist": {"n_epochs": 1, "batch_size": 128},
    "rot-mnist": {"n_epochs": 1, "batch_size": 128},
    "seq-cifar10": _CIFAR,
    "seq-cifar100": {**_CIFAR, "lr_scheduler": "multisteplr", "lr_milestones": [35, 45]},
}
CLASSES = {"CIFAR100": 100}  # Number of classes of a data set that is split; ten for all others.
# The tables belong to the process, as in Mammoth: importing a file registers what it defines.
MODELS: dict[str, Any] = {"sgd": Sgd}
SEQUENCES: dict[str, Any] = {}  # Users' classes, or functions that construct one.

# Networks by Mammoth's names, which users' files pass to `get_backbone`.
BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "mnistmlp": mnistmlp,
    "resnet18": resnet18,
    "reduced-resnet18": reduced_resnet18,
    "resnet34": resnet34,
    "mnistmlp-pnn": mnistmlp_pnn,
    "resnet18-pnn": resnet18_pnn,
}


def register_model(name: str) -> Callable[[T], T]:
    """Register a class for `load_runner` under a name; `_` and `-` are equivalent.

    Raises:
        ConfigError: If the name is taken by another class.
    """
    return _register(name, MODELS)


def register_dataset(name: str) -> Callable[[T], T]:
    """Register a `ContinualDataset`, or a function of `args` that returns one, for `load_runner`.

    Raises:
        ConfigError: If the name is taken by another class.
    """
    return _register(name, SEQUENCES)


def register_backbone(name: str) -> Callable[[T], T]:
    """Register a network, or a function that returns one, as a `backbone`.

    It receives the arguments that it names: those that the run knows, such as `num_classes`, and those passed
    to `load_runner`.

    Raises:
        ConfigError: If the name is taken by another one.
    """
    return _register(name, BACKBONES)


def get_model_names(names_only: bool = False) -> Any:
    """Registered models: `{name: {"class": ..., "parsable_args": ...}}`, or a list of the names."""
    return _named(MODELS, names_only)


def get_dataset_names(names_only: bool = False) -> Any:
    """Registered sequences, as `get_model_names` lists models; a built-in one has settings as its `class`."""
    return _named({**DATASETS, **SEQUENCES}, names_only)


def get_backbone_names(names_only: bool = False) -> Any:
    """Registered networks, as `get_model_names` lists models."""
    return _named(BACKBONES, names_only)


def key_of(name: str) -> str:
    """A name as the tables hold it: `seq-mnist` for `Seq_MNIST`."""
    return name.replace("_", "-").lower()


def _register(name: str, table: dict[str, Any]) -> Callable[[T], T]:
    key = key_of(name)

    def keep(item: T) -> T:
        # The same class again is no clash: a notebook's cell runs twice, and a file may be reloaded.
        taken = table.get(key)
        if taken is not None and name_of(taken) != name_of(item):
            raise ConfigError(f"`{name}` is already registered, by {name_of(taken)}.")
        table[key] = item
        # `args.model` and the names of checkpoints come from NAME, which a class need not set itself.
        if inspect.isclass(item) and not hasattr(item, "NAME"):
            item.NAME = name  # type: ignore[attr-defined]
        return item

    return keep


def _named(table: dict[str, Any], names_only: bool) -> Any:
    if names_only:
        return list(table)
    return {
        name: {"class": item, "parsable_args": _arguments(item) if callable(item) else {}}
        for name, item in table.items()
    }


def _arguments(item: Callable[..., object]) -> dict[str, dict[str, Any]]:
    """The arguments of a class or a function: whether they are required, their types and defaults."""
    found = {}
    for p in inspect.signature(item).parameters.values():
        if p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) or p.name.startswith("_"):
            continue
        # Without an annotation the default tells the type; without either it is text, as on a command line.
        kind: type = str if p.default in (p.empty, None) else type(p.default)
        found[p.name] = {
            "type": kind if p.annotation is p.empty else p.annotation,
            "required": p.default is p.empty and p.name != "num_classes",  # The run knows it.
        }
        if not found[p.name]["required"]:
            found[p.name]["default"] = None if p.default is p.empty else p.default
    return found


Listed = dict[str, dict[str, Any]]


def get_avail_args(
    dataset: str | None = None, model: str | None = None, args: Mapping[str, Any] | None = None
) -> tuple[Listed, Listed]:
    """The required and the optional arguments of `load_runner`: what they do, and their defaults.

    Args:
        dataset: A registered sequence, whose defaults are then listed.
        model: A registered model, whose options are then listed too.
        args: Has no effect: in Antelope no argument adds others.

    Raises:
        ConfigError: If one of them is not registered.
    """
    required: Listed = {name: {"description": text} for name, text in REQUIRED.items()}
    optional: Listed = {
        name: {"default": argument.default, "description": argument.help}
        for name, argument in SERVED.items()
    }
    idle = {"description": "has no effect here"}
    optional |= {name: {"default": value, **idle} for name, value in IDLE.items()}
    usual: dict[str, Any] = {}
    if dataset is not None:
        usual |= USUAL.get(_known("data set", dataset, {**DATASETS, **SEQUENCES}), {})
    if model is not None:
        target = MODELS[_known("model", model, MODELS)]
        for action in declarations(target):
            entry: dict[str, Any] = {"description": action.help}
            if action.required:
                required[action.dest] = entry
            else:
                optional[action.dest] = {"default": action.default, **entry}
        usual |= defaults(target)
    # A default of the model or the data set makes a required argument optional.
    for name, value in usual.items():
        known = {**optional, **required}.get(name, {"description": ""})
        required.pop(name, None)
        optional[name] = {**known, "default": value}
    return required, optional


def _known(kind: str, name: str, there: Mapping[str, Any]) -> str:
    if (key := key_of(name)) in there:
        return key
    near = did_you_mean(key, there)
    raise ConfigError(f"No {kind} `{name}` is registered.{near} There are: {', '.join(there)}.")


def get_backbone(args: Namespace) -> nn.Module:
    """A new network, as described by `args`.

    Args:
        args: `backbone`, a registered name, and the arguments of its network, such as `num_classes`.
            A run's own `args` are sufficient, whatever its network.

    Raises:
        ConfigError: If the name is unknown, or `args` lacks what it needs.
    """
    # A run's network may have been passed as a class or an object, which no registered name describes.
    if isinstance(args, Arguments) and args.make_backbone is not None:
        return args.make_backbone()
    return named_backbone(args.backbone, vars(args))


def named_backbone(name: str, values: dict[str, Any]) -> nn.Module:
    """A new network registered under this name; `_` and `-` are equivalent.

    Args:
        name: A registered name.
        values: The network's arguments by name; may hold others, which are ignored.

    Raises:
        ConfigError: If the name is unknown, or an argument without a default is missing.
    """
    key = key_of(name)
    if key not in BACKBONES:
        near = did_you_mean(key, BACKBONES)
        raise ConfigError(
            f"No backbone `{name}` is registered.{near} There are: {', '.join(BACKBONES)}."
        )
    parameters = inspect.signature(BACKBONES[key]).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if missing := [p.name for p in named if p.default is p.empty and p.name not in values]:
        raise ConfigError(f"Backbone {name} needs {', '.join(missing)}, missing from args.")
    return BACKBONES[key](**{p.name: values[p.name] for p in named if p.name in values})
