"""Compares a checkpoint's settings with those of the run that continues it.

What may change is written beside each setting in config.yaml: `fixed` settings only where `override` names
them, `kept` ones and those of the `sequence` never, those for the `start` without effect, `incidental` ones
freely, and all others if the run says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...envs.fingerprint import differences
from ...envs.world import World
from ...replay import CheckpointError, ConfigError, Replay, Transitions
from ..settings.dotted import split_target
from ..settings.plain_yaml import dump
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

    def refused(self, *, but: Collection[str] = ()) -> list[Change]:
        """The changes that nobody has allowed.

        Args:
            but: Settings to leave out.
        """
        return [
            change
            for change in self.found
            if change.root not in but
            and (change.rule == "kept" or (change.rule == "fixed" and not self._allowed(change)))
        ]

    def _allowed(self, change: Change) -> bool:
        names = {change.key, change.root}
        if change.root in DATA:
            names.add("data")
        return not self.override.isdisjoint(names)


def refusal(changes: Sequence[Change], data: Sequence[str]) -> ConfigError | None:
    """The error for changes and for other data; None if there are none.

    Args:
        changes: What `Changes.refused` returned.
        data: What is different about the data, in words.
    """
    if not (changes or data):
        return None
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


def other_data(state: Mapping[str, Any], world: World, replay: Replay) -> list[str] | None:
    """What is different about the data since the checkpoint, in words; None: that is not known.

    Args:
        state: The whole checkpoint.

    Raises:
        CheckpointError: If what the checkpoint says of its data was not written by a run.
    """
    if (known := state.get("data")) is None:  # Before 0.5.0.
        return None
    try:
        words = differences(known, world.fingerprint)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"What the checkpoint says of its data was not written by a run: {error!r}."
        ) from error
    if isinstance(replay.storage, Transitions):
        origin = (state["replay"].get("transitions") or {}).get("origin")
        if origin != replay.storage.origin:
            words.append("the transitions of `offline` are other ones")
    return words


def accept_data(state: Mapping[str, Any], replay: Replay) -> dict[str, Any]:
    """The checkpoint's state, as if it came from a run on the saved transitions that this replay holds."""
    if not (replay.offline and isinstance(replay.storage, Transitions)):
        return dict(state)
    return {
        **state,
        "replay": {**state["replay"], "transitions": {"origin": replay.storage.origin}},
    }


def parts_to_restart(before: Mapping[str, Any], plan: Plan) -> tuple[str, ...]:
    """The parts of a learner that cannot load their saved state, since the settings now name another class.

    Returns:
        Of "optimizer" and "scheduler", those that start over.
    """
    was, now = (values.get("optim") or {} for values in (before, plan.values))
    kinds = (was.get("_target_"), now.get("_target_"))
    if kinds[0] != kinds[1] or list(was.get("groups", ())) != list(now.get("groups", ())):
        return ("optimizer", "scheduler")
    schedule = ("scheduler", "lr_decay_epochs")
    changed = any(before.get(key) != plan.values.get(key) for key in schedule)
    return ("scheduler",) if changed else ()


def saved_device(state: Mapping[str, Any]) -> torch.device:
    """The device on which the checkpoint was written."""
    if "device" in state:
        return torch.device(state["device"])
    return torch.device("cuda" if "cuda" in state["random"] else "cpu")  # Before 0.5.0.


def config_text(plan: Plan, earlier: Sequence[Mapping[str, Any]]) -> str:
    """The text of config.yaml: the settings in use, and in comments those that were until a resumption.

    Args:
        earlier: For each resumption with other settings, its `step` and what was `used` until then, by key.
    """
    # They were words of this call only: a later resumption must not repeat them.
    text = dump({**plan.values, "override": None})
    for resumption in earlier:
        text += f"# Until step {resumption['step']}:\n"
        for key, value in resumption["used"].items():
            lines = dump({key: value}).splitlines()
            text += "".join(f"#   {line}\n" for line in lines)
    return text


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
    import inspect

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
