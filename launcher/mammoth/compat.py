"""`ml compat FILE`: names that a Mammoth model file uses and that are not available, without running it.

The file is parsed and never imported: nothing in it is executed.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import sys
import tempfile
import textwrap
import warnings
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...replay import ConfigError
from ..config import did_you_mean

HERE = "antelope.launcher.mammoth"
_THEIRS = ("models", "utils", "datasets", "backbone", "mammoth_lite", "mammoth")
_BASES = ("ContinualModel", "FutureModel")
_OF_THE_BASE = ("self.get_optimizer", "self.get_offsets", "self.get_parameters")
_GPU_ONLY = ("torch.cuda.synchronize", "torch.cuda.current_device", "torch.cuda.set_device")
_HOOKS = ("begin_task", "end_task", "begin_epoch", "end_epoch")


@dataclass(frozen=True, order=True)
class Finding:
    """A name that is not available.

    Attributes:
        line: Where in the file.
        text: What is missing, and what to do about it.
        when: The condition on arguments under which the line runs, or "".
    """

    line: int
    text: str
    when: str = ""


def compat(words: list[str]) -> int:
    """The command: a line for each name that is missing; 0 if there is none, else 1.

    Raises:
        ConfigError: If no file is named, or it cannot be read.
    """
    if not words:
        raise ConfigError("Name the files to check: ml compat er.py derpp.py")
    missing = 0
    for word in words:
        path = Path(word)
        try:
            found, rewrites = check(path.read_text())
        except OSError as error:
            raise ConfigError(f"ml compat {word}: {error.strerror}.") from error
        except (SyntaxError, UnicodeDecodeError) as error:
            raise ConfigError(f"ml compat {word}: not valid Python: {error}.") from error
        for finding in found:
            when = f" Only where {finding.when}." if finding.when else ""
            print(f"{path}:{finding.line}: {finding.text}{when}")
        certain = [finding for finding in found if not finding.when]
        missing += len(certain)
        if not certain:
            lines = ", ".join(map(str, rewrites))
            plural = "s" if len(rewrites) > 1 else ""
            change = f" Import from {HERE} in line{plural} {lines}." if rewrites else ""
            print(f"{path}: every {'other ' if found else ''}name is available.{change}")
    return 1 if missing else 0


def check(source: str) -> tuple[list[Finding], list[int]]:
    """What is missing, and the lines whose imports must name Antelope instead of Mammoth.

    Args:
        source: Of a Python file.

    Raises:
        SyntaxError: If it is not valid Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of the file's own strings.
        tree = ast.parse(source)
    file = _File(tree)
    found = {*_imports(file), *_tried(file), *_classes(file), *_uses(file), *_calls(file)}
    behind = dict(_lines_behind(tree, "args."))
    placed = [replace(finding, when=behind.get(finding.line, "")) for finding in found]
    return sorted(placed), sorted(file.rewrites)


