"""The object that a setting names, and the name it is recorded under."""

from __future__ import annotations

import inspect
from typing import Any

from ..replay import ConfigError
from .config import Settings, name_of
from .construct import resolve


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
        raise ConfigError(
            f"`{key}` has arguments ({', '.join(arguments)}) but no name: {key}=NAME."
        )
    if value is None:
        return None, arguments
    item = resolve(value["_target_"], key)
    value["_target_"] = canonical_name(value["_target_"], item)
    return item, arguments


def canonical_name(name: str, item: Any) -> str:
    """One name for a class however it was said; other objects keep the name they were found by."""
    return name_of(item) if inspect.isclass(item) or inspect.isroutine(item) else name
