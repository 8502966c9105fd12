"""Nested settings as dotted keys: `optim.lr`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .schema import ALIASES, schema


def flatten(key: str, value: Any) -> list[tuple[str, Any]]:
    """`optim={_target_:SGD,lr:1}` and `optim=SGD optim.lr=1` as the same dotted keys."""
    head, _, rest = key.partition(".")
    key = ALIASES.get(head, head) + (f".{rest}" if rest else "")
    setting = schema().get(key)
    # torch's own device, without importing torch to ask.
    if key == "device" and type(value).__name__ == "device":
        value = str(value)
    if isinstance(value, dict) and (key.count(".") == 0):
        return [pair for k, v in value.items() for pair in flatten(f"{key}.{k}", v)]
    if setting and setting.names_object and isinstance(value, (str, int, float, Path)):
        return [(f"{key}._target_", value)]
    return [(key, value)]
