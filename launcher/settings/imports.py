"""Import what a name means: a file, a class of the working directory, a dotted path."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ...replay.errors import ConfigError
from ...replay.suggestions import did_you_mean
from .environment_packages import find_top
from .frames import user_frame
from .import_path import add_to_path, file_of, first_on_path, is_data


def class_here(name: str) -> Any:
    """The class `Name`, or `file.Name`, from a .py file in the working directory, or None.

    None too where the working directory is a run that is only read, by `load=.` or `ml eval .`: its code is
    imported if the user names the file, `file.py:Name`.

    Raises:
        ConfigError: If two files define it, or importing the file raises.
    """
    if is_data(Path.cwd()):
        return None
    if name.count(".") == 1:
        stem, attribute = name.split(".")
        path = Path(f"{stem}.py")
        return attribute_of(import_file(path), attribute, name) if path.is_file() else None
    files = classes_here().get(name, [])
    if len(files) > 1:
        choices = " or ".join(f"{file}:{name}" for file in files)
        raise ConfigError(f"`{name}` is defined in {len(files)} files. Write {choices}.")
    return attribute_of(import_file(Path(files[0])), name, name) if files else None


def classes_here() -> dict[str, list[str]]:
    """Top-level classes of the working directory's .py files, found without importing them."""
    found: dict[str, list[str]] = {}
    for path in sorted(Path.cwd().glob("*.py")):
        try:
            if not path.is_file():
                continue  # Reading a FIFO would wait for ever.
            tree = ast.parse(path.read_bytes())  # As Python reads it: by its own encoding line.
        except (SyntaxError, UnicodeDecodeError, OSError):
            continue  # Not an error here: another file may define the class.
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(path.name)
    return found


def import_file(path: Path) -> ModuleType:
    """The module in a file; the running script itself is not run a second time."""
    file = path.resolve()
    if not file.is_file():
        raise ConfigError(f"There is no file {path} (looked in {Path.cwd()}).")
    for module in list(sys.modules.values()):
        source = file_of(module)
        if source and source.endswith(file.name) and Path(source).resolve() == file:
            return module
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A file named like a library (`random.py`) must not replace it for everybody else.
    name = file.stem if file.stem not in sys.modules else str(file)
    sys.modules[name] = module
    try:
        with first_on_path(file.parent):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(
            f"Importing {path} raised {type(error).__name__}: {error}{user_frame(error)}"
        ) from error
    return module


def member(module: str, name: str) -> Any:
    """The attribute of this name of a module, which is imported; None if it has none."""
    return getattr(importlib.import_module(module), name, None)


def attribute_of(module: ModuleType, attribute: str, name: str) -> Any:
    item: Any = module
    for part in attribute.split("."):
        if not hasattr(item, part):
            names = [n for n in vars(module) if not n.startswith("_")]
            raise ConfigError(
                f"`{name}`: {Path(file_of(module) or '').name} has no `{attribute}`."
                f"{did_you_mean(attribute, names)}"
            )
        item = getattr(item, part)
    return item


def dotted(name: str) -> Any:
    """The object at a dotted import path, or None."""
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    if find_top(parts[0]) is None and not is_data(Path.cwd()):
        add_to_path(Path.cwd())
    for split in range(len(parts), 0, -1):
        module_name = ".".join(parts[:split])
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and (
                module_name == error.name or module_name.startswith(error.name + ".")
            ):
                continue
            raise ConfigError(f"Importing {module_name} raised {error}") from error
        except Exception as error:
            raise ConfigError(
                f"Importing {module_name} raised {type(error).__name__}: {error}"
            ) from error
        item: Any = module
        for part in parts[split:]:
            item = getattr(item, part, None)
        return item
    return None