class _File:
    """What a file defines and imports.

    Attributes:
        ours: Names imported from Mammoth, and what they are here, if available.
        rewrites: Lines that import them from Mammoth.
        models: Its classes that are models.
        own_bases: Whether all their bases are known.
        set_on_self, set_on_args: Attributes that it sets itself.
        asked_for: Names that it asks for by `hasattr` and `getattr`, and so can do without.
        options: What its models declare in `get_parser`.
    """

    def __init__(self, tree: ast.Module):
        self.tree = tree
        self.ours: dict[str, Any] = {}
        self.rewrites: set[int] = set()
        self.classes = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
        self.imports = list(_imported(tree))
        names = _names_here()
        for node in self.imports:
            if isinstance(node, ast.ImportFrom) and _is_mammoth(node.module):
                if node.module != HERE:
                    self.rewrites.add(node.lineno)
                for alias in node.names:
                    if alias.name == "*":
                        self.ours |= names
                    else:
                        self.ours[alias.asname or alias.name] = names.get(alias.name)
        self.models, self.own_bases = self._find_models()
        self.set_on_self: set[str] = set()
        self.set_on_args: set[str] = set()
        self.asked_for: set[str] = set()
        self.options: set[str] = set()
        self.sets_anything = self.options_unknown = False
        for part in ast.walk(tree):
            self._look(part)

    def _find_models(self) -> tuple[list[ast.ClassDef], bool]:
        known = True
        models = []
        for node in self.classes.values():
            bases = list(self._bases(node))
            methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            if any(base in _BASES for base in bases) or "observe" in methods:
                models.append(node)
                known = known and all(
                    base in (*_BASES, "object", "Module") or base in self.classes for base in bases
                )
        return models, known

    def _bases(self, node: ast.ClassDef) -> Iterator[str]:
        """The names of all bases, those of bases in the file too."""
        for base in node.bases:
            name = _last(base)
            yield name
            if name in self.classes and self.classes[name] is not node:
                yield from self._bases(self.classes[name])

    def _look(self, node: ast.AST) -> None:
        if isinstance(node, ast.ClassDef):
            for item in node.body:
                self.set_on_self |= set(_targets(item))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, (ast.Store, ast.Del)):
            place = _path(node.value)
            if place == "self":
                self.set_on_self.add(node.attr)
            elif place in ("self.args", "args"):
                self.set_on_args.add(node.attr)
        elif isinstance(node, ast.Call):
            self._look_at_call(node)

    def _look_at_call(self, node: ast.Call) -> None:
        name, first = _last(node.func), node.args[:1]
        texts = [
            a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
        ]
        if name in ("hasattr", "getattr"):
            self.asked_for |= set(texts)
        elif name == "setattr":
            self.asked_for |= set(texts)
            self.sets_anything = self.sets_anything or not texts
        elif name in ("register_buffer", "register_parameter", "add_module"):
            self.set_on_self |= set(texts[:1])
        elif name == "add_argument":
            words = [text.lstrip("-").replace("-", "_") for text in texts]
            own = [k.value for k in node.keywords if k.arg == "dest"]
            self.options |= {str(o.value) for o in own if isinstance(o, ast.Constant)} or set(words)
        elif name == "set_defaults":
            self.options |= {k.arg for k in node.keywords if k.arg}
        elif name in self.ours and any(_path(argument) == "self" for argument in node.args):
            # It may put attributes there.
            self.sets_anything = self.sets_anything or self.ours[name] is None
            self.set_on_self |= _set_by(self.ours[name])
        elif name in self.ours and name.endswith("_args") and first:
            self.options |= set(_declares(self.ours[name]))
            self.options_unknown = self.options_unknown or self.ours[name] is None


def _imports(file: _File) -> Iterator[Finding]:
    """Imported names that are not available, and libraries that are not installed."""
    names = _names_here()
    for node in file.imports:
        if isinstance(node, ast.ImportFrom) and node.level:
            yield Finding(
                node.lineno,
                f"a relative import: copy what it uses from {node.module} into this file.",
            )
        elif isinstance(node, ast.ImportFrom) and _is_mammoth(node.module):
            for alias in node.names:
                if alias.name != "*" and alias.name not in names:
                    near = did_you_mean(alias.name, names) if node.module == HERE else ""
                    yield Finding(
                        node.lineno,
                        f"{node.module}.{alias.name} is not available.{near} Copy it into the file if it "
                        "needs only torch.",
                    )
        else:
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules = modules or [alias.name for alias in node.names]
            for module in modules:
                root = str(module).split(".")[0]
                if root in _THEIRS:
                    yield Finding(
                        node.lineno,
                        f"import {module}: import the names that are used instead, from {HERE} import ...",
                    )
                elif not _is_installed(root):
                    yield Finding(node.lineno, f"{root} is not installed.")


def _tried(file: _File) -> Iterator[Finding]:
    """Libraries that are tried and not installed, where there is no other way."""
    inner = {
        id(part)
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Try)
        for handler in node.handlers
        for part in ast.walk(handler)
    }
    tried = [part for part in ast.walk(file.tree) if isinstance(part, ast.Try)]
    for node in tried:
        if id(node) not in inner and (lacking := _without(node)) is not None:
            are = "is" if len(lacking) == 1 else "are"
            yield Finding(node.lineno, f"{' and '.join(lacking)} {are} tried and not installed.")


