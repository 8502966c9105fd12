"""Reads from a model file's syntax tree what it defines, imports, sets and asks for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from .present import HERE, declared_by, names_here, set_by

THEIRS = ("models", "utils", "datasets", "backbone", "mammoth_lite", "mammoth")  # Packages.
BASES = ("ContinualModel", "FutureModel")


class SourceFile:
    """The definitions and imports of a file.

    Attributes:
        ours: Names that it imports from Mammoth, with our objects; None where there is none.
        rewrites: Lines that import them from Mammoth.
        models: Its classes that are models.
        own_bases: Whether every base class of the models is known.
        set_on_self, set_on_args: Attributes that it sets itself.
        asked_for: Names that it looks up with `hasattr` or `getattr`, so that it can do without them.
        options: Options that its models declare in `get_parser`.
    """

    def __init__(self, tree: ast.Module):
        self.tree = tree
        self.ours: dict[str, Any] = {}
        self.rewrites: set[int] = set()
        self.classes = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
        self.imports = list(_imported(tree))
        names = names_here()
        for node in self.imports:
            if isinstance(node, ast.ImportFrom) and is_mammoths(node.module):
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
        # Once names are set dynamically, a missing attribute is no longer certain, and not reported.
        self.sets_anything = self.options_unknown = False
        for part in ast.walk(tree):
            self._look(part)

    def _find_models(self) -> tuple[list[ast.ClassDef], bool]:
        known = True
        models = []
        for node in self.classes.values():
            bases = list(self.bases(node))
            methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            if any(base in BASES for base in bases) or "observe" in methods:
                models.append(node)
                # A base from another file may define anything, so that no attribute is surely missing.
                known = known and all(
                    base in (*BASES, "object", "Module") or base in self.classes for base in bases
                )
        return models, known

    def bases(self, node: ast.ClassDef) -> Iterator[str]:
        """The names of all base classes, with those of base classes in the file."""
        for base in node.bases:
            name = last_name(base)
            yield name
            if name in self.classes and self.classes[name] is not node:
                yield from self.bases(self.classes[name])

    def _look(self, node: ast.AST) -> None:
        if isinstance(node, ast.ClassDef):
            for item in node.body:
                self.set_on_self |= set(_targets(item))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, (ast.Store, ast.Del)):
            place = path_of(node.value)
            if place == "self":
                self.set_on_self.add(node.attr)
            elif place in ("self.args", "args"):
                self.set_on_args.add(node.attr)
        elif isinstance(node, ast.Call):
            self._look_at_call(node)

    def _look_at_call(self, node: ast.Call) -> None:
        name, first = last_name(node.func), node.args[:1]
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
            # As argparse derives `dest`: `--buffer-size` becomes `buffer_size`.
            words = [text.lstrip("-").replace("-", "_") for text in texts]
            own = [k.value for k in node.keywords if k.arg == "dest"]
            self.options |= {str(o.value) for o in own if isinstance(o, ast.Constant)} or set(words)
        elif name == "set_defaults":
            self.options |= {k.arg for k in node.keywords if k.arg}
        elif name in self.ours and any(path_of(argument) == "self" for argument in node.args):
            # Our source says what a function sets on the model; a missing one may set anything.
            self.sets_anything = self.sets_anything or self.ours[name] is None
            self.set_on_self |= set_by(self.ours[name])
        elif name in self.ours and name.endswith("_args") and first:
            self.options |= set(declared_by(self.ours[name]))
            self.options_unknown = self.options_unknown or self.ours[name] is None


def is_mammoths(module: str | None) -> bool:
    return module is not None and (module == HERE or module.split(".")[0] in THEIRS)


def _imported(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """All imports, except those for type checkers only and those inside `try`."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        # Optional imports are the concern of `_tried`; only a handler that catches import errors makes one.
        checked = isinstance(node, ast.If) and last_name(node.test) == "TYPE_CHECKING"
        tried = isinstance(node, ast.Try) and any(
            handler.type is None or re.search("Import|Module|Exception", ast.dump(handler.type))
            for handler in node.handlers
        )
        if checked or tried:
            skipped |= {id(inner) for part in node.body for inner in ast.walk(part)}  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in skipped:
            yield node


def methods_of(
    file: SourceFile, model: ast.ClassDef
) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """The methods of a class, and of its bases in the file."""
    found: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
    # Reversed, so that an earlier base overrides a later one, as in Python's method resolution.
    for base in reversed(model.bases):
        if (name := last_name(base)) in file.classes and file.classes[name] is not model:
            found |= methods_of(file, file.classes[name])
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return found | {item.name: item for item in model.body if isinstance(item, kinds)}


def needed(method: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The parameters without a default, except `self`."""
    arguments = method.args
    placed = [*arguments.posonlyargs, *arguments.args]
    without = placed[: len(placed) - len(arguments.defaults)][1:]
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return [p.arg for p in without] + [p.arg for p, default in pairs if default is None]


def replaced(file: SourceFile) -> set[str]:
    """Which of `net` and `buffer` the file constructs from its own class, whose attributes are unknown."""
    found: set[str] = set()
    for node in ast.walk(file.tree):
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            for name in ("net", "buffer"):
                if path_of(target) != f"self.{name}":
                    continue
                made = last_name(node.value.func) if isinstance(node.value, ast.Call) else ""
                ours = ("Buffer",) if name == "buffer" else ("get_backbone", "deepcopy")
                if not (made in ours or path_of(node.value) == "backbone"):
                    found.add(name)
            if path_of(target) == "backbone":
                found.add("net")
    # `super().__init__(MyNet(), ...)` replaces the network as well: the first argument is the backbone.
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            above = (
                isinstance(node.func.value, ast.Call) and last_name(node.func.value.func) == "super"
            )
            if above and node.func.attr == "__init__" and node.args and file.models:
                first = node.args[0]
                if not isinstance(first, ast.Starred) and path_of(first) not in ("backbone", "net"):
                    found.add("net")
    return found


def stored_on(file: SourceFile, place: str) -> set[str]:
    """Attributes that the file sets on an object."""
    return {
        node.attr
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and path_of(node.value) == place
    }


def stored(file: SourceFile) -> set[str]:
    """Attributes that the file sets anywhere, and fields that it adds to rows."""
    names = set()
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.Call) and last_name(node.func) == "add_extra_return_field":
            names |= {str(a.value) for a in node.args if isinstance(a, ast.Constant)}
    return names


def lines_behind(tree: ast.Module, *words: str) -> Iterator[tuple[int, str]]:
    """Lines that run only under a condition that contains one of the words, with that condition."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.If):
            continue
        condition = ast.unparse(node.test)
        if any(word in condition for word in words):
            for part in node.body:
                for line in range(part.lineno, (part.end_lineno or part.lineno) + 1):
                    yield line, condition


def _targets(node: ast.AST) -> Iterator[str]:
    """Names that a statement in a class's body defines."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.AnnAssign):
        yield from ([node.target.id] if isinstance(node.target, ast.Name) else [])
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))


def path_of(node: ast.AST) -> str:
    """`self.net.layer1` for such an expression, "" for any other."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def last_name(node: ast.AST) -> str:
    """The last name of `a.b.C`, or of `C`."""
    return path_of(node).rpartition(".")[2]
