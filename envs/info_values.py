"""Finds values in the `info` of an environment, and turns them into arrays."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..replay.field_names import IN

Rows = dict[str, np.ndarray]  # `{field: [N, *shape]}`.

MISSING = object()  # Not None, which is a value that an environment may return.


@dataclass(frozen=True)
class Picked:
    """The fields asked for in one environment's `info`, and the names of others if some are missing."""

    values: dict[str, np.ndarray]
    others: tuple[str, ...] = ()


class InfoFault(Exception):
    """What is wrong with an `info`, as text.

    Attributes:
        copy: Number of the copy it came from; None: unknown.
        missing: The name of a field that is missing; None: none is.
    """

    def __init__(self, what: str, copy: int | None = None, missing: str | None = None):
        # All of them, or unpickling in another process fails.
        super().__init__(what, copy, missing)
        self.what, self.copy, self.missing = what, copy, missing


def value_at(info: Any, name: str) -> Any:
    """The value at a key or a path (`episode/r`, `episode.r`); `MISSING` if there is none."""
    if not isinstance(info, Mapping):
        return MISSING
    if name in info:  # A key may itself have a slash or a dot.
        return info[name]
    for key in re.split("[/.]", name):
        if not isinstance(info, Mapping) or key not in info:
            return MISSING
        info = info[key]
    return info


def paths_of(info: Any, within: str = "") -> Iterator[str]:
    """The keys and paths that an `info` has."""
    if not isinstance(info, Mapping):
        return
    for key, value in info.items():
        yield f"{within}{key}"
        if isinstance(value, Mapping):
            yield from paths_of(value, f"{within}{key}/")


def info_of_copy(level: Mapping[str, Any], flags: Mapping[str, Any], copy: int) -> dict[str, Any]:
    """One copy's `info`, out of a vector environment's `{name: [N, ...], _name: bool [N]}`."""
    info = {}
    for key, value in level.items():
        if (key.startswith("_") and key[1:] in flags) or not _there(flags.get(f"_{key}"), copy):
            continue
        if isinstance(value, Mapping):
            info[key] = info_of_copy(value, value, copy)
        else:
            info[key] = value[copy] if np.ndim(value) or isinstance(value, list) else value
    return info


def _there(flags: Any, copy: int) -> bool:
    return flags is None or bool(flags[copy])


def as_field(value: Any, path: str) -> np.ndarray:
    words = path.replace(IN, "/")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor that requires gradients.
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise InfoFault(
            f"returned `{words}` in its info as {in_short(value)}: env_info accepts numbers, booleans and "
            "arrays of them"
        )
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    # Wider unsigned integers become int64: torch has few operations on them.
    return array.astype(np.int64) if array.dtype.str[1:] in ("u2", "u4", "u8") else array


def type_in_words(value: np.ndarray) -> str:
    return f"as {value.dtype} {list(value.shape)}" if value.shape else f"as {value.dtype} {value}"


def in_short(value: Any) -> str:
    text = f"{value!r}"
    return text if len(text) < 80 else text[:77] + "..."
