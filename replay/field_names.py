"""One name for each part of a nested field, as used by columns and saved replays: `obs::camera`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Environments use slashes and dots in names. A colon is written as `%3A`, and a `%` as `%25`.
IN = "::"


def named(name: str, value: object) -> Iterator[tuple[str, Any]]:
    """A field's parts, `name::part` where it is a dict.

    >>> list(named("obs", {"camera": 1, "arm": {"angle": 2}}))
    [('obs::camera', 1), ('obs::arm::angle', 2)]
    """
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, part in value.items():
        if ":" in key or "%" in key:
            key = key.replace("%", "%25").replace(":", "%3A")
        yield from named(f"{name}{IN}{key}", part)


def nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `named`, for all fields.

    >>> nested({"obs::camera": 1, "reward": 2})
    {'obs': {'camera': 1}, 'reward': 2}
    """
    nested: dict[str, Any] = {}
    for name, value in fields.items():
        field, *keys = name.split(IN)
        *path, last = (field, *(_key(key) if "%" in key else key for key in keys))
        into = nested
        for key in path:
            into = into.setdefault(key, {})
        into[last] = value
    return nested


def _key(written: str) -> str:
    return written.replace("%3A", ":").replace("%25", "%")
