"""Layers of settings laid over each other: defaults, presets, code, console words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from .dotted import split_target
from .schema import SHORTHANDS, Setting, defaults, schema
from .settings import Settings
from .unknown import unknown_setting

Flat = dict[str, Any]
"""A layer: values by dotted key. What a setting names has the key `optim._target_`."""


class Layers:
    """Settings while they are composed: each layer wins over those laid before it.

    Args:
        mistakes: Receives a message for every key that is invalid.

    Attributes:
        settings: The result so far; at first the defaults.
    """

    def __init__(self, mistakes: list[str]):
        self.settings, self.mistakes = Settings(defaults()), mistakes

    def lay(
        self,
        layer: Flat,
        *,
        places: Mapping[str, str] = MappingProxyType({}),
        hides_objects: bool = False,
        texts: bool = False,
    ) -> None:
        """Lay one layer over the others.

        Args:
            places: Where the layer sets each key, if it comes from a file: `{"lr": "mine.yaml, line 3"}`.
            hides_objects: Whether the layer also replaces Python objects that code has given.
            texts: Whether its text was passed by Python code.
        """
        settings, known = self.settings, schema()
        objects = settings.live if hides_objects else {}
        names = {key for key in layer if key.removesuffix("._target_") in known}
        # Names come first, whatever the order of words: naming an object drops the arguments that lower
        # layers gave to the one it replaces, and must not drop those of its own layer.
        for key in sorted(layer, key=lambda key: (key not in names, key.count("."))):
            value = layer[key]
            for origin in (settings.places, settings.texts):
                _forget(origin, key.removesuffix("._target_"))
            if texts:
                settings.texts[key] = True
            place = f"{places[key]}: " if key in places else ""
            # A run's config.yaml, taken as a preset, repeats the default of every other setting.
            changes = not place or _at(settings.values, key) != value
            if place:
                settings.places[key] = places[key]
            if (mistake := self._set(key, value, objects)) is not None:
                self.mistakes.append(place + mistake)
                continue
            if changes:
                settings.given.add(key.partition(".")[0])
            if (mistake := self._drop_other_spelling(key, value, layer, objects)) is not None:
                self.mistakes.append(place + mistake)

    def _set(self, key: str, value: object, objects: Flat) -> str | None:
        """Set one key. Returns what is wrong with it, or None."""
        values, (root, _, rest) = self.settings.values, key.partition(".")
        setting = schema().get(root)
        if setting is not None and setting.names_object:
            return self._set_object(setting, key, value, objects)
        if setting is not None and setting.kind == "probabilities" and rest:
            # `head_bias.move=...`: one action of a dict of them.
            before = values.get(root)
            values[root] = {**(before if isinstance(before, dict) else {}), rest: value}
            return None
        if key not in schema():
            return unknown_setting(key)
        *parents, last = key.split(".")
        for part in parents:
            values = values[part]
        values[last] = value
        return None

    def _set_object(self, setting: Setting, key: str, value: object, objects: Flat) -> str | None:
        """Set the name of an object, or one of its arguments. Returns what is wrong, or None."""
        values, root = self.settings.values, setting.key
        if key.removesuffix("._target_") == root:
            values[root] = {"_target_": value} if key != root else value
            _forget(objects, root)
            return None
        _forget(objects, key)
        path = key.split(".")[1:]
        if isinstance(values.get(root), list):
            if (at := _item_named(values[root], path[0])) is None or len(path) < 2:
                return f"`{key}`: {_in_list(root, values[root], path)}"
            values[root] = list(values[root])
            item = values[root][at]
            node = dict(item) if isinstance(item, dict) else {"_target_": item}
            values[root][at], path = node, path[1:]
        else:
            node = values[root] = dict(values.get(root) or {})
            if setting.kind == "names" and len(path) > 1 and path[0] in _callings(node):
                # `strategy.er.capacity` with `strategy=er`, `callbacks.Stop.after` with `mine.py:Stop`.
                path = path[1:]
            if root == "optim" and path[0] == "groups" and len(path) > 3:
                path = ["groups", ".".join(path[1:-1]), path[-1]]  # `*.bias`, `body.0`.
        # Copied on the way down: lower layers' dicts belong to their presets, or to the user.
        for part in path[:-1]:
            node[part] = dict(node.get(part) or {})
            node = node[part]
        node[path[-1]] = value
        return None

    def _drop_other_spelling(
        self, key: str, value: object, layer: Flat, objects: Flat
    ) -> str | None:
        """`lr` replaces a lower layer's `optim.lr`, and vice versa.

        Returns:
            What is wrong if one layer sets both, to different values; else None.
        """
        values = self.settings.values
        for shorthand, long in SHORTHANDS.items():
            owner, argument = long.split(".")
            if key == shorthand and long not in layer:
                _forget(objects, long)
                if isinstance(values.get(owner), dict):
                    values[owner] = {k: v for k, v in values[owner].items() if k != argument}
            elif key == long and shorthand not in layer:
                values[shorthand] = None
            elif key == long and layer[shorthand] != value:
                both = f"`{shorthand}={layer[shorthand]}` and `{long}={value}`"
                return f"{both} disagree. Set only one of them."
        return None


def _at(values: object, key: str) -> Any:
    """The value of a dotted key, or None."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _names_in(items: list[Any]) -> list[str]:
    return [str(split_target(item)[0]) for item in items]


def _callings(node: dict[str, Any]) -> tuple[str, ...]:
    """The name of an item, and its last part."""
    name = str(node.get("_target_"))
    return name, re.split(r"[.:]", name)[-1]


def _item_named(items: list[Any], name: str) -> int | None:
    """The index of the item of this name; its last part is enough where that is unique."""
    names = _names_in(items)
    if name not in names:
        names = [re.split(r"[.:]", known)[-1] for known in names]
    return names.index(name) if names.count(name) == 1 else None


def _in_list(root: str, items: list[Any], path: list[str]) -> str:
    """The message for an argument that fits none of a list's names, or several."""
    names = [re.split(r"[.:]", known)[-1] for known in _names_in(items)]
    if len(path) > 1 and (several := names.count(path[0])) > 1:
        return (
            f"`{root}` lists {several} of that name. Give each its own arguments: "
            f"{root}=[{{_target_: {path[0]}, {path[-1]}: ...}}, ...]."
        )
    return f"`{root}` is a list here. Say whose argument it is: {root}.{names[0]}.{path[-1]}=..."


def _forget(found: dict[str, Any], key: str) -> None:
    for stale in [name for name in found if name == key or name.startswith(f"{key}.")]:
        del found[stale]
