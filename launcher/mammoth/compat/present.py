"""What `ml compat` finds here: names, attributes, arguments and keywords that a model file may use."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import textwrap
import warnings
from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..methods import class_name

HERE = "antelope.launcher.mammoth"


class Present:
    """The attributes of a model, its network, its data and its arguments, found on real ones, once.

    Attributes:
        model_class: The class of the model.
        model, args, net, dataset, loader, rows: Names of their attributes.
    """

    _made: Present | None = None

    @classmethod
    def get(cls) -> Present:
        if cls._made is None:
            cls._made = cls()
        return cls._made

    def __init__(self) -> None:
        from .. import load_runner
        from ..backbones import BaseMNISTMLP, resnet18
        from ..progressive import MNISTMLP_PNN, resnet18_pnn

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            args = {"lr": 0.1, "batch_size": 32, "n_epochs": 1, "progress": False}
            model, dataset = load_runner("sgd", "seq-digits", args)
        dataset.c_task = 0
        self.model_class = type(model)
        self.model = set(dir(model)) | set(dataset.counters(0)) | {"scheduler"}
        self.args = set(vars(model.args)) | set(dir(model.args))
        nets = (BaseMNISTMLP(4, 2), MNISTMLP_PNN(4, 2), resnet18(2, 1), resnet18_pnn(2, 1))
        self.net: set[str] = set().union(*(dir(net) for net in nets))
        self.dataset = set(dir(dataset))
        loader = dataset.test_loaders[0]
        self.loader = set(dir(loader))
        self.rows = set(dir(loader.dataset))


def names_here() -> dict[str, Any]:
    """Every name that can be imported from here, with its object."""
    from ... import mammoth

    return {name: getattr(mammoth, name) for name in mammoth.__all__}


def is_installed(root: str) -> bool:
    """Whether a package can be imported here, or is a file beside the one that is looked at."""
    if root in sys.stdlib_module_names or root in sys.modules:
        return True
    try:
        return importlib.util.find_spec(root) is not None or Path(f"{root}.py").exists()
    except (ImportError, ValueError):
        return False


def set_by(function: object) -> set[str]:
    """Attributes that a function of ours sets on its arguments."""
    if not inspect.isfunction(function):
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {node.attr for node in nodes if isinstance(node.ctx, ast.Store)}


def held_by(kind: object) -> set[str]:
    """The attributes of objects of a class of ours; of a Buffer, its fields and those of subclasses too."""
    if not inspect.isclass(kind):
        return set()
    names = set(inspect.signature(kind.add_data).parameters) if hasattr(kind, "add_data") else set()
    kinds, ahead = set(kind.__mro__), [kind]
    while ahead:
        below = ahead.pop().__subclasses__()
        kinds |= set(below)
        ahead += below
    for each in kinds:
        names |= set(dir(each))
        if each.__module__.startswith("antelope."):
            tree = ast.parse(textwrap.dedent(inspect.getsource(each)))
            stored = (n for n in ast.walk(tree) if isinstance(n, ast.Attribute))
            names |= {
                n.attr for n in stored if isinstance(n.value, ast.Name) and n.value.id == "self"
            }
    return names


def declared_by(add: Callable[[ArgumentParser], object] | None) -> Iterable[str]:
    """The options that a function of ours adds to a parser."""
    if add is None:
        return []
    parser = ArgumentParser(add_help=False)
    try:
        add(parser)
    except TypeError:
        return []
    return [action.dest for action in parser._actions]


def takes(target: Callable[..., object], name: str) -> bool:
    """Whether a function, a class or a method accepts a keyword argument of this name."""
    calls: list[Callable[..., object]] = [target]
    if inspect.isclass(target):  # A Buffer may become one of its kinds.
        calls = [kind.__init__ for kind in (target, *target.__subclasses__())]
    for each in calls:
        try:
            parameters = inspect.signature(each).parameters.values()
        except (TypeError, ValueError):
            return True
        if any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters):
            return True
    return False


def signature(target: Callable[..., object]) -> str:
    """`get_data(size, transform)` of a function, or of a class's constructor."""
    called = target.__init__ if inspect.isclass(target) else target
    names = [p for p in inspect.signature(called).parameters if p != "self"]
    return f"{class_name(target)}({', '.join(names)})"
