"""Python keywords as settings: plain values, and objects that travel beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...envs.forms import form
from .dotted import flatten
from .object_names import name_of
from .schema import schema

_MOST_VALUES = 1_000_000
_NESTED = (list, tuple, dict)


def flatten_keywords(
    code: Mapping[str, Any], live: dict[str, Any], mistakes: list[str]
) -> dict[str, Any]:
    """Python keywords as `{dotted key: plain value}`; other objects go to `live`.

    Args:
        code: Keywords as passed to `ml(...)`.
        live: Receives Python objects by dotted key; the returned layer holds their names.
        mistakes: Receives a message for every setting that is given twice.
    """
    layer: dict[str, Any] = {}
    for keyword, value in code.items():
        if (mistake := _repeats(keyword, value)) is not None:
            mistakes.append(mistake)
            continue
        for key, item in flatten(keyword, value):
            key = key.removesuffix("._target_") if not _is_plain(item) else key
            setting = schema().get(key)
            if key in live or (key in layer and layer[key] != item):
                mistakes.append(f"`{key.removesuffix('._target_')}` is given twice.")
            of_data = setting is not None and setting.key in ("dataset", "test_dataset")
            # A pair (inputs, targets) is one data set, not a list of two.
            kind = form(item) if of_data else "sequence"
            if isinstance(item, tuple) and setting and setting.kind == "names" and not of_data:
                item = list(item)
            listed = isinstance(item, (list, tuple))
            # Lists of numbers are no names, and neither are tasks of such lists, [(x, y), (x, y)].
            arrays = listed and (kind != "sequence" or (of_data and _are_lists(item)))
            if _is_plain(item) and not arrays:
                layer[key] = _plain(item)
                continue
            live[key] = item
            if kind != "sequence":
                layer[f"{key}._target_"] = name_of(item)
            elif setting and setting.kind == "names" and isinstance(item, list):
                layer[key] = [x if isinstance(x, str) else name_of(x) for x in item]
            elif setting and setting.names_object:
                layer[f"{key}._target_"] = name_of(item)
            else:
                layer[key] = name_of(item)
    return layer


def _repeats(keyword: str, value: object) -> str | None:
    """What is wrong with nested lists and dicts that hold themselves, or each other many times; else None.

    YAML's aliases make a few lines refer to each other, and the values of one setting without end.
    """
    sizes: dict[int, int] = {}
    inside: set[int] = set()

    def size(part: object) -> int:
        if not isinstance(part, _NESTED):
            return 1
        if id(part) in inside:
            raise RecursionError
        if id(part) not in sizes:
            inside.add(id(part))
            items = part.values() if isinstance(part, Mapping) else part
            sizes[id(part)] = len(part) + sum(map(size, items))
            inside.discard(id(part))
        return sizes[id(part)]

    try:
        whole = size(value)
    except RecursionError:
        return f"{keyword}= holds itself, or is nested too deeply."
    # Long lists are data; only what is counted again and again is refused.
    if whole > _MOST_VALUES and whole > 100 * len(sizes) and _shares(value):
        return f"{keyword}= holds the same lists again and again, {whole:,} values in all."
    return None


def _shares(value: object) -> bool:
    """Whether a list or dict is held in more than one place."""
    seen: set[int] = set()
    rest = [value]
    while rest:
        part = rest.pop()
        if not isinstance(part, _NESTED):
            continue
        if id(part) in seen and len(part):
            return True
        seen.add(id(part))
        rest += part.values() if isinstance(part, Mapping) else part
    return False


def _are_lists(value: list[Any] | tuple[Any, ...]) -> bool:
    return len(value) > 0 and all(isinstance(part, (list, tuple)) for part in value)


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if value is None or isinstance(value, (bool, int, float, str, Path)):
        return True
    # NumPy's numbers, without importing NumPy to ask.
    return type(value).__module__ == "numpy" and getattr(value, "shape", None) == ()


def _plain(value: object) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "item"):  # NumPy's numbers.
        return value.item()
    return str(value) if isinstance(value, Path) else value
