"""Decides how data sets form a sequence of tasks, and what an output then means."""

from __future__ import annotations

from typing import Any

from ..replay import ConfigError
from .arrays import Arrays
from .labels import IN_WORDS
from .scenarios import SCENARIOS


def sequence_kind(train: list[Arrays], asked: dict[str, Any]) -> str:
    """How the sequence is formed: `one` (a single data set), `list`, `altered` or `split`.

    Raises:
        ConfigError: For settings that do not apply to this kind.
    """
    first, keys = train[0], " and ".join(f"{key}=" for key in asked)
    if len(train) > 1:
        if altered := [arrays.name for arrays in train if arrays.alterations is not None]:
            raise ConfigError(
                f"{altered[0]} is itself a sequence of tasks and cannot be part of another. Give it alone."
            )
        if asked:
            raise ConfigError(
                f"{keys} splits a single data set; a list of data sets is already a sequence."
            )
        return "list"
    if first.alterations is not None:
        if first.kind == "pixels":
            raise ConfigError(
                f"{first.name} alters its images for each task, but not the masks that belong to them. Give "
                "a list of data sets, one for each task, with images and masks altered alike."
            )
        if wrong := [key for key in asked if key != "tasks"]:
            raise ConfigError(
                f"{wrong[0]}= splits classes; every task of {first.name} has all of them. Leave it out "
                "(tasks= sets the number of tasks)."
            )
        return "altered"
    if not asked:
        return "one"
    if not first.discrete:
        key, value = next(iter(asked.items()))
        raise ConfigError(
            f"{key}={value} splits classes, and the targets of {first.name} are {IN_WORDS[first.kind]}."
        )
    if list(asked) == ["class_order"]:
        raise ConfigError(
            "class_order= orders the classes of a split. Say how many tasks there are, with tasks= or "
            "classes_per_task=."
        )
    return "split"


def scenario_of(given: str | None, kind: str, train: list[Arrays], *, grows: bool) -> str:
    """The scenario asked for, or the usual one for this kind of sequence.

    Raises:
        ConfigError: If the sequence cannot have the scenario asked for.
    """
    first = train[0]
    if given is None:
        return "class" if kind in ("one", "split") and first.discrete else "domain"
    if given not in SCENARIOS:
        raise ConfigError(f"scenario={given} is unknown. Choose one of {', '.join(SCENARIOS)}.")
    if kind == "one" and not grows:
        raise ConfigError(
            f"scenario={given} needs a sequence of tasks; {first.name} is a single one. Give tasks= or "
            "classes_per_task= to split its classes."
        )
    if given == "domain":
        return given
    if not first.discrete:
        raise ConfigError(
            f"scenario={given} needs classes, but the targets of {first.name} are {IN_WORDS[first.kind]}. "
            "Leave it out, or set scenario=domain."
        )
    if kind == "altered":
        raise ConfigError(
            f"scenario={given} needs tasks with disjoint classes; all tasks of {first.name} have the same "
            "rows and labels. Leave it out, or set scenario=domain."
        )
    return given
