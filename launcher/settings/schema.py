"""Every setting, as `config.yaml` and its comments describe it. Imports neither torch nor Hydra."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from .plain_yaml import load

ALIASES = {"agent": "model"}
# A shorthand and the sub-key it stands for; the one given in the higher layer wins.
SHORTHANDS = {"lr": "optim.lr", "weight_decay": "optim.weight_decay"}
PARTS = ("encoder", "policy", "critic", "generator", "discriminator")
"""Settings that name a module for a part of an agent."""


@dataclass(frozen=True)
class Setting:
    """One line of `config.yaml`: `default  # kind [counts] | meaning`.

    Attributes:
        section: The heading that the line is under.
        counts: Kinds of run in which the setting counts; see `config.yaml`. Empty: all.
    """

    key: str
    default: str
    kind: str
    meaning: str
    section: str
    counts: frozenset[str]

    @property
    def names_object(self) -> bool:
        """Whether it names a class or function, whose arguments are its sub-keys."""
        return self.kind in ("name", "names")


@cache
def schema() -> dict[str, Setting]:
    """Every setting by dotted key, read from `config.yaml` and its comments."""
    settings, section, parent = {}, "", ""
    line_of = re.compile(r"^( *)(\w+):\s*(.*?)\s*#\s*([^|[]+?)\s*(?:\[([^|]*)\]\s*)?\|\s*(.+)$")
    for line in _yaml_text().splitlines():
        if re.match(r"^# [A-Z]", line):
            section = line[2:]
        elif nested := re.match(r"^(\w+):\s*$", line):
            parent = nested[1]
        elif match := line_of.match(line):
            indent, key, default, kind, counts, meaning = match.groups()
            key = f"{parent}.{key}" if indent else key
            if not indent:
                parent = key
            if kind == "name" and not default:
                default = "AdamW"
            settings[key] = Setting(
                key, default, kind, meaning, section, frozenset((counts or "").split(", ")) - {""}
            )
    return settings


def that_count(*places: str) -> frozenset[str]:
    """The settings that count in any of these places: `environments`, `optimiser`, ...

    Returns:
        Their names without sub-keys: `replay` stands for `replay.storage`.
    """
    return frozenset(
        key.partition(".")[0] for key, setting in schema().items() if setting.counts & {*places}
    )


def defaults() -> dict[str, Any]:
    """The values of `config.yaml`, without Hydra's own entries."""
    values: dict[str, Any] = load(_yaml_text())
    return {key: value for key, value in values.items() if key not in ("defaults", "hydra")}


def _yaml_text() -> str:
    return (files("antelope.hyperparams") / "config.yaml").read_text()
