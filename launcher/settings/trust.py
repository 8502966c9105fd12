"""The allow-list: which names somebody else's file may use, and what a name means if it is on the list.

A run folder, a checkpoint and a preset are data. What they name is only looked up if it is Antelope's own,
torch's or torchvision's, or an environment of gymnasium or an installed package: anything else would run
code that nobody here named. Python's text (`ml(**settings)`) may also name files of the working directory.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from ...replay import ConfigError
from .environment_names import environment, import_module, split
from .environment_packages import find_top, installed
from .import_path import file_of
from .imports import classes_here, member
from .names import KINDS, builtin_names, registered, resolve, timm_network

_MODULES = ("antelope.agents", "torch.nn", "torchvision.models")
# Where names of these settings may lead; those of modules, to `_MODULES`.
_ROOTS = {
    "optim": ("torch.optim",),
    "scheduler": ("torch.optim",),
    "loss": ("torch.nn",),
    "aug": ("torchvision.transforms", "antelope.envs.augment"),
}
_IN_ARGUMENTS = (*_MODULES, "torch.optim")
# Of a server or a device: no ids of environments.
_ADDRESSES = re.compile(r"https?://|(cuda|cpu|mps|xpu):\d+$")
_TIMM_CODE = ("pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
# Arguments of a data set on the hub.
_OF_HUB = ("revision", "name", "subset")
# These unpickle whatever file lies in their folder; the others check its hash, or read no pickles.
_UNPICKLE = ("LSUN", "LSUNClass")
# These write where an argument says, or import what one names.
_WRAPPERS_THAT_REACH_OUT = ("RecordVideo", "ArrayConversion")
# Of torchmetrics; its other packages fetch networks.
_METRICS = ("torchmetrics.classification", "torchmetrics.regression", "torchmetrics.aggregation")


def known_object(name: str, kind: str) -> Any:
    """What a name on the allow-list means; None for any other name, which is not imported.

    Args:
        kind: The setting that it is a value of: `model`, `policy`, `env`, ...
    """
    if (found := registered(name)) is not None:  # By code that has run already.
        return found
    if name in builtin_names(kind):
        return resolve(name, kind)
    if (look_up := _OWN_RULES.get(kind)) is not None:
        return look_up(name)
    if (found := _within(name, _ROOTS.get(kind, _MODULES), kind)) is not None:
        return found
    place = KINDS[kind]
    for library in place.libraries:
        item = member(library, name)
        if item is not None and place.accept(name, item):
            return item
    return timm_network(name) if kind in ("model", "encoder") and _from_packages("timm") else None


def known_argument(name: str) -> Any:
    """A class of torch's or ours, as an argument of a constructor; None for any other name."""
    return _within(name, _IN_ARGUMENTS, "model")


def saved_argument(name: str, *, trust: bool) -> Any:
    """The Python object that a constructor received, from the name recorded for it; None: it is not known.

    Args:
        trust: Whether names of foreign code may be looked up too.
    """
    if (found := known_argument(name)) is not None or not trust:
        return found
    try:
        return resolve(name, "model")
    except ConfigError:
        return None


def known_arguments(value: object, refused: Callable[[str], ConfigError]) -> Any:
    """A constructor's arguments, with the names in `{_target_: NAME}` looked up.

    Args:
        refused: Makes the error for an unknown name.
    """
    if isinstance(value, Mapping):
        found = {key: known_arguments(item, refused) for key, item in value.items()}
        if isinstance(name := found.get("_target_"), str):
            found["_target_"] = known_argument(name)
            if found["_target_"] is None:
                raise refused(name)
        return found
    if isinstance(value, list):
        return [known_arguments(item, refused) for item in value]
    return value


def known_value(value: str, key: str, argument: str) -> bool:
    """Whether an argument's text names no code outside the allow-list.

    Args:
        key: The setting that it is an argument of.
        argument: The argument whose whole value it is; empty for a part of one.
    """
    # Wrappers' texts may be names of functions, which may be anywhere.
    reaches = {".", ":"} & set(value) or value in classes_here()
    if key == "env_wrappers" and (argument == "func" or (argument and reaches)):
        return False
    if key == "model" and argument == "backbone" and reaches:  # Looked up for models that observe.
        return known_object(value, key) is not None
    if key in ("model", "encoder") and argument in _TIMM_CODE:
        return False
    # An environment may make another; gymnasium imports whatever precedes the colon.
    if key in ("env", "env_wrappers") and ":" in value:
        top = split(value)[0]
        if _ADDRESSES.match(value):  # Unless a file here is called so.
            return find_top(top) is None or _from_packages(top)
        return bool(top) and _environment(value) is not None
    return True


