"""Turn names into classes, functions and objects, in the order of the contract."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ...replay.errors import ConfigError
from ...replay.suggestions import did_you_mean, nearest
from . import environment_names, metric_names
from .foreign import answer
from .import_path import is_data
from .imports import attribute_of, class_here, classes_here, dotted, import_file, member
from .object_names import name_of

T = TypeVar("T")
_REGISTERED: dict[str, Any] = {}


def register(name: str) -> Callable[[T], T]:
    """Make a class known by a name of your own: `@register("my-net")`, then `model=my-net`.

    Raises:
        ConfigError: If something else already has the name.
    """

    def keep(item: T) -> T:
        taken = _REGISTERED.get(name)
        if taken is not None and name_of(taken) != name_of(item):
            raise ConfigError(f"The name `{name}` is already registered, by {name_of(taken)}.")
        _REGISTERED[name] = item
        return item

    return keep


def registered(name: str) -> Any:
    """What `@register(name)` has named in this process, or None."""
    return _REGISTERED.get(name)


@dataclass(frozen=True)
class Kind:
    """Where names of one kind are looked up, after the user's own.

    Attributes:
        noun: What messages call it.
        builtin: Our package whose `NAMES` lists them; None: no package does.
        libraries: The field's own modules, in order.
        accept: Which of a library's attributes are of this kind.
    """

    noun: str
    builtin: str | None
    libraries: tuple[str, ...]
    accept: Callable[[str, object], bool]


def _is_class(_: str, item: object) -> bool:
    return inspect.isclass(item)


def _is_public_class(name: str, item: object) -> bool:
    return inspect.isclass(item) and not name.startswith("_")


def _is_dataset(name: str, item: object) -> bool:
    # Base classes, and folders of images: those are named by their path.
    return _is_class(name, item) and name not in ("VisionDataset", "DatasetFolder", "ImageFolder")


def _is_network(name: str, item: object) -> bool:
    return inspect.isfunction(item) and name.islower() and not name.startswith(("get_", "list_"))


def _is_optimizer(name: str, item: object) -> bool:
    return _is_public_class(name, item) and name != "Optimizer"


def _is_loss(name: str, item: object) -> bool:
    if inspect.isclass(item):
        return name.endswith("Loss") and not name.startswith("_")
    return inspect.isroutine(item) and name.endswith(("_loss", "cross_entropy", "_with_logits"))


def _is_scheduler(name: str, item: object) -> bool:
    return _is_public_class(name, item) and hasattr(item, "step") and name != "LRScheduler"


KINDS = {
    "model": Kind("model", "agents", ("torchvision.models",), _is_network),
    "encoder": Kind("encoder", "agents", ("torchvision.models",), _is_network),
    "policy": Kind("policy", "agents", (), _is_network),
    "critic": Kind("critic", "agents", (), _is_network),
    "generator": Kind("generator", "agents", (), _is_network),
    "discriminator": Kind("discriminator", "agents", (), _is_network),
    "dataset": Kind("data set", "envs", ("torchvision.datasets",), _is_dataset),
    "env": Kind("environment", "envs", (), _is_class),
    "env_wrappers": Kind("wrapper", None, ("gymnasium.wrappers",), _is_public_class),
    "optim": Kind("optimiser", None, ("torch.optim",), _is_optimizer),
    "loss": Kind("loss", None, ("torch.nn", "torch.nn.functional"), _is_loss),
    "scheduler": Kind("scheduler", None, ("torch.optim.lr_scheduler",), _is_scheduler),
    "test_dataset": Kind("data set", "envs", ("torchvision.datasets",), _is_dataset),
    "strategy": Kind("strategy", "agents.continual", (), _is_class),
    "metrics": Kind("metric", None, (), _is_public_class),
    "callbacks": Kind("callback", None, (), _is_public_class),
    "aug": Kind("augmentation", "envs", ("torchvision.transforms.v2",), _is_public_class),
}


def resolve(name: str, kind: str) -> Any:
    """The class, function or object that a name means.

    Looked up in the order of the contract: registered, built in, `file.py:Name`, a class in a file
    of the working directory, a dotted path, the field's libraries.

    Raises:
        ConfigError: If there is none (with the nearest names), or two files define it.
    """
    place = KINDS[kind]
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name in (builtin := _builtin(kind)):
        package, attribute = builtin[name]
        return getattr(package, attribute)
    if ".py:" in name:
        path, _, attribute = name.rpartition(":")
        module = import_file(Path(path))
        if kind == "env" and not hasattr(module, attribute):  # An id that the file registers.
            make = environment_names.environment(attribute)
            return attribute_of(module, attribute, name) if make is None else make
        return attribute_of(module, attribute, name)
    if (found := class_here(name)) is not None:
        return found
    if "." in name and (found := dotted(name)) is not None:
        return found
    for library in place.libraries:
        try:
            item = member(library, name)
        except Exception as error:
            # Gymnasium imports some wrappers late, because of what they depend on.
            raise ConfigError(f"{library}.{name} cannot be imported: {error}") from error
        if item is not None and place.accept(name, item):
            return item
    if kind in ("model", "encoder") and (network := timm_network(name)) is not None:
        return network
    if kind == "env" and (make := environment_names.environment(name)) is not None:
        return make
    if kind == "metrics" and (metric := metric_names.metric(name)) is not None:
        return metric
    raise ConfigError(missing(name, kind))


def builtin_names(kind: str) -> list[str]:
    """Our own names of one kind, without importing them."""
    return list(_builtin(kind))


def _builtin(kind: str) -> dict[str, tuple[ModuleType, str]]:
    """Our own names of one kind, each with the package it is in and what it is called there."""
    folder = KINDS[kind].builtin
    if folder is None:
        return {}
    places = [(folder, kind.removeprefix("test_"))]
    if folder == "agents":
        places.append(("agents.blocks", "model"))  # Blocks are models, and parts of models.
    found: dict[str, tuple[ModuleType, str]] = {}
    for place, listed in places:
        package = importlib.import_module(f"antelope.{place}")
        names = package.NAMES.get(listed, ())
        for name in names:
            attribute = names[name] if isinstance(names, dict) else name
            found.setdefault(name, (package, attribute))
    return found


def library_names(kind: str) -> list[str]:
    """The names of one kind that the field's libraries hold."""
    place = KINDS[kind]
    found: dict[str, None] = {}
    for library in place.libraries:
        module = importlib.import_module(library)
        found.update((n, None) for n, item in vars(module).items() if place.accept(n, item))
    if kind == "env":
        import gymnasium

        found.update(dict.fromkeys(gymnasium.registry))
    return sorted(found, key=str.lower)


