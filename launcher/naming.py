"""The object that a setting names, and the name it is recorded under."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from ..envs.sources import folder_of
from ..replay import ConfigError
from .config import Settings, name_of, schema
from .construct import resolve, unknown_arguments
from .observe.options import Options, observes


def named_object(settings: Settings, key: str) -> tuple[Any, dict[str, Any]]:
    """The class or object of `key`, and its sub-keys with their Python values.

    The name recorded in the configuration becomes the canonical one, so that both doors write the
    same `config.yaml`.
    """
    value = settings.values[key]
    arguments = {k: v for k, v in (value or {}).items() if k != "_target_"}
    for name, item in settings.live.items():
        if name.startswith(f"{key}."):
            arguments[name.split(".", 1)[1]] = item
    if key in settings.live:
        return settings.live[key], arguments
    if value is not None and "_target_" not in value:
        pair = " A dict of arrays is given as a pair of two of them." if "dataset" in key else ""
        raise ConfigError(
            f"`{key}` has arguments ({', '.join(arguments)}) but no name: {key}=NAME.{pair}"
        )
    if value is None:
        return None, arguments
    item = resolve(value["_target_"], key)
    value["_target_"] = canonical_name(value["_target_"], item)
    return item, arguments


def makes_objects(value: Any) -> bool:
    """Whether a value is called to get the object (a class, a function), or is the object."""
    return (
        inspect.isclass(value) or inspect.isroutine(value) or isinstance(value, functools.partial)
    )


def unresolved(settings: Settings) -> list[str]:
    """What is wrong with the names that were given, and with their arguments: all of it."""
    mistakes = []
    for key, setting in schema().items():
        value = settings.values.get(key)
        if key not in settings.given or not setting.names_object or value is None:
            continue
        for item in value if isinstance(value, list) else [value]:
            item = item if isinstance(item, dict) else {"_target_": item}
            target: Any = settings.live.get(key, item.get("_target_"))
            arguments = [name for name in item if name not in ("_target_", "subset")]
            try:
                if isinstance(target, str) and folder_of(target) is None:
                    target = resolve(target, key)
            except ConfigError as error:
                mistakes.append(str(error))
                continue
            if key == "model" and observes(target) and makes_objects(target):
                given = {name: settings.live.get(f"model.{name}", item[name]) for name in arguments}
                mistakes += Options(target, given).mistakes
            elif makes_objects(target):
                skip = 1 if key in ("optim", "scheduler") else 0
                mistakes += unknown_arguments(target, arguments, setting=key, skip=skip)
    return mistakes


def canonical_name(name: str, item: Any) -> str:
    """One name for a class however it was said; other objects keep the name they were found by."""
    return name_of(item) if inspect.isclass(item) or inspect.isroutine(item) else name
