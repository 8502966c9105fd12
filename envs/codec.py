"""How the values of one space are stored, and converted back for the environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Codec:
    """One space: its `Space`, and the conversion of values from and to the environment's own form.

    Attributes:
        space: As models receive it, a dict of them for a Dict or Tuple space.
        stored: Maps the environment's value to the stored arrays, `[*shape]`, or N values to
            `[N, *shape]`.
        native: Maps an action `[*value_shape]`, or N of them, to what `env.step` accepts, as a copy.
        given: The shape of the environment's own values.
        shape, dtype: Those of the stored arrays; with stacking, of a single frame.
        low, high: Bounds of stored values that observations are checked against, or None.
        parts: For a Dict or a Tuple, the codec of each part by the name that models use; else None.
        keys: Where the environment's own value has each part: a dict's key, a tuple's index.
        left_out: Keys of parts that models do not receive.
        plain: Whether values are float arrays that are stored without conversion.
    """

    space: Any
    stored: Callable[[Any], Any]
    native: Callable[[Any], Any]
    given: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: Any = None
    low: Any = None
    high: Any = None
    parts: dict[str, Codec] | None = None
    keys: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[Any, ...] = ()
    plain: bool = False

    def misfit(self, value: Any) -> str | None:
        """What was given instead of this Dict or Tuple, in words; None: all parts are there."""
        if isinstance(value, Mapping):
            given = set(value)
        elif isinstance(value, (tuple, list)):
            given = set(range(len(value)))
        else:
            return f"of type {type(value).__name__} instead of a dict or tuple"
        wanted = set(self.keys.values())
        if wanted <= given <= wanted.union(self.left_out):
            return None
        return f"with {_sorted(given)} instead of {_sorted(wanted.union(self.left_out))}"


def zeros(code: Codec, n: int) -> Any:
    """n stored values, `[n, *shape]`, or a dict of them."""
    if code.parts is not None:
        return {name: zeros(part, n) for name, part in code.parts.items()}
    return np.zeros((n, *code.shape), code.dtype)


def _sorted(keys: set[Any]) -> list[Any]:
    # By type first: strings and numbers, which a dict may mix, cannot be compared.
    return sorted(keys, key=lambda key: (str(type(key)), key))