def timm_network(name: str) -> Any:
    """What makes one of timm's networks; None if timm is not installed or has none of this name."""
    if importlib.util.find_spec("timm") is None:
        return None
    import timm

    if not timm.is_model(name):
        return None
    network = functools.partial(timm.create_model, name)
    network.__name__ = name  # type: ignore[attr-defined]
    network.__module__ = "timm"
    return network


def describe_names(names: Iterable[str], width: int = 96) -> str:
    """Names in lines of at most `width` characters."""
    import textwrap

    wrapper = textwrap.TextWrapper(width, initial_indent="  ", subsequent_indent="  ")
    wrapper.break_on_hyphens = False  # Ids contain hyphens.
    return wrapper.fill(", ".join(names))


def missing(name: str, kind: str) -> str:
    """The message for an unknown name, with the nearest ones."""
    place = KINDS[kind]
    if kind.endswith("dataset") and Path(name).expanduser().is_file():
        return (
            f"{kind}={name} is a file. Give a folder of class folders of images (unpack an archive "
            "first), or arrays: ml(dataset=(inputs, targets))."
        )
    if (foreign := answer(f"{kind.removeprefix('test_')}={name}")) is not None:
        return f"No {place.noun} `{name}`: {foreign}"
    if kind.endswith("dataset") and ("/" in name or name.startswith(".")):
        return f"No {place.noun} `{name}`: there is no such folder (looked in {Path.cwd()})."
    called = kind == "env" and "(" in name  # gymnasium.make(...), say, as a word.
    if "." in name and not called and (module := dotted(name.rpartition(".")[0])) is not None:
        inside, _, attribute = name.rpartition(".")
        near = did_you_mean(attribute, dir(module))
        return f"No {place.noun} `{name}`: {inside} has no `{attribute}`.{near}"
    if kind == "env":
        return environment_names.miss(name, [*_REGISTERED, *builtin_names(kind), *classes_here()])
    if kind == "metrics":
        near = did_you_mean(name, [*_REGISTERED, *classes_here(), *metric_names.metric_names()])
        return (
            f"No metric `{name}`.{near} Names are those of torchmetrics, in any case; a metric of your own "
            "is file.py:Name, or in Python a function (output, label) -> number."
        )
    names = [*_REGISTERED, *builtin_names(kind), *classes_here(), *library_names(kind)]
    command = {
        "model": "ml models",
        "dataset": "ml datasets",
        "strategy": "ml strategies",
    }.get(kind)
    listed = f" `{command}` lists what can be named." if command else ""
    if not command and names and not nearest(name, names):
        listed = f" There are: {', '.join(names)}."
    looked = ", ".join((f"the .py files of {Path.cwd()}", *place.libraries))
    if is_data(Path.cwd()) and name in classes_here():
        return (
            f"No {place.noun} `{name}`. A run in {Path.cwd()} is read as data, so that its code is only "
            f"imported if you name the file: {kind}={classes_here()[name][0]}:{name}."
        )
    if kind in ("model", "encoder") and importlib.util.find_spec("timm") is None:
        looked += "; timm is not installed: pip install 'antelope-ml[timm]'"
    return f"No {place.noun} `{name}`.{did_you_mean(name, names)}{listed} Looked in {looked}."