def _lines_behind(tree: ast.Module, *words: str) -> Iterator[tuple[int, str]]:
    """Lines that are reached only if a condition holds in which one of the words is, and that condition."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.If):
            continue
        condition = ast.unparse(node.test)
        if any(word in condition for word in words):
            for part in node.body:
                for line in range(part.lineno, (part.end_lineno or part.lineno) + 1):
                    yield line, condition


def _set_by(function: Any) -> set[str]:
    """Attributes that a function of ours sets on what it is given."""
    if not inspect.isfunction(function):
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {node.attr for node in nodes if isinstance(node.ctx, ast.Store)}


def _without(node: ast.Try) -> list[str] | None:
    """The libraries of which one is needed and none is installed; None if it can do without."""
    imports = [part for part in node.body if isinstance(part, (ast.Import, ast.ImportFrom))]
    roots = [
        str(name).split(".")[0]
        for part in imports
        for name in (
            [part.module] if isinstance(part, ast.ImportFrom) else [a.name for a in part.names]
        )
    ]
    lacking = [root for root in roots if root not in _THEIRS and not _is_installed(root)]
    if not lacking:
        return None
    for handler in node.handlers:
        if any(isinstance(part, ast.Raise) for part in handler.body):
            return lacking
        for part in handler.body:
            if isinstance(part, ast.Try) and (others := _without(part)) is not None:
                return lacking + others
    return None


def _classes(file: _File) -> Iterator[Finding]:
    """Models without `observe`, and hooks with parameters that are not provided."""
    from ..observe.observer import _OBSERVED, _TOLD

    if not file.models:
        yield Finding(1, "no class here derives from ContinualModel or has `observe`.")
    for model in file.models:
        methods = _methods(file, model)
        if "observe" not in methods and file.own_bases:
            yield Finding(
                model.lineno, f"{model.name} has no observe: write observe(self, inputs, ...)."
            )
        for name, method in methods.items():
            there = _OBSERVED if name == "observe" else _TOLD
            if name != "observe" and name not in _HOOKS:
                continue
            for parameter in _needed(method):
                if parameter in there or (name == "observe" and _adds_field(file, parameter)):
                    continue
                near = did_you_mean(parameter, there)
                yield Finding(
                    method.lineno,
                    f"{name} asks for `{parameter}`, which is not provided.{near} There are: "
                    f"{', '.join(there)}. Give it a default, or leave it out.",
                )
            if name in _HOOKS and (
                method.args.posonlyargs or isinstance(method, ast.AsyncFunctionDef)
            ):
                yield Finding(
                    method.lineno,
                    f"{name} is called with keyword arguments, but has positional-only parameters.",
                )


def _adds_field(file: _File, name: str) -> bool:
    """Whether a parameter of `observe` is a field that the file adds to its rows."""
    return any(
        isinstance(node, ast.Call)
        and _last(node.func) == "add_extra_return_field"
        and any(isinstance(a, ast.Constant) and a.value == name for a in node.args)
        for node in ast.walk(file.tree)
    )


def _uses(file: _File) -> Iterator[Finding]:
    """Attributes that are read but do not exist."""
    there = _Attributes.get()
    buffer = _held_by(file.ours.get("Buffer")) | _stored_on(file, "self.buffer")
    spans = [(m.lineno, m.end_lineno or m.lineno) for m in file.models]
    spans += [
        (file.classes[b].lineno, file.classes[b].end_lineno or 0)
        for m in file.models
        for b in file._bases(m)
        if b in file.classes
    ]
    replaced = _replaced(file)
    known_buffer = "buffer" not in replaced and inspect.isclass(file.ours.get("Buffer"))
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Load):
            continue
        place, name = _path(node.value), node.attr
        if name in file.asked_for or (name.startswith("__") and name.endswith("__")):
            continue
        in_model = any(first <= node.lineno <= last for first, last in spans)
        if place.startswith("self.") and not in_model:
            continue
        if place == "self" and in_model and file.own_bases and not file.sets_anything:
            if name not in there.model and name not in file.set_on_self:
                near = did_you_mean(name, [*file.set_on_self, *there.model])
                yield Finding(
                    node.lineno,
                    f"self.{name} does not exist, and nothing in the file sets it.{near}",
                )
        elif place in ("self.args", "args") and in_model and file.own_bases:
            if file.options_unknown:
                continue
            known = there.args | file.options | file.set_on_args
            if name not in known and not hasattr(ArgumentParser, name):
                near = did_you_mean(name, [each for each in known if not each.startswith("_")])
                yield Finding(
                    node.lineno,
                    f"{place}.{name} is not an argument.{near} Declare it in get_parser, or pass it as an "
                    "option of the model.",
                )
        elif place == "self.net" and "net" not in replaced and name not in there.net:
            yield Finding(node.lineno, f"self.net.{name}: no registered backbone has it.")
        elif place == "self.buffer" and known_buffer and name not in buffer:
            near = did_you_mean(name, buffer)
            yield Finding(node.lineno, f"self.buffer.{name}: a Buffer has no such attribute.{near}")
        elif place in ("dataset", "self.dataset") and name not in there.dataset:
            near = did_you_mean(name, there.dataset)
            yield Finding(
                node.lineno, f"{place}.{name}: a ContinualDataset has no such attribute.{near}"
            )
        elif place.endswith("dataset.train_loader") and name not in there.loader:
            near = did_you_mean(name, there.loader)
            yield Finding(node.lineno, f"train_loader.{name} does not exist.{near}")
        elif place.endswith("train_loader.dataset") and name not in there.rows | _stored(file):
            near = did_you_mean(name, there.rows)
            yield Finding(node.lineno, f"train_loader.dataset.{name} does not exist.{near}")


def _calls(file: _File) -> Iterator[Finding]:
    """Keywords that our functions, classes and methods do not accept."""
    there = _Attributes.get()
    replaced = _replaced(file)
    asked = dict(_lines_behind(file.tree, "cuda"))
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.Call):
            continue
        place = _path(node.func)
        cuda = getattr(node.func, "attr", "") == "cuda" or place in _GPU_ONLY
        if cuda and node.lineno not in asked and not torch.cuda.is_available():
            yield Finding(
                node.lineno,
                f"{place or '.cuda'}() needs an NVIDIA GPU, which this machine lacks. Use "
                ".to(self.device), or leave it out.",
            )
        target: Any = None
        if place in file.ours:
            target = file.ours[place]
        elif place.startswith("self.buffer.") and "buffer" not in replaced:
            target = getattr(file.ours.get("Buffer"), place.split(".")[-1], None)
        elif place in _OF_THE_BASE and place[5:] not in file.set_on_self:
            target = getattr(there.model_class, place[5:], None)
        if target is None or not callable(target):
            continue
        for keyword in node.keywords:
            if keyword.arg is not None and not _takes(target, keyword.arg):
                yield Finding(
                    node.lineno,
                    f"{place} has no parameter `{keyword.arg}`; its signature is "
                    f"{_signature(target)}.",
                )


class _Attributes:
    """What is there: found on a model, its network, its data and its arguments, made once."""

    _made: _Attributes | None = None

    @classmethod
    def get(cls) -> _Attributes:
        if cls._made is None:
            cls._made = cls()
        return cls._made

    def __init__(self) -> None:
        from ..observe.backbones import MNISTMLP_PNN, BaseMNISTMLP, resnet18, resnet18_pnn
        from . import load_runner

        with tempfile.TemporaryDirectory(), warnings.catch_warnings():
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


def _names_here() -> dict[str, Any]:
    """All names that can be imported from Antelope."""
    from antelope.launcher import mammoth

    return {name: getattr(mammoth, name) for name in mammoth.__all__}


def _is_mammoth(module: str | None) -> bool:
    return module is not None and (module == HERE or module.split(".")[0] in _THEIRS)


def _imported(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """All imports but those that only a type checker reads, or that are tried."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        checked = isinstance(node, ast.If) and _last(node.test) == "TYPE_CHECKING"
        tried = isinstance(node, ast.Try) and any(
            handler.type is None or re.search("Import|Module|Exception", ast.dump(handler.type))
            for handler in node.handlers
        )
        if checked or tried:
            skipped |= {id(inner) for part in node.body for inner in ast.walk(part)}  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in skipped:
            yield node


