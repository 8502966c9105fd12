"""YAML whose plain scalars mean what they mean as console words; and the same written.

`1e-3` is a number here, and text in YAML 1.1; `off`, `010`, `1:30` and `2024-01-01` are text here, and
false, 8, 90 and a date there.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml


class Loader(yaml.SafeLoader):
    """Safe: no tag makes an object."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


# Libyaml reads ten times as fast, but its errors do not quote the line: for files of our own.
class _FastLoader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    yaml_implicit_resolvers = Loader.yaml_implicit_resolvers


_MOST_CHARACTERS, _MOST_VALUES, _DEEPEST = 1_000_000, 100_000, 30
_DIGITS = r"[0-9](?:_?[0-9])*"
for _tag, _pattern, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("null", "~|null|Null|NULL|", [*"~nN", ""]),
    ("int", "[-+]?(?:0|[1-9](?:_?[0-9])*)", [*"-+0123456789"]),
    (
        "float",
        rf"[-+]?(?:{_DIGITS}\.(?:{_DIGITS})?|\.{_DIGITS}|{_DIGITS}(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.?(?:inf|Inf|INF)|\.?(?:nan|NaN|NAN)",
        [*"-+.0123456789iInN"],
    ),
):
    Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )


def load(text: str) -> Any:
    """What a YAML file of our own says, as plain values."""
    return yaml.load(text, Loader=_FastLoader)


def check_bounds(text: str, loader: Any = _FastLoader) -> None:
    """Refuse YAML that is larger, once read, than the settings of any run, before it is read.

    Args:
        loader: Whose errors it raises for text that is not YAML.

    Raises:
        ValueError: For more than a million characters, 100,000 values or 30 levels; what an alias
            repeats counts each time.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"it holds more than {_MOST_CHARACTERS:,} characters")
    open_anchors: list[tuple[str | None, int]] = []
    sizes: dict[str, int] = {}
    count = 0
    for event in yaml.parse(text, Loader=loader):
        anchor = event.anchor if isinstance(event, yaml.NodeEvent) else None
        if isinstance(event, yaml.CollectionEndEvent):
            name, start = open_anchors.pop()
            if name is not None:
                sizes[name] = count - start
            continue
        if isinstance(event, yaml.AliasEvent):
            if any(name == anchor for name, _ in open_anchors):
                raise ValueError(f"the alias *{anchor} repeats itself, so that it never ends")
            count += sizes.get(str(anchor), 1)
        elif isinstance(event, yaml.NodeEvent):
            count += 1
            if isinstance(event, yaml.CollectionStartEvent):
                open_anchors.append((anchor, count - 1))
            elif anchor is not None:
                sizes[anchor] = 1
        if count > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES:,} values")
        if len(open_anchors) > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def load_foreign(text: str) -> Any:
    """What a YAML file of anybody's says, as plain values.

    Raises:
        ValueError: If it is not YAML, holds tags that make objects, or is too large: see `check_bounds`.
    """
    try:
        check_bounds(text)
        return load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def dump(values: dict[str, Any]) -> str:
    """Plain values as `OmegaConf.to_yaml` writes them, without importing it where that is possible."""
    if (plain := plain_copy(values)) is not None:
        return yaml.dump(
            plain, default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=_Dumper
        )
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(values))


class _Dumper(yaml.Dumper):
    """Quotes text that a YAML 1.1 reader would take for something else."""


def _represent_text(dumper: yaml.Dumper, text: str) -> yaml.ScalarNode:
    style = "'" if text in _YAML_1_BOOLS or _is_number(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_YAML_1_BOOLS = {
    said
    for word in ("y", "yes", "n", "no", "true", "false", "on", "off")
    for said in (word, word.capitalize(), word.upper())
}


def _is_number(text: str) -> bool:
    try:
        float(text)  # Every text that int() reads, float() reads, too.
        return True
    except ValueError:
        return False


class _NotPlain(Exception):
    pass


def plain_copy(values: dict[str, Any]) -> dict[str, Any] | None:
    """A deep copy of values that need no OmegaConf: without `${...}`, and of YAML's own types only.

    Returns:
        The copy; None if there are any other values.
    """
    try:
        copied: dict[str, Any] = _copied(values)
        return copied
    except _NotPlain:
        return None


def _copied(value: Any) -> Any:
    # Not isinstance: OmegaConf converts subclasses, such as enumerations, itself.
    kind = type(value)
    if kind is dict and all(type(key) is str for key in value):
        return {key: _copied(item) for key, item in value.items()}
    if kind is list:
        return [_copied(item) for item in value]
    if kind in (bool, int, float, type(None)) or (kind is str and "${" not in value):
        return value
    raise _NotPlain
