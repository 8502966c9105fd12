"""Names in somebody else's run folder: what may be looked up for them, and what the user has to name.

A run folder is data. What it names is only constructed if it is Antelope's own, torch's or torchvision's,
or an id that gymnasium knows already: importing anything else would run code that nobody here named.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...replay import ConfigError
from .environment_names import split
from .environment_packages import find_top, installed
from .imports import member
from .names import KINDS, registered, resolve, timm_network

_MODULES = ("antelope.agents", "torch.nn", "torchvision.models")
_IN_ARGUMENTS = (*_MODULES, "torch.optim")


def known_object(name: str, kind: str) -> Any:
    """What a name means, if looking it up runs no foreign code; else None.

    Args:
        kind: The setting that it is a value of: `model`, `policy`, `env`, ...
    """
    if (found := registered(name)) is not None:  # By code that has run already.
        return found
    if kind == "env":
        return _environment(name)
    if kind in ("dataset", "test_dataset"):
        return _data_set(name)
    if kind == "strategy":
        return _strategy(name)
    if kind == "env_wrappers":
        return _wrapper(name)
    if (found := _within(name, _MODULES)) is not None:
        return found
    place = KINDS[kind]
    for library in place.libraries:
        item = member(library, name)
        if item is not None and place.accept(name, item):
            return item
    return timm_network(name) if kind in ("model", "encoder") else None


def known_argument(name: str) -> Any:
    """A class of torch's or ours, as an argument of a constructor; None for any other name."""
    return _within(name, _IN_ARGUMENTS)


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


def may_be_imported(name: str, key: str) -> bool:
    """Whether looking a name up, and making what it means, runs no code from elsewhere."""
    import gymnasium

    module, env_id = split(name)
    if key == "env":
        if module:
            registered = module in sys.modules and env_id in gymnasium.registry
            return registered or _from_installed(module)
        # A bare name may also be a class in a file here, which would be imported.
        if name in gymnasium.registry or not name.replace(".", "").isidentifier():
            return True
        if known_object(name, key) is not None:
            return True
    home = name.rpartition(".")[0]
    path = Path.cwd() / f"{home.replace('.', '/')}.py"
    return bool(home) and ".py:" not in name and not path.exists() and _from_installed(home)


def _from_installed(module: str) -> bool:
    """Whether a module that a file names belongs to an installed package of environments.

    False for a file in the working directory, whatever its name, and for Python's own modules.
    """
    spec, top = find_top(module), module.partition(".")[0]
    if spec is None or spec.origin is None:
        return False
    found = Path(spec.origin).resolve()
    return any(
        package.module == top and package.source.resolve() in (found, found.parent)
        for package in installed()
    )


def _environment(name: str) -> Any:
    """An environment of ours, or one that gymnasium knows by this id."""
    import gymnasium

    from ...envs import NAMES

    known = name in gymnasium.registry or name.startswith("ALE/")
    if ":" not in name and (known or name in NAMES["env"]):
        return resolve(name, "env") if known else member("antelope.envs", name)
    if name.startswith("antelope.envs."):
        home, _, last = name.rpartition(".")
        if last in NAMES["env"]:
            return member(home, last)
    return None


def _data_set(name: str) -> Any:
    """A data set of ours or of torchvision's."""
    from ...envs import NAMES

    last = name.rpartition(".")[2]
    if name.startswith("antelope.envs.") and last in NAMES["dataset"]:
        return resolve(name, "dataset")
    if name.startswith("torchvision.datasets."):
        item = member("torchvision.datasets", last)
        return item if inspect.isclass(item) else None
    return None


def _strategy(name: str) -> Any:
    """A strategy of ours."""
    home, _, last = name.rpartition(".")
    item = member("antelope.agents.continual", last)
    ours = not home or home.startswith("antelope.agents.continual")
    return item if ours and inspect.isclass(item) else None


def _wrapper(name: str) -> Any:
    """One of gymnasium's wrappers."""
    home, _, last = name.rpartition(".")
    item = member("gymnasium.wrappers", last)
    of_gymnasium = not home or home.startswith("gymnasium.wrappers")
    return item if of_gymnasium and inspect.isclass(item) else None


def _within(name: str, roots: tuple[str, ...]) -> Any:
    """The class or network function at a dotted name; None if it lies outside of `roots`."""
    from torch import nn
    from torch.optim import Optimizer

    home, _, last = name.rpartition(".")
    if not name.startswith(tuple(f"{root}." for root in roots)):
        return None
    try:
        item = member(home, last)
    except ImportError:  # A module of another version.
        return None
    # A module's namespace also holds what it imports, from anywhere.
    own = str(getattr(item, "__module__", "")).startswith(roots)
    makes = inspect.isclass(item) and issubclass(item, (nn.Module, Optimizer))
    if not makes:
        makes = inspect.isfunction(item) and home.startswith("torchvision.models")
    return item if own and makes else None