def _is_installed(root: str) -> bool:
    if root in sys.stdlib_module_names or root in sys.modules:
        return True
    try:
        return importlib.util.find_spec(root) is not None or Path(f"{root}.py").exists()
    except (ImportError, ValueError):
        return False


def _methods(file: _File, model: ast.ClassDef) -> dict[str, Any]:
    """The methods of a class, and of its bases in the file."""
    found: dict[str, Any] = {}
    for base in reversed(model.bases):
        if (name := _last(base)) in file.classes and file.classes[name] is not model:
            found |= _methods(file, file.classes[name])
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return found | {item.name: item for item in model.body if isinstance(item, kinds)}


def _needed(method: Any) -> list[str]:
    """Parameters without a default, but `self`."""
    arguments = method.args
    placed = [*arguments.posonlyargs, *arguments.args]
    needed = placed[: len(placed) - len(arguments.defaults)][1:]
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return [p.arg for p in needed] + [p.arg for p, default in pairs if default is None]


def _replaced(file: _File) -> set[str]:
    """Which of `net` and `buffer` the file makes itself, of something else than ours."""
    replaced: set[str] = set()
    for node in ast.walk(file.tree):
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            for name in ("net", "buffer"):
                if _path(target) != f"self.{name}":
                    continue
                made = _last(node.value.func) if isinstance(node.value, ast.Call) else ""
                ours = ("Buffer",) if name == "buffer" else ("get_backbone", "deepcopy")
                if not (made in ours or _path(node.value) == "backbone"):
                    replaced.add(name)
            if _path(target) == "backbone":
                replaced.add("net")
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            above = isinstance(node.func.value, ast.Call) and _last(node.func.value.func) == "super"
            if above and node.func.attr == "__init__" and node.args and file.models:
                first = node.args[0]
                if not isinstance(first, ast.Starred) and _path(first) not in ("backbone", "net"):
                    replaced.add("net")
    return replaced


