"""Settings of other tools, answered with ours: `train_mb_size=32`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import yaml


def answer(word: str) -> str | None:
    """Our equivalent of another tool's setting (`train_mb_size`) or value (`ema=true`), or None."""
    table = _table()
    found = table.get(word) or table.get(word.lower().replace("-", "_"))
    if found is None:
        return None
    whose, _, here = (part.strip() for part in found.partition("|"))
    if "=" in word:
        return f"`{word}` comes from {whose}: {here}."
    owners = " and ".join(f"{owner}'s" for owner in whose.split(" and "))
    return f"`{word}` is {owners} word: {here}."


@cache
def _table() -> dict[str, str]:
    text = (files("antelope.hyperparams") / "foreign.yaml").read_text()
    # BaseLoader: keys such as `on` and values such as `1e-3` stay text.
    table: dict[str, str] = yaml.load(text, Loader=yaml.BaseLoader)
    return table
