"""Trees of values: a leaf, or nested dicts of leaves. Observations, actions and batches are such trees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def map_tree(function: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with `function` applied to every leaf.

    >>> map_tree(lambda x: 2 * x, {"arm": {"angle": 1}, "door": 3})
    {'arm': {'angle': 2}, 'door': 6}
    """
    if isinstance(tree, dict):
        return {name: map_tree(function, part) for name, part in tree.items()}
    return function(tree)


def leaves(tree: Any) -> list[Any]:
    """The leaves, in the order of the dicts.

    >>> leaves({"arm": {"angle": 1}, "door": 3})
    [1, 3]
    """
    if isinstance(tree, dict):
        return [leaf for part in tree.values() for leaf in leaves(part)]
    return [tree]
