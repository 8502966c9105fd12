"""Nested settings as dotted keys: `optim.lr`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .schema import ALIASES, schema


def flatten(key: str, value: object) -> list[tuple[str, Any]]:
    """`optim={_target_:SGD,lr:1}` and `optim=SGD optim.lr=1` as the same dotted keys."""
    head, _, rest = key.partition(".")
    key = ALIASES.get(head, head) + (f".{rest}" if rest else "")
    setting = schema().get(key)
    # torch's own device, without importing torch to ask.
    if key == "device" and type(value).__name__ == "device":
        value = str(value)
    # Hugging Face's data sets may be dicts of their parts.
    if isinstance(value, dict) and (key.count(".") == 0) and not hasattr(value, "column_names"):
        return [pair for k, v in value.items() for pair in flatten(f"{key}.{k}", v)]
    if setting and setting.names_object and isinstance(value, (str, int, float, Path)):
        return [(f"{key}._target_", value)]
    return [(key, value)]


def split_target(item: object) -> tuple[Any, dict[str, Any]]:
    """What an item of a setting names, and its arguments; None for arguments without a name.

    >>> split_target("SGD"), split_target({"_target_": "SGD", "lr": 0.1}), split_target({"lr": 0.1})
    (('SGD', {}), ('SGD', {'lr': 0.1}), (None, {'lr': 0.1}))
    """
    if not isinstance(item, Mapping):
        return item, {}
    return item.get("_target_"), {key: value for key, value in item.items() if key != "_target_"}