def _stored_on(file: _File, place: str) -> set[str]:
    """Attributes that the file sets on an object."""
    return {
        node.attr
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and _path(node.value) == place
    }


def _held_by(kind: Any) -> set[str]:
    """What objects of a class of ours have: of a Buffer, its fields and those of its kinds too."""
    if not inspect.isclass(kind):
        return set()
    fields = getattr(kind, "add_data", None)
    names = set() if fields is None else set(inspect.signature(fields).parameters)
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
            names |= {n.attr for n in stored if _path(n.value) == "self"}
    return names


def _stored(file: _File) -> set[str]:
    """Attributes that the file sets anywhere, and fields that it adds to rows."""
    names = set()
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.Call) and _last(node.func) == "add_extra_return_field":
            names |= {str(a.value) for a in node.args if isinstance(a, ast.Constant)}
    return names


def _declares(add: Any) -> Iterable[str]:
    """The options that a function of ours adds to a parser."""
    if add is None:
        return []
    parser = ArgumentParser(add_help=False)
    try:
        add(parser)
    except TypeError:
        return []
    return [action.dest for action in parser._actions]


def _takes(target: Any, name: str) -> bool:
    calls = [target]
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


def _signature(target: Any) -> str:
    called = target.__init__ if inspect.isclass(target) else target
    names = [p for p in inspect.signature(called).parameters if p != "self"]
    return f"{getattr(target, '__name__', target)}({', '.join(names)})"


def _targets(node: ast.AST) -> Iterator[str]:
    """Names that a statement in a class's body defines."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.AnnAssign):
        yield from ([node.target.id] if isinstance(node.target, ast.Name) else [])
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))


def _path(node: ast.AST) -> str:
    """`self.net.layer1` of such an expression, and "" of any other."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _last(node: ast.AST) -> str:
    """The last name of `a.b.C`, or of `C`."""
    return _path(node).rpartition(".")[2]
