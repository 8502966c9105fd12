"""Presets: settings in a YAML file, ours by name (`task=classify/mnist`) or the user's by path.

A file is read into the layers that `config.compose` lays over the defaults, as it lays words, so that
a mistake in a file is found as one in a word is. Scalars mean what they mean as words: `1e-3` is a
number, `off` and `1:30` are text, which YAML 1.1 would read otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from ...replay.errors import ConfigError
from ...replay.suggestions import did_you_mean
from .plain_yaml import Loader, check_bounds
from .schema import schema

PACKAGE_LINE = "# @package _global_"
_ENDS = (".yaml", ".yml")
_MOST_DIGITS = 300
_MOST_FILES = 10  # Listed in an error.


@dataclass
class Layer:
    """The settings of one file.

    Attributes:
        values: In the file's order: dotted key, value.
        places: Where each key is set: `mine.yaml, line 3`.
    """

    label: str
    values: list[tuple[str, Any]] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)


def presets() -> dict[str, str]:
    """The presets of `task=`, each with the first comment of its file."""
    root = files("antelope.hyperparams") / "task"
    found = {}
    for path in sorted(Path(str(root)).rglob("*.yaml")):
        name = path.relative_to(str(root)).with_suffix("").as_posix()
        comments = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
        found[name] = next((c for c in comments if not c.startswith("@package")), "")
    return found


def layers(name: object) -> list[Layer]:
    """A preset after those it builds on, so that the last one wins; empty for None.

    Raises:
        ConfigError: If it does not exist or is not a valid preset, with every mistake in it.
    """
    if name is None:
        return []
    if not isinstance(name, str) or not name:
        raise ConfigError(
            f"task={name!r}: expected one preset, by name or by its file. `ml tasks` lists them. A "
            "preset may build on others: `defaults: [NAME, _self_]`."
        )
    return _layers(*find(name, Path()), above=())


def find(name: str, folder: Path) -> tuple[Path, str]:
    """The file that a preset's name means, and what to call it.

    Args:
        folder: Where relative paths start: the working directory, or the folder of the preset that names it.

    Raises:
        ConfigError: If there is none (with the nearest names), or both ours and the user's.
    """
    ours = _root() / f"{name}.yaml" if name in presets() else None
    path = folder / Path(name).expanduser()
    beside = path.with_name(path.name + _ENDS[0]), path.with_name(path.name + _ENDS[1])
    choices = [p for p in ((path,) if path.suffix in _ENDS else beside) if p.is_file()]
    if ours is not None and choices and not choices[0].samefile(ours):
        raise ConfigError(
            f"task={name} is a preset of Antelope's and also the file {choices[0]}. Write "
            f"task=./{choices[0].as_posix()} for the file; to use Antelope's, rename the file."
        )
    if ours is not None:
        return ours, f"task={name}"
    if len(choices) > 1:
        raise ConfigError(f"task={name}: there are {' and '.join(map(str, choices))}. Name one.")
    if choices:
        return choices[0], str(choices[0])
    raise ConfigError(_miss(name, path))


def of_the_user() -> dict[str, str]:
    """The presets below the working directory, each with the first comment of its file.

    A file counts by its package line; looked for here and one folder down.
    """
    found = {}
    for path in sorted(p for end in _ENDS for at in ("*", "*/*") for p in Path().glob(at + end)):
        if any(part.startswith(".") for part in path.parts):
            continue
        try:
            if not path.is_file():
                continue  # Reading a FIFO would wait for ever.
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError):
            continue
        if _has_package_line(text):
            comments = [line[2:] for line in text.splitlines() if line.startswith("# ")]
            found[path.as_posix()] = next((c for c in comments if not c.startswith("@")), "")
    return found


def _layers(path: Path, label: str, *, above: tuple[Path, ...]) -> list[Layer]:
    if path.resolve() in above:
        raise ConfigError(f"{label} builds on itself, through {above[-1]}.")
    layer, bases = _read(path, label)
    found: list[Layer] = []
    own_place: int | None = None  # Last, unless `_self_` says otherwise.
    for base, place in bases:
        if base == "_self_":
            own_place = len(found)
            continue
        try:
            at = find(base, path.parent)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None
        found += _layers(*at, above=(*above, path.resolve()))
    found.insert(len(found) if own_place is None else own_place, layer)
    return found


def _read(path: Path, label: str) -> tuple[Layer, list[tuple[str, str]]]:
    """A file's own settings, and the names of `defaults:` with the place of each."""
    try:  # With or without the byte-order mark that editors on Windows write.
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{label} cannot be read: {error}.") from error
    try:
        check_bounds(text, Loader)
        root = yaml.compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}" if mark is not None else ""
        tab = (
            " Indent with spaces: YAML does not allow tabs." if "\\t" in str(error.problem) else ""
        )
        raise ConfigError(
            f"{label}{line} is not YAML, or the line before it: {error.problem}.{tab}"
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{label} is not a preset: {error}.") from None
    mistakes = []
    if not _has_package_line(text):
        mistakes.append(f"{label} is not a preset: its first line must be `{PACKAGE_LINE}`.")
    layer, bases = Layer(label), []
    if root is None:
        mistakes.append(f"{label} sets nothing. Write a setting per line: `lr: 1e-3`.")
    elif not isinstance(root, yaml.MappingNode):
        mistakes.append(f"{label} holds {_kind(root)}. Write a setting per line: `lr: 1e-3`.")
    else:
        for key, node, place in _items(root, label, mistakes):
            if key == "defaults":
                bases = _bases(node, label, mistakes)
            elif key == "task":
                mistakes.append(
                    f"{place}: to build on another preset, write `defaults: [NAME, _self_]`."
                )
            else:
                value = _value(node, label, mistakes, key=key)
                layer.values.append((key, value))
                _note_places(layer, key, node)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return layer, bases


def _items(
    node: yaml.MappingNode, label: str, mistakes: list[str]
) -> Iterator[tuple[str, yaml.Node, str]]:
    """Key, value and place of each line of a mapping."""
    lines: dict[str, int] = {}
    for key_node, value in node.value:
        place = _place(label, key_node)
        if not isinstance(key_node, yaml.ScalarNode):
            mistakes.append(f"{place}: a key is a word, not {_kind(key_node)}.")
            continue
        key = key_node.value
        if key in lines:
            mistakes.append(f"{place}: `{key}` is given twice, first on line {lines[key]}.")
            continue
        lines[key] = key_node.start_mark.line + 1
        yield key, value, place


def _value(
    node: yaml.Node, label: str, mistakes: list[str], *, key: str = "", depth: int = 0
) -> Any:
    """A node as plain Python. As in console words, a number for a text setting stays as written."""
    if depth > 20:  # Deeper than any setting; an alias may also contain itself.
        mistakes.append(f"{_place(label, node)}: `{key}` is nested too deeply.")
        return None
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if kind not in ("map", "seq", "str", "int", "float", "bool", "null"):
        mistakes.append(
            f"{_place(label, node)}: `{node.tag}` is not allowed in a preset. Write plain values."
        )
        return None
    if isinstance(node, yaml.MappingNode):
        items = _items(node, label, mistakes)
        return {
            name: _value(v, label, mistakes, key=f"{key}.{name}", depth=depth + 1)
            for name, v, _ in items
        }
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, label, mistakes, key=key, depth=depth + 1) for item in node.value]
    text = node.value
    if kind in ("int", "float"):
        setting = schema().get(key)
        if setting is not None and setting.kind == "text":
            return text
        if kind == "int" and len(text) > _MOST_DIGITS:
            mistakes.append(f"{_place(label, node)}: `{key}` has more than {_MOST_DIGITS} digits.")
            return None
        if kind == "int":
            return int(text)
        return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
    if kind == "bool":
        return text.lower() == "true"
    if kind == "null":
        return None
    if kind != "str":
        mistakes.append(
            f"{_place(label, node)}: `{node.tag}` is not allowed in a preset. Write plain values."
        )
    return text


