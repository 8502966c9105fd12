"""Values of settings, checked and converted as the type in `config.yaml` says."""

from __future__ import annotations

import re
from typing import Any

from ...replay.suggestions import did_you_mean
from .foreign import answer
from .override import check_override
from .schema import schema
from .settings import Settings

_BOOLS = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}
_BOOLS |= {"1": True, "0": False}


def is_bool(text: str) -> bool:
    """Whether a word's value is a truth value."""
    return text.strip("'\"").lower() in _BOOLS


def is_true(text: str) -> bool:
    """Whether a word's value is one of those that mean true."""
    return _BOOLS.get(text.strip("'\"").lower(), False)


_OR_AUTO = ", or auto"  # At the end of a kind of `config.yaml`.


def check_values(settings: Settings, mistakes: list[str]) -> None:
    """Convert and check every value against its line of `config.yaml`, in place."""
    for key, setting in schema().items():
        if key in settings.live:
            if not setting.names_object:
                mistakes.append(f"{key}={settings.live[key]!r}: expected {setting.kind}.")
            continue
        *parents, last = key.split(".")
        node = settings.values
        for part in parents:
            node = node[part]
        if node[last] is None and setting.default == "null":
            continue
        try:
            if not _is_auto(node[last], setting.kind):
                node[last] = _convert(node[last], setting.kind.removesuffix(_OR_AUTO))
        except (TypeError, ValueError):
            value = node[last]
            # As it is written in words and files: `true`, not `True`.
            value = str(value).lower() if isinstance(value, bool) else value
            foreign = answer(f"{key}={value}")
            near = f" {foreign}" if foreign else ""
            if setting.kind.startswith(("int", "float")) and _says_number(value):
                near += " It is text: leave out the quotes."
            if not near and setting.kind.startswith(("one of", "list of")):
                near = did_you_mean(str(node[last]), setting.kind.split()[2:])
            place = settings.place(f"{key}._target_" if setting.names_object else key)
            mistakes.append(f"{place}{key}={_shown(node[last])}: expected {setting.kind}.{near}")
    names = settings.values["override"]
    if names is None or (isinstance(names, list) and all(isinstance(n, str) for n in names)):
        settings.values["override"] = check_override(names, mistakes)


def _says_number(value: object) -> bool:
    """Whether a value is text that would be a number without its quotes."""
    try:
        return isinstance(value, str) and float(value) == float(value)
    except ValueError:
        return False


def _is_auto(value: object, kind: str) -> bool:
    """Whether a value is `auto`, or `auto:N`, of a setting that may be."""
    word = kind.endswith(_OR_AUTO) and isinstance(value, str)
    return word and re.fullmatch(r"auto(:[1-9]\d{0,8})?", str(value)) is not None


def _shown(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) and not value.strip() else str(value)


def _convert(value: object, kind: str) -> Any:
    """`value` converted to a `kind` of `config.yaml`.

    Raises:
        ValueError, TypeError: If it is not of that kind.
    """
    word, *rest = kind.split()
    if word in ("int", "float"):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError
        if word == "int" and not float(value).is_integer():
            raise ValueError
        value = int(value) if word == "int" else float(value)
        if rest and not _within(value, rest):
            raise ValueError
        return value
    if word == "bool," and value == rest[-1]:  # bool, or force
        return value
    if word in ("bool", "bool,"):
        if isinstance(value, float) or str(value).lower() not in _BOOLS:
            raise TypeError
        return _BOOLS[str(value).lower()]
    if word == "text":
        if value is None or isinstance(value, (bool, dict, list)) or value == "":
            raise TypeError
        return str(value)
    if word == "text,":  # text, or a list of them
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list):
            raise TypeError
        return [_convert(item, "text") for item in items]
    if word == "one":  # one of a b c
        if isinstance(value, bool) or str(value) not in rest[1:]:
            raise ValueError
        return int(str(value)) if str(value).isdigit() else value
    if word == "list":  # list of a b c
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or any(item not in rest[1:] for item in items):
            raise ValueError
        return items
    if word == "whole":  # whole number, or a list of them
        items = value if isinstance(value, list) else [value]
        if not items or any(isinstance(item, bool) or not isinstance(item, int) for item in items):
            raise TypeError
        return value
    if word == "shuffled,":  # shuffled, or a list of all classes
        if value != "shuffled" and not isinstance(value, list):
            raise TypeError
        return value if value == "shuffled" else _convert(value, "whole number")
    if word == "probabilities":  # One, a list of them, or a dict of either by action
        _check_probabilities(value)
        return value
    if word == "names" and isinstance(value, list):
        if not value or not all(isinstance(item, (str, dict)) for item in value):
            raise TypeError
        return value
    if not isinstance(value, dict) or not isinstance(value.get("_target_", ""), str):
        raise TypeError
    return value


def _check_probabilities(value: object) -> None:
    if isinstance(value, (dict, list)) and value:
        for item in value.values() if isinstance(value, dict) else value:
            _check_probabilities(item)
    elif isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise TypeError


def _within(value: float, bound: list[str]) -> bool:
    if ".." in bound[0]:
        low, high = map(float, bound[0].split(".."))
        return low <= value <= high
    limit = float(bound[1])
    return value >= limit if bound[0] == ">=" else limit < value < float("inf")
