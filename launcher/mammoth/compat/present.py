"""What Antelope provides to a model file: names, attributes and keywords for `ml compat` to compare with."""

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
    """The attributes of a model, its network, its data and its arguments, read from real objects once.

    A list of them by hand would go out of date with the first attribute that a class gains.

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
            # The smallest run there is: the digits come with scikit-learn, so nothing is downloaded.
            args = {"lr": 0.1, "batch_size": 32, "n_epochs": 1, "progress": False}
            model, dataset = load_runner("sgd", "seq-digits", args)
        dataset.c_task = 0
        self.model_class = type(model)
        self.model = set(dir(model)) | set(dataset.counters(0)) | {"scheduler"}
        self.args = set(vars(model.args)) | set(dir(model.args))
        # A file does not say which backbone it runs with, so whatever any of them has may be read.
        nets = (BaseMNISTMLP(4, 2), MNISTMLP_PNN(4, 2), resnet18(2, 1), resnet18_pnn(2, 1))
        self.net: set[str] = set().union(*(dir(net) for net in nets))
        self.dataset = set(dir(dataset))
        loader = dataset.test_loaders[0]
        self.loader = set(dir(loader))
        self.rows = set(dir(loader.dataset))


def names_here() -> dict[str, Any]:
    """Every name that can be imported from `antelope.launcher.mammoth`, with its object."""
    from ... import mammoth

    return {name: getattr(mammoth, name) for name in mammoth.__all__}


def is_installed(root: str) -> bool:
    """Whether a package can be imported, or is a file beside the one that is checked."""
    if root in sys.stdlib_module_names or root in sys.modules:
        return True
    try:
        # `find_spec` looks for the package without importing it: imports may run code for seconds.
        return importlib.util.find_spec(root) is not None or Path(f"{root}.py").exists()
    except (ImportError, ValueError):
        return False


def set_by(function: object) -> set[str]:
    """Attributes that one of our functions sets on its arguments."""
    if not inspect.isfunction(function):
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {node.attr for node in nodes if isinstance(node.ctx, ast.Store)}


def held_by(kind: object) -> set[str]:
    """The attributes of one of our classes' objects; for a Buffer, with its fields and its subclasses'."""
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
        # `dir` of a class lacks what its methods set on `self`, so these are read from the source.
        if each.__module__.startswith("antelope."):
            tree = ast.parse(textwrap.dedent(inspect.getsource(each)))
            stored = (n for n in ast.walk(tree) if isinstance(n, ast.Attribute))
            names |= {
                n.attr for n in stored if isinstance(n.value, ast.Name) and n.value.id == "self"
            }
    return names


def declared_by(add: Callable[[ArgumentParser], object] | None) -> Iterable[str]:
    """The options that one of our functions adds to a parser."""
    if add is None:
        return []
    parser = ArgumentParser(add_help=False)
    try:
        add(parser)
    except TypeError:  # It needs more than a parser.
        return []
    return [action.dest for action in parser._actions]


def accepts(target: Callable[..., object], name: str) -> bool:
    """Whether a function, a class or a method accepts a keyword argument of this name."""
    calls: list[Callable[..., object]] = [target]
    if inspect.isclass(target):  # `Buffer(...)` may return one of its subclasses.
        calls = [kind.__init__ for kind in (target, *target.__subclasses__())]
    for each in calls:
        try:
            parameters = inspect.signature(each).parameters.values()
        except (TypeError, ValueError):  # Written in C: no signature, so nothing can be reported.
            return True
        if any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters):
            return True
    return False


def signature(target: Callable[..., object]) -> str:
    """`get_data(size, transform)` of a function, or of a class's constructor."""
    called = target.__init__ if inspect.isclass(target) else target
    names = [p for p in inspect.signature(called).parameters if p != "self"]
    return f"{class_name(target)}({', '.join(names)})"