def unknown_to_hub(arguments: Iterable[str]) -> list[str]:
    """The arguments of a data set on the hub that may read files here, or run code."""
    return [name for name in arguments if name not in _OF_HUB]


def text_may_name(name: str, kind: str) -> bool:
    """Whether text that Python code passed, which may come from a file, may be looked up as this name.

    The working directory's files and the allow-list may be named, and nothing else that is importable.
    """
    path, in_file, attribute = name.rpartition(".py:")
    if in_file:
        # Other texts are names too, for objects that look up whatever they are asked for: ctypes opens files.
        if "." in attribute and not all(part.isidentifier() for part in attribute.split(".")):
            return False
        file = Path(f"{path}.py").resolve()
        loaded = (file_of(module) for module in list(sys.modules.values()))
        return _is_here(file) or any(f == str(file) for f in loaded if f)
    if "." not in name and not (kind == "env" and split(name)[0]):
        return True
    module = split(name)[0] if kind == "env" else ""
    top = (module or name).partition(".")[0]
    if _is_module_here(top) or (find_top(top) is None and top not in sys.modules):
        return True
    return known_object(name, kind) is not None


def is_here(item: object) -> bool:
    """Whether a file of the working directory, or the running script, defines a class or function.

    For any other object, whether one of them holds it. A module also holds what it imports, from anywhere.
    """
    if isinstance(item, ModuleType):
        return False
    modules = [m for m in list(sys.modules.values()) if isinstance(m, ModuleType)]
    if not (inspect.isclass(item) or inspect.isroutine(item)):
        return any(item is held for m in modules if _defines(m) for held in vars(m).values())
    # A file that is called like a library's module is loaded beside it, under the same name.
    named = [m for m in modules if m.__name__ == item.__module__]
    own = [m for m in named if _inside(m, item.__qualname__) is item] or named
    return bool(own) and all(map(_defines, own))


def _defines(module: ModuleType) -> bool:
    """Whether what a module defines is the user's own: in the working directory, or the running script."""
    file = file_of(module)
    return module.__name__ == "__main__" or (file is not None and _is_here(Path(file).resolve()))


def _inside(module: ModuleType, qualname: str) -> object:
    """What a module holds at `Class.method`; None if there is nothing."""
    try:
        return attrgetter(qualname)(module)
    except AttributeError:
        return None


def _is_here(file: Path) -> bool:
    """Whether a file lies in the working directory, but not in a virtual environment that does."""
    folder = Path.cwd().resolve()
    inside = file.parts[len(folder.parts) :]
    return file.is_relative_to(folder) and not {"site-packages", "dist-packages"} & set(inside)


def _is_module_here(top: str) -> bool:
    if (module := sys.modules.get(top)) is not None:
        places = [file_of(module), *vars(module).get("__path__", ())]
        return any(_is_here(Path(place).resolve()) for place in places if place)
    folder = Path.cwd()
    if not ((folder / f"{top}.py").is_file() or (folder / top).is_dir()):
        return False
    return not _from_packages(top)


def _from_packages(top: str) -> bool:
    """Whether a top-level module is installed, rather than a file of the working directory."""
    spec = None if top == "" else find_top(top)
    if spec is None:
        return False
    places = [spec.origin, *(spec.submodule_search_locations or ())]
    return not any(_is_here(Path(p).resolve()) for p in places if p and Path(p).exists())


def _environment(name: str) -> Any:
    """An environment of ours, one that gymnasium knows by this id, or one of an installed package."""
    import gymnasium

    from ...envs import NAMES

    module, env_id = split(name)
    if not module:
        if name in gymnasium.registry or (name.startswith("ALE/") and _from_packages("ale_py")):
            return environment(name)
        home, _, last = name.rpartition(".")
        if name == "gymnasium.make":
            return gymnasium.make
        if _lies_in(home, "antelope.envs") and last in NAMES["env"]:
            return member("antelope.envs", last)
        return _environment_class(home, last)
    if module in sys.modules and env_id in gymnasium.registry:
        return environment(name)
    if not _from_installed(module):
        return None
    import_module(module, name)
    if env_id in gymnasium.registry:
        return environment(name)
    return _environment_class(module, env_id)


