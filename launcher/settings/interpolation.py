"""`${lr}` and `${oc.env:NAME}` in settings: replaced for the run, and written as they were."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ...replay.shown import hide
from .plain_yaml import plain_copy
from .schema import schema
from .secrets import Path, named_secrets
from .settings import Settings

_MOST_CHARACTERS = (
    1_000_000  # Of all settings together; each `${...}` may repeat what another repeats.
)
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_ENVIRONMENT = re.compile(r"\$\{\s*oc\.env:\s*([\w.-]+)\s*(?:,[^${}]*)?\}")


def resolve_interpolations(settings: Settings, mistakes: list[str]) -> None:
    """Replace each `${...}` by what it refers to, in place, and note what must not be written.

    Args:
        mistakes: Receives a message for each that cannot be replaced, or that its file may not hold.
    """
    values = settings.values
    # Few settings hold `${...}`; the others need not wait for OmegaConf to be imported.
    if (plain := plain_copy(values)) is not None:
        settings.values = plain
    else:
        found = {path: text for path, text in _leaves(values, ()) if "${" in text}
        wrong = [text for path, raw in found.items() for text in _refused(settings, path, raw)]
        if not wrong and _length(values) > _MOST_CHARACTERS:
            wrong.append("The `${...}` in the settings expand to more than a million characters.")
        mistakes += wrong
        if not wrong:
            _replace(settings, found, mistakes)
    settings.hidden |= named_secrets(settings.values, settings.hidden)


def _replace(settings: Settings, found: dict[Path, str], mistakes: list[str]) -> None:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    config = OmegaConf.create(settings.values)
    try:
        resolved: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        key = str(error.full_key or "")
        reason = str(error).splitlines()[0]
        mistakes.append(f"{settings.place(key)}Cannot resolve a `${{...}}` in `{key}`: {reason}")
        return
    except RecursionError:
        mistakes.append("A `${...}` in the settings refers to itself.")
        return
    settings.values = resolved
    secrets = set()
    for raw in found.values():
        for name in _ENVIRONMENT.findall(raw):
            if value := os.environ.get(name):
                secrets.add(value)
                hide(value, f"${{oc.env:{name}}}")
    now = dict(_leaves(resolved, ()))
    for path, raw in found.items():
        # Also `${model.token}`, which refers to a value that comes from the environment.
        if "oc.env" in raw or any(secret in now.get(path, "") for secret in secrets):
            settings.hidden[path] = raw


def _leaves(value: object, path: Path) -> Iterator[tuple[Path, str]]:
    """Each text in nested settings, with its place."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _leaves(item, (*path, place))
    elif isinstance(value, str):
        yield path, value


def _refused(settings: Settings, path: Path, raw: str) -> list[str]:
    """Why a file may not hold this `${...}`; empty if it may, or if it is the user's own."""
    key = ".".join(map(str, path))
    if settings.trusts or not (settings.from_file(key) or settings.from_text(key)):
        return []
    of_others = "${" in _ENVIRONMENT.sub("", _REFERENCE.sub("", raw))
    if not settings.from_file(key):
        # A resolver is a function of whoever registered it; `eval` is a usual one.
        return [_other_in_text(key, raw)] if of_others else []
    setting = schema().get(str(path[0]))
    names = setting is not None and setting.names_object
    # The name of a data set may be an address: a file could send a secret there.
    is_name = len(path) == 1 or path[-1] == "_target_" or isinstance(path[-1], int)
    if names and is_name and "oc.env" in raw:
        return [
            f"{settings.place(key)}{key}: a name in a file cannot be made of environment variables. Name it "
            "yourself, as a word, or add trust=true."
        ]
    if of_others:
        return [
            f"{settings.place(key)}{key}={raw:.60}: a file may hold ${{lr}}, for any setting, and "
            "${oc.env:NAME}, and no other ${...}. Write it as a word, or add trust=true."
        ]
    return []


def _other_in_text(key: str, raw: str) -> str:
    return (
        f"{key}={raw!r:.60} is text in keywords, which may come from a file: it may hold ${{lr}}, for any "
        f"setting, and ${{oc.env:NAME}}, and no other ${{...}}. Compute the value in Python, or write it as "
        f"a word: ml('{key}=...')."
    )


def _length(values: dict[str, Any]) -> int:
    """Characters that all settings have once each `${key}` is replaced."""
    known: dict[str, int] = {}

    def of_key(key: str) -> int:
        if key not in known:
            known[key] = 0  # One that refers to itself is OmegaConf's to report.
            node: Any = values
            for part in key.split("."):
                node = node.get(part) if isinstance(node, Mapping) else None
            known[key] = length(node)
        return known[key]

    def length(value: object) -> int:
        if isinstance(value, Mapping):
            return sum(length(item) for item in value.values())
        if isinstance(value, list):
            return sum(map(length, value))
        if not isinstance(value, str):
            return 1
        return len(value) + sum(map(of_key, _REFERENCE.findall(value)))

    return length(values)
