"""Looks up names by who gave them: the user's words, Python's text, or a file.

Words that the user typed and objects that code passed may be anything. A file (a preset, a run's
`config.yaml`) may name what is on the allow-list of `trust`; text in keywords, which `ml(**settings)` may
have read from one, also what is in the working directory. `trust=true` lifts both.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ...replay import ConfigError
from .dotted import split_target
from .environment_names import environment, split
from .imports import classes_here
from .names import missing, resolve
from .settings import Settings
from .trust import is_here, known_argument, known_object, known_value, text_may_name, unknown_to_hub

_LIBRARIES = ("antelope", "gymnasium", "torch", "torchvision")


def find(settings: Settings, name: str, key: str, at: str) -> Any:
    """What a name means, if whoever gave it may name that.

    Args:
        key: The setting that it is a value of.
        at: Dotted key of the name itself: `optim._target_`, `model.act`.

    Raises:
        ConfigError: If there is none, or it would run code that nobody here named.
    """
    if settings.trusts:
        return resolve(name, key)
    # What nobody gave is a default of ours, which no file here may shadow.
    if settings.from_file(at) or key not in settings.given:
        return _found_for_file(settings, name, key, at)
    if not settings.from_text(at):
        return resolve(name, key)
    if not text_may_name(name, key):
        raise ConfigError(_misspelt(name, key) or _refused_text(name, key, at))
    found = resolve(name, key)
    if {".", ":"} & set(name) and not is_here(found) and known_object(name, key) is None:
        raise ConfigError(_refused_text(name, key, at))
    return found


def refused(settings: Settings, key: str) -> list[str]:
    """A message for every argument of a setting's objects that names code which nobody here named."""
    value, mistakes = settings.values[key], []
    if settings.trusts:
        return []
    if isinstance(value, list):
        value = settings.live.get(key, value)
    for item in value if isinstance(value, (list, tuple)) else [value]:
        target, arguments = split_target(item if type(item) is dict else None)
        for argument, given in arguments.items():
            at = f"{key}.{argument}" if item is value else key
            given = settings.live.get(f"{key}.{argument}", given) if item is value else given
            if settings.from_file(at):
                hub = isinstance(target, str) and target.startswith("hf:")
                names = unknown_to_hub([argument]) if hub else []
                names += [*_made_in(given, key), *reaching(given, key, argument)]
                mistakes += [settings.place(at) + _refusal(n, f"{key}.{argument}") for n in names]
            elif settings.from_text(at):
                names = [n for n in reaching(given, key, argument) if not _may_call(n, key)]
                mistakes += [_refused_text(n, key, f"{key}.{argument}") for n in names]
    return mistakes


def _found_for_file(settings: Settings, name: str, key: str, at: str) -> Any:
    nested = at.count(".") > 0 and not at.endswith("._target_")
    found = _made(name, key) if nested else known_object(name, key)
    if found is not None:
        return found
    reaches = {".", ":", "/"} & set(name) or name in classes_here()
    says = _misspelt(name, key) if reaches else missing(name, key)
    raise ConfigError(says or _refusal(name, at.removesuffix("._target_")))


def _misspelt(name: str, key: str) -> str | None:
    """The message for a name that means nothing, as far as that is known without an import; else None.

    Not by `resolve`, which looks among the files here first.
    """
    if key == "env" and "(" in name:  # gymnasium.make(...), say, as text.
        return missing(name, key)
    module, last = split(name) if key == "env" else ("", "")
    of_env = bool(module)
    if not of_env:
        module, _, last = name.rpartition(".")
        if module.partition(".")[0] not in _LIBRARIES:
            return None
    if module not in sys.modules or hasattr(sys.modules[module], last or "-"):
        return None
    try:
        return None if of_env and environment(name) is not None else missing(name, key)
    except ConfigError as error:
        return str(error)


def _made_in(value: object, key: str) -> Iterator[str]:
    """The names of objects to be made in an argument, other than those on the allow-list."""
    if isinstance(value, Mapping):
        name = value.get("_target_")
        if isinstance(name, str) and _made(name, key) is None:
            yield name
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _made_in(part, key)


def _made(name: str, key: str) -> Any:
    """What a name in an argument means, if it is on the allow-list."""
    return known_object(name, key) or known_argument(name) or known_object(name, "model")


def reaching(value: object, key: str, argument: str = "") -> Iterator[str]:
    """The texts in an argument that may name code outside of the allow-list.

    Args:
        argument: The argument whose whole value it is; empty for a part of one.
    """
    if isinstance(value, Mapping):
        for name, part in value.items():
            if name != "_target_":  # Looked up by `find`.
                yield from reaching(part, key)
    elif isinstance(value, list):
        for part in value:
            yield from reaching(part, key)
    elif isinstance(value, str) and not known_value(value, key, argument):
        yield value


def _may_call(name: str, key: str) -> bool:
    """Whether Python's text in an argument names a function of the working directory."""
    if not text_may_name(name, key):
        return False
    try:
        # An environment's text is only looked up by the environment itself.
        return key == "env" or is_here(resolve(name, key))
    except ConfigError:  # It means nothing, which the message of what looks it up says.
        return True


def _refusal(name: str, key: str) -> str:
    module = split(name)[0] or name.rpartition(".")[0]
    what = f" imports {module}, which is" if module else ": it is"
    root = key.partition(".")[0]
    again = f"{root}={name}" if root == key else f"{root}=..., with {key}={name}"
    return (
        f"{key}={name}{what} not part of Antelope, torch, torchvision, gymnasium or an installed package of "
        "environments, and a file runs no code of its own. To allow it, name it yourself, as a word: "
        f"{again}. Or add trust=true, if you trust everything that the file names."
    )


def _refused_text(name: str, key: str, at: str) -> str:
    said = at.removesuffix("._target_")
    last = name.replace(":", ".").rpartition(".")[2]
    return (
        f"{said}={name!r} is text that names code outside of the working directory, and text in keywords may "
        f"come from a file. Pass the object itself, {last} without quotes; or the word, ml('{said}={name}'); "
        "or trust=True, if you trust everything that the text names."
    )
