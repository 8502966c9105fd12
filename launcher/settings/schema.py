"""Every setting, as `config.yaml` and its comments describe it. Imports neither torch nor Hydra."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from .plain_yaml import Loader

ALIASES = {"agent": "model"}
# A shorthand and the sub-key it stands for; the one given in the higher layer wins.
SHORTHANDS = {"lr": "optim.lr", "weight_decay": "optim.weight_decay"}


@dataclass(frozen=True)
class Setting:
    """One line of `config.yaml`: `kind` is the text before `|`, `meaning` the text after."""

    key: str
    default: str
    kind: str
    meaning: str
    section: str

    @property
    def names_object(self) -> bool:
        return self.kind in ("name", "names")


@cache
def schema() -> dict[str, Setting]:
    """Every setting by dotted key, read from `config.yaml` and its comments."""
    settings, section, parent = {}, "", ""
    line_of = re.compile(r"^( *)(\w+):\s*(.*?)\s*#\s*([^|]+?)\s*\|\s*(.+)$")
    for line in _yaml_text().splitlines():
        if re.match(r"^# [A-Z]", line):
            section = line[2:]
        elif nested := re.match(r"^(\w+):\s*$", line):
            parent = nested[1]
        elif match := line_of.match(line):
            indent, key, default, kind, meaning = match.groups()
            key = f"{parent}.{key}" if indent else key
            if not indent:
                parent = key
            if kind == "name" and not default:
                default = "AdamW"
            settings[key] = Setting(key, default, kind, meaning, section)
    return settings


def defaults() -> dict[str, Any]:
    """What `config.yaml` says, without what it says to Hydra."""
    values: dict[str, Any] = yaml.load(_yaml_text(), Loader=Loader)
    return {key: value for key, value in values.items() if key not in ("defaults", "hydra")}


def _yaml_text() -> str:
    return (files("antelope.hyperparams") / "config.yaml").read_text()
