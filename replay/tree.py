"""Trees of values: a leaf, or nested dicts of leaves. Observations, actions and batches are such trees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Path = tuple[str, ...]  # The keys that lead to a leaf.


def map_tree(function: Callable[[Any], Any], tree: object) -> Any:
    """The tree with `function` applied to every leaf.

    >>> map_tree(lambda x: 2 * x, {"arm": {"angle": 1}, "door": 3})
    {'arm': {'angle': 2}, 'door': 6}
    """
    if isinstance(tree, dict):
        return {name: map_tree(function, part) for name, part in tree.items()}
    return function(tree)


def map_paths(function: Callable[[Path, Any], Any], tree: object, path: Path = ()) -> Any:
    """The tree with `function(path, leaf)` applied to every leaf; the path of a tree that is a leaf is `()`.

    >>> map_paths(lambda path, x: (*path, x), {"arm": {"angle": 1}, "door": 3})
    {'arm': {'angle': ('arm', 'angle', 1)}, 'door': ('door', 3)}
    """
    if isinstance(tree, dict):
        return {name: map_paths(function, part, (*path, name)) for name, part in tree.items()}
    return function(path, tree)


def zip_trees(function: Callable[..., Any], tree: object, *others: Any) -> Any:
    """The tree with `function` applied to every leaf and those in its place in the others.

    >>> zip_trees(lambda x, y: x + y, {"arm": {"angle": 1}, "door": 3}, {"door": 4, "arm": {"angle": 5}})
    {'arm': {'angle': 6}, 'door': 7}
    """
    if isinstance(tree, dict):
        return {
            name: zip_trees(function, part, *(other[name] for other in others))
            for name, part in tree.items()
        }
    return function(tree, *others)


def leaves(tree: object) -> list[Any]:
    """The leaves, in the order of the dicts.

    >>> leaves({"arm": {"angle": 1}, "door": 3})
    [1, 3]
    """
    if isinstance(tree, dict):
        return [leaf for part in tree.values() for leaf in leaves(part)]
    return [tree]


def walk(tree: object, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every leaf with the keys that lead to it; `()` for a tree that is a leaf.

    >>> list(walk({"arm": {"angle": 1}, "door": 3}))
    [(('arm', 'angle'), 1), (('door',), 3)]
    """
    if isinstance(tree, dict):
        for name, part in tree.items():
            yield from walk(part, (*path, name))
    else:
        yield path, tree


def from_paths(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """The tree with these leaves: the inverse of `dict(walk(tree))` for a tree that is a dict.

    >>> from_paths({("arm", "angle"): 1, ("door",): 3})
    {'arm': {'angle': 1}, 'door': 3}
    """
    tree: dict[str, Any] = {}
    for (*outer, name), leaf in leaves.items():
        inner = tree
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[name] = leaf
    return tree


def named_leaves(tree: object) -> dict[str, Any]:
    """The leaves by unique names, whatever characters their keys hold; "" for a tree that is a leaf.

    A name is a JSON pointer (RFC 6901) without its first slash: keys joined by `/`, in which a `/` of
    their own is `~1` and a `~` is `~0`; an empty key is `~2`.

    >>> named_leaves({"arm": {"angle": 1}, "cam/front": 3})
    {'arm/angle': 1, 'cam~1front': 3}
    """
    return {"/".join(map(_written, path)): leaf for path, leaf in walk(tree)}


def path_of(name: str) -> Path:
    """The path for a name from `named_leaves`.

    >>> path_of("arm/cam~1front")
    ('arm', 'cam/front')
    """
    keys = name.split("/") if name else ()
    return tuple(key.replace("~2", "").replace("~1", "/").replace("~0", "~") for key in keys)


def _written(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1") or "~2"


def slashed(tree: object) -> dict[str, Any]:
    """The leaves by their keys joined by `/`, for display: a slash within a key is not escaped.

    >>> slashed({"arm": {"angle": 1}, "cam/front": 3})
    {'arm/angle': 1, 'cam/front': 3}
    """
    return {"/".join(path): leaf for path, leaf in walk(tree)}


def at_path(tree: Any, path: Path) -> Any:
    """The subtree, or leaf, at the end of a path."""
    for key in path:
        tree = tree[key]
    return tree
