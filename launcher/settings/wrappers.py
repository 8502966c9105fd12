"""What `env_wrappers=` names: each wrapper with its arguments, the innermost first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...replay.errors import ConfigError
from .dotted import split_target
from .lookup import named_object, with_classes
from .named import Named
from .named_by import find
from .object_names import canonical_name, name_of
from .settings import Settings

_KEY = "env_wrappers"


def named_wrappers(settings: Settings) -> Iterator[Named]:
    """Each wrapper; the settings then hold canonical names, and text in place of other objects."""
    written, live = settings.values[_KEY], settings.live.get(_KEY)
    if not isinstance(written, list):
        yield named_object(settings, _KEY)
        _make_plain(settings.values[_KEY])
        return
    given = list(live) if isinstance(live, (list, tuple)) else [None] * len(written)
    recorded: list[Any] = []
    for item, value in zip(written, given, strict=True):
        target, arguments = split_target(item)
        if isinstance(value, dict):  # It contains objects, which the plain values cannot hold.
            target, objects = split_target(value)
            # On a second call they are recorded by name, which is not a change by the user.
            names = _make_plain(dict(objects))
            said = {k: v for k, v in arguments.items() if k not in names or v != names[k]}
            arguments = {**objects, **said}
        elif value is not None and not isinstance(value, str):
            target = value
        if isinstance(target, dict) or target is None:
            raise ConfigError(
                f"`{_KEY}` lists {value or item!r:.60}, which has arguments but no name: "
                '{"_target_": NAME, ...}.'
            )
        name = target if isinstance(target, str) else name_of(target)
        if isinstance(target, str):
            target = find(settings, target, _KEY, f"{_KEY}._target_")
            name = canonical_name(name, target)
        yield Named(_KEY, target, with_classes(settings, arguments, _KEY), name)
        recorded.append(_make_plain({"_target_": name, **arguments}) if arguments else name)
    settings.values[_KEY] = recorded


def _make_plain(node: dict[str, Any]) -> dict[str, Any]:
    """Replace arguments that `config.yaml` cannot hold by their names, in place."""
    for key, value in node.items():
        if not isinstance(value, (str, int, float, bool, list, dict, type(None))):
            node[key] = value.item() if isinstance(value, np.generic) else name_of(value)
    return node
