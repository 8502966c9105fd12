"""`ml compat FILE`: names that a Mammoth model file uses and that are not available, without running it.

The file is parsed and never imported: nothing in it is executed.
"""

from __future__ import annotations

import ast
import inspect
import warnings
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ....agents.traits import hook
from ....replay import ConfigError
from ....replay.suggestions import did_you_mean
from ..methods import HOOKS, OBSERVED, TOLD
from .present import HERE, Present, accepts, held_by, is_installed, names_here, signature
from .source import (
    THEIRS,
    SourceFile,
    is_mammoths,
    last_name,
    lines_behind,
    methods_of,
    needed,
    path_of,
    replaced,
    stored,
    stored_on,
)

# Methods of the base class that models call with keywords of their own.
_OF_THE_BASE = ("self.get_optimizer", "self.get_offsets", "self.get_parameters")
# Calls that fail without a GPU, unlike `.to(self.device)`.
_GPU_ONLY = ("torch.cuda.synchronize", "torch.cuda.current_device", "torch.cuda.set_device")


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
    """Runs the command: prints a line for each missing name.

    Returns:
        int, the exit status: 1 if a name is certainly missing, else 0.

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
            when = f" Only if {finding.when}." if finding.when else ""
            print(f"{path}:{finding.line}: {finding.text}{when}")
        # What only some arguments reach is worth a line, but the file may run without it: exit status 0.
        certain = [finding for finding in found if not finding.when]
        missing += len(certain)
        if not certain:
            lines = ", ".join(map(str, rewrites))
            plural = "s" if len(rewrites) > 1 else ""
            change = f" Import from {HERE} on line{plural} {lines}." if rewrites else ""
            print(f"{path}: every {'other ' if found else ''}name is available.{change}")
    return 1 if missing else 0


def check(source: str) -> tuple[list[Finding], list[int]]:
    """The missing names, and the lines whose imports must name Antelope instead of Mammoth.

    Args:
        source: str, the text of a Python file.

    Raises:
        SyntaxError: If it is not valid Python.
    """
    with warnings.catch_warnings():
        # Invalid escapes in the file's strings are none of our business.
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    file = SourceFile(tree)
    # A set: an inherited method is looked at once for each subclass, with the same finding.
    found = {*_imports(file), *_tried(file), *_classes(file), *_uses(file), *_calls(file)}
    behind = dict(lines_behind(tree, "args."))
    placed = [replace(finding, when=behind.get(finding.line, "")) for finding in found]
    return sorted(placed), sorted(file.rewrites)


def _imports(file: SourceFile) -> Iterator[Finding]:
    """Imported names that are not available, and libraries that are not installed."""
    names = names_here()
    for node in file.imports:
        if isinstance(node, ast.ImportFrom) and node.level:
            yield Finding(
                node.lineno,
                f"a relative import: copy what it uses from {node.module} into this file.",
            )
        elif isinstance(node, ast.ImportFrom) and is_mammoths(node.module):
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
                if root in THEIRS:
                    yield Finding(
                        node.lineno,
                        f"import {module}: write `from {HERE} import ...` with the names that are used.",
                    )
                elif not is_installed(root):
                    yield Finding(node.lineno, f"{root} is not installed.")


def _tried(file: SourceFile) -> Iterator[Finding]:
    """Imports inside `try` that fail on this machine and have no working alternative."""
    # `except ImportError: try: ...` is a chain of alternatives, reported once, at its first `try`.
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
            which = "which is not" if len(lacking) == 1 else "none of which is"
            yield Finding(
                node.lineno, f"tries to import {' or '.join(lacking)}, {which} installed."
            )


def _without(node: ast.Try) -> list[str] | None:
    """The missing alternatives of a `try`; None if one is installed or the file handles the failure."""
    imports = [part for part in node.body if isinstance(part, (ast.Import, ast.ImportFrom))]
    roots = [
        str(name).split(".")[0]
        for part in imports
        for name in (
            [part.module] if isinstance(part, ast.ImportFrom) else [a.name for a in part.names]
        )
    ]
    lacking = [root for root in roots if root not in THEIRS and not is_installed(root)]
    if not lacking:
        return None
    for handler in node.handlers:
        # A handler that raises again cannot do without the library; any other one is a fallback.
        if any(isinstance(part, ast.Raise) for part in handler.body):
            return lacking
        for part in handler.body:
            if isinstance(part, ast.Try) and (others := _without(part)) is not None:
                return lacking + others
    return None


def _classes(file: SourceFile) -> Iterator[Finding]:
    """Models without `observe`, and hooks with parameters that are not provided."""
    if not file.models:
        yield Finding(1, "no class here derives from ContinualModel or has `observe`.")
    for model in file.models:
        methods = methods_of(file, model)
        if "observe" not in methods and file.own_bases:
            yield Finding(
                model.lineno, f"{model.name} has no observe: write observe(self, inputs, ...)."
            )
        for name, method in methods.items():
            there = OBSERVED if name == "observe" else TOLD
            if name != "observe" and name not in HOOKS:
                continue
            for parameter in needed(method):
                # Fields that are added to rows reach `observe` by their name, as `logits` may.
                if parameter in there or (name == "observe" and _adds_field(file, parameter)):
                    continue
                near = did_you_mean(parameter, there)
                yield Finding(
                    method.lineno,
                    f"{name} asks for `{parameter}`, which is not provided.{near} There are: "
                    f"{', '.join(there)}. Give it a default, or leave it out.",
                )
            if name in HOOKS and (
                method.args.posonlyargs or isinstance(method, ast.AsyncFunctionDef)
            ):
                yield Finding(
                    method.lineno,
                    f"{name} is called with keyword arguments, but has positional-only parameters.",
                )


def _adds_field(file: SourceFile, name: str) -> bool:
    """Whether a parameter of `observe` is a field that the file adds to its rows."""
    return any(
        isinstance(node, ast.Call)
        and last_name(node.func) == "add_extra_return_field"
        and any(isinstance(a, ast.Constant) and a.value == name for a in node.args)
        for node in ast.walk(file.tree)
    )


def _uses(file: SourceFile) -> Iterator[Finding]:
    """Attributes that are read but do not exist."""
    there = Present.get()
    buffer = held_by(file.ours.get("Buffer")) | stored_on(file, "self.buffer")
    spans = [(m.lineno, m.end_lineno or m.lineno) for m in file.models]
    spans += [
        (file.classes[b].lineno, file.classes[b].end_lineno or 0)
        for m in file.models
        for b in file.bases(m)
        if b in file.classes
    ]
    others = replaced(file)
    # A buffer that the file makes from its own class may have any attribute.
    known_buffer = "buffer" not in others and inspect.isclass(file.ours.get("Buffer"))
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Load):
            continue
        place, name = path_of(node.value), node.attr
        if name in file.asked_for or (name.startswith("__") and name.endswith("__")):
            continue
        # `self` of the file's other classes, such as a network, is nothing that Antelope provides.
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
            # `get_parser` calls its parser `args` in some files: `args.add_argument` is no argument.
            if name not in known and not hasattr(ArgumentParser, name):
                near = did_you_mean(name, [each for each in known if not each.startswith("_")])
                yield Finding(
                    node.lineno,
                    f"{place}.{name} is not an argument.{near} Declare it in get_parser, or pass it as an "
                    "option of the model.",
                )
        elif place == "self.net" and "net" not in others and name not in there.net:
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
        elif place.endswith("train_loader.dataset") and name not in there.rows | stored(file):
            near = did_you_mean(name, there.rows)
            yield Finding(node.lineno, f"train_loader.dataset.{name} does not exist.{near}")


def _calls(file: SourceFile) -> Iterator[Finding]:
    """Keywords that our functions, classes and methods do not accept."""
    there = Present.get()
    others = replaced(file)
    # Lines below `if torch.cuda.is_available()` do not run without a GPU.
    asked = dict(lines_behind(file.tree, "cuda"))
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.Call):
            continue
        place = path_of(node.func)
        moves = isinstance(node.func, ast.Attribute) and node.func.attr == "cuda"
        cuda = moves or place in _GPU_ONLY
        if cuda and node.lineno not in asked and not torch.cuda.is_available():
            yield Finding(
                node.lineno,
                f"{place or '.cuda'}() needs an NVIDIA GPU, which this machine lacks. Use "
                ".to(self.device), or leave it out.",
            )
        owner, _, method = place.rpartition(".")
        target: object = None
        if place in file.ours:
            target = file.ours[place]
        elif owner == "self.buffer" and "buffer" not in others:
            target = hook(file.ours.get("Buffer"), method)
        elif place in _OF_THE_BASE and method not in file.set_on_self:
            target = hook(there.model_class, method)
        if target is None or not callable(target):
            continue
        for keyword in node.keywords:
            if keyword.arg is not None and not accepts(target, keyword.arg):
                yield Finding(
                    node.lineno,
                    f"{place} has no parameter `{keyword.arg}`; its signature is {signature(target)}.",
                )