def _bases(node: yaml.Node, label: str, mistakes: list[str]) -> list[tuple[str, str]]:
    items = node.value if isinstance(node, yaml.SequenceNode) else [node]
    found = []
    for item in items:
        if isinstance(item, yaml.ScalarNode) and item.value:
            found.append((item.value, _place(label, item)))
        else:
            mistakes.append(
                f"{_place(label, item)}: `defaults` lists the names of other presets, as in "
                "`defaults: [classify/mnist, _self_]`."
            )
    return found


def _note_places(layer: Layer, key: str, node: yaml.Node, depth: int = 0) -> None:
    layer.places[key] = _place(layer.label, node)
    if isinstance(node, yaml.MappingNode) and depth < 20:
        for key_node, value in node.value:
            name = f"{key}.{key_node.value}"
            _note_places(layer, name, value, depth + 1)
            layer.places[name] = _place(layer.label, key_node)


def _place(label: str, node: yaml.Node) -> str:
    return f"{label}, line {node.start_mark.line + 1}"


def _kind(node: yaml.Node) -> str:
    return {yaml.SequenceNode: "a list", yaml.MappingNode: "a mapping"}.get(type(node), "one value")


def _has_package_line(text: str) -> bool:
    """Whether it is among the comments that a file begins with."""
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            return False
        if re.fullmatch(r"#\s*@package\s+_global_", line.strip()):
            return True
    return False


def _root() -> Path:
    return Path(str(files("antelope.hyperparams") / "task"))


def _miss(name: str, path: Path) -> str:
    """The message for an unknown preset, with ours and the files that exist."""
    if path.is_dir():
        inside = [p.as_posix() for end in _ENDS for p in sorted(path.glob(f"*{end}"))]
        return (
            f"task={name} is a folder. Name a file in it: {', '.join(inside) or 'it holds none'}."
        )
    there = {p.as_posix() for end in _ENDS for p in path.parent.glob(f"*{end}")} | {*of_the_user()}
    bare = [p.rpartition(".")[0] for p in there] if path.suffix not in _ENDS else []
    near = did_you_mean(name, [*presets(), *bare, *there])
    if (named := name.removesuffix(path.suffix)) in presets():
        near = f" Did you mean `{named}`?"
    shown = sorted(there)[:_MOST_FILES] + (["..."] if len(there) > _MOST_FILES else [])
    files_here = f" Files here: {', '.join(shown)}." if there else ""
    if path.suffix in _ENDS:
        return f"No preset `{name}`: there is no file {path.absolute()}.{near}{files_here}"
    return f"No preset `{name}`.{near}{files_here} Presets: {', '.join(presets())}."
