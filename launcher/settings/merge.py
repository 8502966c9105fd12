"""Layers of settings laid over each other: defaults, presets, code, console words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from .schema import SHORTHANDS, schema
from .settings import Settings
from .unknown import unknown_setting


def merge(
    values: dict[str, Any],
    layer: dict[str, Any],
    settings: Settings,
    mistakes: list[str],
    *,
    covers: dict[str, Any] | None = None,
    places: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Lay one layer over `values`, in place; live objects that it `covers` are forgotten.

    Args:
        places: Where the layer says each key, if that is a file.
    """
    covers = {} if covers is None else covers
    known = schema()
    names = [key for key in layer if key.removesuffix("._target_") in known]
    for key in sorted(layer, key=lambda key: (key not in names, key.count("."))):
        value = layer[key]
        root = key.split(".")[0]
        setting = known.get(root)
        owner = key.removesuffix("._target_")
        _forget(settings.places, owner)
        place = f"{places[key]}: " if key in places else ""
        # A run's config.yaml, taken as a preset, repeats the default of every other setting.
        changes = not place or _at(values, key) != value
        if place:
            settings.places[key] = places[key]
        if setting and setting.names_object:
            if key == root or owner == root:
                # Another object: what was said of the one it replaces does not concern it.
                values[root] = {"_target_": value} if owner != key else value
                _forget(covers, root)
            else:
                _forget(covers, key)
                path = key.split(".")[1:]
                if isinstance(values.get(root), list):
                    if (at := _item_named(values[root], path[0])) is None or len(path) < 2:
                        mistakes.append(f"{place}`{key}`: {_in_list(root, values[root], path)}")
                        continue
                    values[root] = list(values[root])
                    item = values[root][at]
                    node = dict(item) if isinstance(item, dict) else {"_target_": item}
                    values[root][at], path = node, path[1:]
                else:
                    node = values[root] = dict(values.get(root) or {})
                    if setting.kind == "names" and path[0] == node.get("_target_"):
                        path = path[1:]  # `strategy.er.capacity` with `strategy=er`.
                    if root == "optim" and path[0] == "groups" and len(path) > 3:
                        path = ["groups", ".".join(path[1:-1]), path[-1]]  # `*.bias`, `body.0`.
                for part in path[:-1]:
                    node[part] = dict(node.get(part) or {})
                    node = node[part]
                node[path[-1]] = value
        elif setting and setting.kind == "probabilities" and key != root:
            # `head_bias.move=...`: one action of a dict of them.
            before = values.get(root)
            values[root] = {**before} if isinstance(before, dict) else {}
            values[root][key.split(".", 1)[1]] = value
        elif key in known:
            *parents, last = key.split(".")
            node = values
            for part in parents:
                node = node[part]
            node[last] = value
        else:
            mistakes.append(f"{place}{unknown_setting(key)}")
            continue
        if changes:
            settings.given.add(root)
        # `lr` over a lower layer's `optim.lr`, and the other way round.
        for shorthand, long in SHORTHANDS.items():
            owner_key, argument = long.split(".")
            if key == shorthand and long not in layer:
                _forget(covers, long)
                if isinstance(values.get(owner_key), dict):
                    values[owner_key] = {
                        k: v for k, v in values[owner_key].items() if k != argument
                    }
            elif key == long and shorthand not in layer:
                values[shorthand] = None
            elif key == long and layer[shorthand] != value:
                said = f"`{shorthand}={layer[shorthand]}` and `{long}={value}`"
                mistakes.append(f"{place}{said} disagree. Give one of them.")


def _at(values: dict[str, Any], key: str) -> Any:
    """What holds for a dotted key, or None."""
    node: Any = values
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _names_in(items: list[Any]) -> list[str]:
    return [str(item.get("_target_") if isinstance(item, dict) else item) for item in items]


def _item_named(items: list[Any], name: str) -> int | None:
    """Where in a list of names, some with arguments, one of them is; by its last part, if that is unique."""
    names = _names_in(items)
    if name not in names:
        names = [re.split(r"[.:]", known)[-1] for known in names]
    return names.index(name) if names.count(name) == 1 else None


def _in_list(root: str, items: list[Any], path: list[str]) -> str:
    """What is wrong with an argument that belongs to none of a list's names, or to several."""
    names = [re.split(r"[.:]", known)[-1] for known in _names_in(items)]
    if len(path) > 1 and (several := names.count(path[0])) > 1:
        return (
            f"`{root}` lists {several} of that name. Give each its own arguments: "
            f"{root}=[{{_target_: {path[0]}, {path[-1]}: ...}}, ...]."
        )
    return (
        f"`{root}` is a list here. Give arguments with the name of what they are for: "
        f"{root}.{names[0]}.{path[-1]}=..."
    )


def _forget(live: dict[str, Any], key: str) -> None:
    for stale in [name for name in live if name == key or name.startswith(f"{key}.")]:
        del live[stale]
