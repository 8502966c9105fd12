"""States of recurrent modules: trees of tensors, each with one dimension of the batch's size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...replay import ConfigError

State = Any  # A tensor, or tuples, lists and dicts of them, as the module made it.


def find_layout(two: State, three: State, name: str) -> Any:
    """Which dimension of each tensor is the batch, from states of two and of three rows.

    It is the first of `nn.GRUCell`'s, the second of `nn.GRU`'s.

    Raises:
        ConfigError: If a tensor has none, or something else than tensors is kept.
    """

    def dimension(a: Any, b: Any) -> int:
        if not isinstance(a, Tensor):
            raise ConfigError(
                f"{name}.forward: its state holds a {type(a).__name__}; a state is a tensor, or "
                "tuples, lists and dicts of them."
            )
        grown = [i for i, (x, y) in enumerate(zip(a.shape, b.shape, strict=True)) if x != y]
        if len(grown) != 1 or a.shape[grown[0]] != 2:
            raise ConfigError(
                f"{name}.forward: its state {list(a.shape)} does not grow with the batch. Each "
                "tensor of it needs a dimension of the batch's size, as nn.GRU's [layers, B, hidden]."
            )
        return grown[0]

    return zip_leaves(dimension, two, three)


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with `function` applied to every leaf."""
    return zip_leaves(lambda leaf, _: function(leaf), tree, tree)


def zip_leaves(function: Callable[[Any, Any], Any], tree: Any, other: Any) -> Any:
    """The first tree with `function` applied to its leaves and those of the other."""
    if isinstance(tree, (tuple, list)):
        parts = [zip_leaves(function, a, b) for a, b in zip(tree, other, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if isinstance(tree, dict):
        return {key: zip_leaves(function, tree[key], other[key]) for key in tree}
    return function(tree, other)


def leaves(tree: Any) -> list[Any]:
    """The leaves of a tree, in order."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in leaves(part)]
    return [tree]