def _environment_class(module: str, name: str) -> Any:
    """A class of environments that an installed package of them defines itself."""
    import gymnasium

    if not (module and _from_installed(module)) or module.endswith("__main__"):
        return None
    try:
        item = member(module, name)
    except ImportError:
        return None
    made = inspect.isclass(item) and issubclass(item, gymnasium.Env)
    return item if made and _lies_in(item.__module__, module.partition(".")[0]) else None


def _from_installed(module: str) -> bool:
    """Whether a module that a file names belongs to an installed package of environments.

    False for a file in the working directory, whatever its name, and for Python's own modules.
    """
    spec, top = find_top(module), module.partition(".")[0]
    if spec is None or spec.origin is None:
        return False
    found = Path(spec.origin).resolve()
    # With a .dist-info beside it, where Python's path holds the working directory.
    if _is_here(found):
        return False
    return any(
        package.module == top and package.source.resolve() in (found, found.parent)
        for package in installed()
    )


def _data_set(name: str) -> Any:
    """A data set of ours or of torchvision's."""
    from ...envs import NAMES

    home, _, last = name.rpartition(".")
    if last in _UNPICKLE:
        return None
    if _lies_in(home, "antelope.envs") and last in NAMES["dataset"]:
        return member("antelope.envs", last)
    if home and not _lies_in(home, "torchvision.datasets"):
        return None
    item = member("torchvision.datasets", last)
    if home:
        return item if inspect.isclass(item) else None
    return item if item is not None and KINDS["dataset"].accept(name, item) else None


def _strategy(name: str) -> Any:
    """A strategy of ours."""
    home, _, last = name.rpartition(".")
    item = member("antelope.agents.continual", last)
    ours = not home or _lies_in(home, "antelope.agents.continual")
    return item if ours and inspect.isclass(item) else None


def _wrapper(name: str) -> Any:
    """One of gymnasium's wrappers."""
    home, _, last = name.rpartition(".")
    if last in _WRAPPERS_THAT_REACH_OUT:
        return None
    if home and not _lies_in(home, "gymnasium.wrappers"):
        return None
    try:
        item = member("gymnasium.wrappers", last)
    except Exception as error:  # Gymnasium imports some late, because of what they depend on.
        raise ConfigError(f"gymnasium.wrappers.{last} cannot be imported: {error}") from error
    return item if inspect.isclass(item) else None


def _metric(name: str) -> Any:
    """A metric of ours, or one of torchmetrics that needs no network of its own."""
    from .metric_names import metric, snake

    home, _, last = name.rpartition(".")
    if home and not any(_lies_in(home, root) for root in ("torchmetrics", *_METRICS)):
        return None
    try:
        item = metric(snake(last) if home else name)
    except ConfigError:  # Torchmetrics is not installed.
        return None
    made = item.func if isinstance(item, functools.partial) else item
    if not inspect.isclass(made):
        return item  # Ours.
    own = any(_lies_in(made.__module__, root) for root in _METRICS)
    return item if own and _from_packages("torchmetrics") else None


def _nothing(name: str) -> Any:
    """Of callbacks, none are Antelope's own."""
    return None


_OWN_RULES: dict[str, Callable[[str], Any]] = {
    "env": _environment,
    "dataset": _data_set,
    "test_dataset": _data_set,
    "strategy": _strategy,
    "env_wrappers": _wrapper,
    "metrics": _metric,
    "callbacks": _nothing,
}


def _lies_in(module: str | None, root: str) -> bool:
    """Whether a module is `root`, or inside it; `torch.nnx` is not in `torch.nn`."""
    return module is not None and (module == root or module.startswith(f"{root}."))


def _within(name: str, roots: tuple[str, ...], kind: str) -> Any:
    """The class or function at a dotted name, if its kind may be made; None if it lies outside of `roots`."""
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    home, _, last = name.rpartition(".")
    if not any(_lies_in(home, root) for root in roots):
        return None
    try:
        item = member(home, last)
    except ImportError:  # A module of another version.
        return None
    # A module's namespace also holds what it imports, from anywhere.
    if not any(_lies_in(getattr(item, "__module__", None), root) for root in roots):
        return None
    if inspect.isclass(item):
        known = (nn.Module, Optimizer, LRScheduler)
        return item if issubclass(item, known) or kind == "aug" else None
    if not inspect.isroutine(item):
        return None
    if kind == "loss":
        return item if KINDS["loss"].accept(last, item) else None
    return item if _lies_in(home, "torchvision.models") and last.islower() else None
