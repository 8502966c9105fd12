"""Compares a checkpoint's settings with those of the run that continues it.

What may change is written beside each setting in config.yaml: `fixed` settings only where `override` names
them, `kept` ones and those of the `sequence` never, those for the `start` without effect, `incidental` ones
freely, and all others if the run says so.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...replay import ConfigError
from ..settings.dotted import split_target
from ..settings.plan import Plan
from ..settings.schema import PARTS, schema

DATA = ("dataset", "test_dataset", "env", "offline")
"""Settings that say where the data comes from: where its fingerprint is the same, they may differ."""

MODULES = ("model", *PARTS)
"""Settings that the weights show to have changed, which says more."""

_ABSENT = object()


@dataclass(frozen=True)
class Change:
    """A setting, or an argument of what it names, that differs from the checkpoint's.

    Attributes:
        key: Dotted: `lr`, `model.hidden`.
        was, wanted: Its values in the checkpoint and in this run; None: the default.
        rule: Of "fixed", "kept", "start" and "said", what config.yaml says of it.
    """

    key: str
    was: object
    wanted: object
    rule: str

    @property
    def root(self) -> str:
        """The setting itself."""
        return self.key.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.key}: {self.was} -> {self.wanted}"


class Changes:
    """All that differs between a checkpoint's settings and those of the run that continues it.

    Args:
        before: The checkpoint's settings, by name.
        plan: That of this run.
        same_data: Whether the data is known to be what the run learnt from, wherever it is read from.
    """

    def __init__(self, before: Mapping[str, Any], plan: Plan, *, same_data: bool = False):
        self.override = frozenset(plan.override or ())
        self.found = [
            change
            for change in _differences(before, plan)
            if not (same_data and change.root in DATA and change.rule == "fixed")
        ]

    @property
    def allows_data(self) -> bool:
        """Whether the user accepts that the data is something else."""
        return not self.override.isdisjoint({"data", *DATA})

    def __iter__(self) -> Iterator[Change]:
        """What is different, and allowed to be."""
        return (change for change in self.found if change.rule != "start")

    @property
    def roots(self) -> frozenset[str]:
        """The settings that differ."""
        return frozenset(change.root for change in self.found)

    @property
    def without_effect(self) -> list[Change]:
        """Settings for the start of a run, which are those of the checkpoint for good."""
        return [change for change in self.found if change.rule == "start"]

    @property
    def needless(self) -> list[str]:
        """Names in `override` of settings that are the same."""
        known = {name for change in self.found for name in (change.key, change.root)}
        return sorted(self.override - known - {"data", "csv", *DATA})

    @property
    def refused(self) -> list[Change]:
        """The changes that nobody has allowed."""
        return [
            change
            for change in self.found
            if change.rule == "kept" or (change.rule == "fixed" and not self._allowed(change))
        ]

    def _allowed(self, change: Change) -> bool:
        names = {change.key, change.root}
        if change.root in DATA:
            names.add("data")
        return not self.override.isdisjoint(names)


def refusal(changes: Sequence[Change], data: Sequence[str]) -> ConfigError:
    """The error for changes and for other data.

    Args:
        changes: Those that nobody has allowed.
        data: What is different about the data, in words.
    """
    kept = [change.key for change in changes if change.rule == "kept"]
    # `data` stands for the settings that say where it comes from.
    names = [c.key for c in changes if not (data and c.root in DATA)]
    lines = [*map(str, changes), *(f"data: {words}" for words in data)]
    what = "This would not continue the run in the checkpoint:"
    text = "\n".join((what, *(f"  {line}" for line in lines)))
    if kept:
        advice = (
            f"{', '.join(f'`{key}`' for key in kept)} cannot change when a run is resumed. Set "
            f"{'it' if len(kept) == 1 else 'them'} as before, or another path or experiment for a new run."
        )
    else:
        words = [*names, *(["data"] if data else [])]
        advice = (
            "Resume with the same settings and data, set another path or experiment for a new run, or, to "
            f"continue in spite of it, add override=[{','.join(words)}]."
        )
    return ConfigError(f"{text}\n{advice}")


def _differences(before: Mapping[str, Any], plan: Plan) -> Iterator[Change]:
    elsewhere = "environments" if plan.env is None else "data"
    for key, setting in schema().items():
        root, _, part = key.partition(".")
        if "incidental" in setting.counts or elsewhere in setting.counts:
            continue
        was, wanted = (_part(values.get(root, _ABSENT), part) for values in (before, plan.values))
        # The version that wrote the checkpoint did not know the setting: it had its default.
        if was is _ABSENT and root not in plan.given:
            continue
        was = None if was is _ABSENT else was
        rule = _rule(setting.counts)
        if not setting.names_object:
            if was != wanted:
                yield Change(key, was, wanted, rule)
            continue
        yield from _of_object(key, was, wanted, rule, _defaults_of(plan, key))


def _rule(counts: Collection[str]) -> str:
    if "sequence" in counts:
        return "kept"
    return next((rule for rule in ("fixed", "kept", "start") if rule in counts), "said")


def _part(value: object, part: str) -> Any:
    """A sub-key's value; the value itself if `part` is empty."""
    if value is _ABSENT or not part:
        return value
    return value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT


def _of_object(
    key: str, was: object, wanted: object, rule: str, default: Callable[[str], object]
) -> Iterator[Change]:
    """The changes of what a setting names, and of its arguments.

    Args:
        default: The default of an argument, as its constructor has it; None: it is not known.
    """
    if isinstance(was, list) or isinstance(wanted, list):
        items = [value if isinstance(value, list) else [value] for value in (was, wanted)]
        if [_comparable(item) for item in items[0]] != [_comparable(item) for item in items[1]]:
            yield Change(key, was, wanted, rule)
        return
    (before, had), (now, has) = split_target(was), split_target(wanted)
    if _last(before) != _last(now):
        yield Change(key, before, now, rule)
        return
    for name in {**had, **has}:
        one, other = (args[name] if name in args else default(name) for args in (had, has))
        if one != other:
            yield Change(f"{key}.{name}", one, other, rule)


def _comparable(item: object) -> tuple[str, dict[str, Any]]:
    target, arguments = split_target(item)
    return _last(target), arguments


def _last(name: object) -> str:
    """What a class or a folder is called, wherever it comes from."""
    return re.split(r"[.:/\\]", str(name).rstrip("/\\"))[-1]


def _defaults_of(plan: Plan, key: str) -> Callable[[str], object]:
    """The defaults of the arguments of what a setting names."""
    named = plan.parts.get(key) if key in PARTS else vars(plan)[key]
    if named is None or isinstance(named, tuple):
        return lambda _: None
    try:
        parameters = inspect.signature(named.target).parameters
    except (TypeError, ValueError):  # Built in, or not called.
        return lambda _: None

    def default(name: str) -> object:
        known = parameters.get(name)
        return None if known is None or known.default is known.empty else known.default

    return default
