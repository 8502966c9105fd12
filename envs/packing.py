"""Packs the actions of an episode as arrays, so that a checkpoint has few entries, not one per action."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..replay.tree import leaves, zip_trees


def packed(actions: list[Any]) -> Any:
    """Actions of one shape as a tree of arrays `[T, *shape]`, T being their number.

    >>> packed([{"arm": 1, "door": 0}, {"arm": 2, "door": 1}])
    {'arm': array([1, 2]), 'door': array([0, 1])}
    """
    if actions and isinstance(actions[0], dict):
        return {name: packed([action[name] for action in actions]) for name in actions[0]}
    return np.array(actions)


def unpacked(arrays: Any) -> list[Any]:
    """The list of actions that `packed` turned into arrays.

    >>> unpacked({"arm": np.array([1]), "door": np.array([0])}) == [{"arm": 1, "door": 0}]
    True
    """
    if isinstance(arrays, dict):
        parts = {name: unpacked(part) for name, part in arrays.items()}
        return [dict(zip(parts, row, strict=True)) for row in zip(*parts.values(), strict=True)]
    return list(np.asarray(arrays))


def equal(a: Any, b: Any) -> bool:
    """Whether two trees of arrays of the same structure hold the same values."""
    return all(leaves(zip_trees(np.array_equal, a, b)))
