"""Console words and Python keywords become one plain configuration.

The only file that talks to Hydra: its grammar parses the words, its launchers and sweepers run `-m`.
Layers, presets included, are merged here, because Hydra refuses `optim=SGD optim.lr=1e-2`, answers an
unknown key with advice that would accept the typo, and takes any key in a preset.

Precedence: console words over code over preset over defaults. Within a layer the order of words
never matters: a name (`optim=SGD`) goes first and drops what lower layers said of the object it
replaces; sub-keys (`optim.lr=1e-2`) follow.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...envs.forms import form
from ...replay.errors import ConfigError

ALIASES = {"agent": "model"}
# A shorthand and the sub-key it stands for; the one given in the higher layer wins.
SHORTHANDS = {"lr": "optim.lr", "weight_decay": "optim.weight_decay"}
_PRESET = "preset_"  # What Hydra, in a sweep, knows `task` as.
_BOOLS = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}
_BOOLS |= {"1": True, "0": False}
_COMPOSE_LOCK = threading.RLock()


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


@dataclass
class Settings:
    """A composed configuration.

    Attributes:
        values: Plain nested dicts, lists and scalars; what `config.yaml` holds.
        live: Python objects given in code, by dotted key: `{"model": Model}`. In `values` their
            place holds their name.
        given: Keys that words, code or a preset set, for warnings about settings without effect.
        places: Where a preset says what holds, by dotted key: `{"lr": "mine.yaml, line 3"}`.
        preset: What the preset is called: `mine.yaml`, `task=classify/mnist`.
    """

    values: dict[str, Any]
    live: dict[str, Any] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    places: dict[str, str] = field(default_factory=dict)
    preset: str | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["values"][name]
        except KeyError:
            raise AttributeError(name) from None

    def place(self, key: str) -> str:
        """`mine.yaml, line 3: ` for what a preset says of a setting, to begin a message with."""
        while key not in self.places and "." in key:
            key = key.rpartition(".")[0]
        return f"{self.places[key]}: " if key in self.places else ""

    def yaml(self) -> str:
        from omegaconf import OmegaConf

        return OmegaConf.to_yaml(OmegaConf.create(self.values))


def compose(words: Iterable[str], code: Mapping[str, Any]) -> Settings:
    """The settings that console `words` and Python keywords (`code`) ask for.

    Raises:
        ConfigError: With every mistake at once.
    """
    from .presets import layers

    mistakes: list[str] = []
    console = _parse(words, mistakes)
    settings = Settings({})
    plain = _flatten_code(code, settings.live, mistakes)
    values = _defaults()
    preset = console.pop("task", plain.get("task"))
    plain.pop("task", None)
    settings.live.pop("task", None)
    try:
        for layer in layers(preset):
            settings.preset = layer.label
            _merge(values, _flat(layer, mistakes), settings, mistakes, places=layer.places)
    except ConfigError as error:
        mistakes.append(str(error))
    _merge(values, plain, settings, mistakes)
    _merge(values, console, settings, mistakes, covers=settings.live)
    settings.values = _resolve_interpolations(values, settings, mistakes)
    _check_types(settings, mistakes)
    if mistakes:
        from .named import unresolved

        raise ConfigError("\n".join(dict.fromkeys(mistakes + unresolved(settings))))
    return settings


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


def presets() -> dict[str, str]:
    """The presets of `task=`, each with the first comment of its file."""
    root = files("antelope.hyperparams") / "task"
    found = {}
    for path in sorted(Path(str(root)).rglob("*.yaml")):
        name = path.relative_to(str(root)).with_suffix("").as_posix()
        comments = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
        found[name] = next((c for c in comments if not c.startswith("@package")), "")
    return found


def is_bool(text: str) -> bool:
    """Whether a word's value is a truth value."""
    return text.strip("'\"").lower() in _BOOLS


def is_true(text: str) -> bool:
    """Whether a word's value is one of those that mean true."""
    return _BOOLS.get(text.strip("'\"").lower(), False)


def nearest(word: str, names: Iterable[str], *, count: int = 3) -> list[str]:
    """The names most like `word`, best first, whatever their case."""
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), by_lower, n=count, cutoff=0.6)
    return [by_lower[name] for name in close]


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """` Did you mean `x`?`, or nothing when no name is near."""
    close = nearest(word, names)
    return f" Did you mean {' or '.join(f'`{name}`' for name in close)}?" if close else ""


def run_multirun(words: list[str], job: Any) -> None:
    """Hydra's sweepers and launchers over `words`; `job(words, swept)` runs one combination.

    `swept` are the job's words that differ between jobs. Hydra only sees words that force their key
    (`++optim._target_=SGD`), so that it never refuses what our own composition accepts.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from .foreign import without_bare_words

    mistakes: list[str] = []
    forced = [_force(word, mistakes) for word in without_bare_words(words, mistakes)]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    parser = OverridesParser.create()
    parsed = [_parse_word(parser, word) for word in forced]
    constant = {p.get_key_element() for p in parsed if not p.is_sweep_override()}

    parent, failures = os.getpid(), []

    @hydra.main(version_base="1.3", config_path="pkg://antelope.hyperparams", config_name="config")
    def task(_: Any) -> Any:
        words = list(HydraConfig.get().overrides.task)
        names = {word: said(word) if _PRESET in word else word for word in words}
        chosen = list(names.values())
        try:
            return job(chosen, [names[w] for w in words if w.partition("=")[0] not in constant])
        except Exception as error:
            if os.getpid() != parent:
                raise  # In a launcher's own process, which reports it in its own way.
            # The other combinations are run all the same.
            error.add_note(f"In the run {' '.join(said(word) for word in chosen)}.")
            failures.append(error)

    before = sys.argv
    sys.argv = [before[0], "--multirun", *forced]
    try:
        task()
    finally:
        sys.argv = before
    if failures:
        raise failures[0]


def said(word: str) -> str:
    """`optim=SGD` of `++optim._target_=SGD`."""
    return word.lstrip("+").replace("._target_=", "=").replace(f"{_PRESET}=", "task=", 1)


def name_of(value: Any) -> str:
    """How a Python object is named in the configuration, the same for every run of it.

    Classes and functions of a file in the working directory are `file.py:Name`, others
    `module.Name`; for an instance, that of its class.
    """
    import inspect

    if not (inspect.isclass(value) or inspect.isroutine(value)):
        if isinstance(value, (list, tuple)):
            if len(value) > 8 or any(isinstance(item, (bool, int, float, str)) for item in value):
                return f"{type(value).__name__} of {len(value)}"
            return f"[{', '.join(name_of(item) for item in value)}]"
        nested = getattr(value, "is_nested", False)  # Torch's: they have no shape to ask for.
        shape = None if nested else getattr(value, "shape", None)
        suffix = f" {'x'.join(map(str, shape))}" if isinstance(shape, tuple) else ""
        if isinstance(value, functools.partial):
            return f"partial of {name_of(value.func)}"
        return f"instance of {name_of(type(value))}{suffix}"
    module, name = value.__module__ or "", value.__qualname__
    try:
        file = Path(inspect.getsourcefile(value) or "")
    except (TypeError, OSError):  # Built in, or typed into a console or a notebook.
        file = Path()
    if file.suffix == ".py" and file.resolve().parent == Path.cwd():
        return f"{file.name}:{name}"
    return f"{module}.{name}"


def _yaml_text() -> str:
    return (files("antelope.hyperparams") / "config.yaml").read_text()


def _parse(words: Iterable[str], mistakes: list[str]) -> dict[str, Any]:
    """Console words as `{dotted key: value}`, without those for Hydra itself."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from .foreign import without_bare_words

    parser = OverridesParser.create()
    layer: dict[str, Any] = {}
    for_hydra: list[str] = []
    for word in without_bare_words(words, mistakes):
        if not isinstance(word, str):
            mistakes.append(f"ml() takes strings such as 'lr=1e-3' by position, got {word!r}.")
            continue
        try:
            override = _parse_word(parser, word)
            if not (key := override.key_or_group):
                raise HydraException
            if key.startswith(("hydra.", "hydra/")):
                for_hydra.append(word)
                continue
            if override.is_sweep_override():
                mistakes.append(
                    f"`{word}` names several values. Add -m to run each of them, or write a list as "
                    f"{key}=[...]."
                )
                continue
            value = None if override.is_delete() else override.value()
            setting = schema().get(key)
            if setting is not None and setting.kind == "text" and isinstance(value, (int, float)):
                value = word.partition("=")[2].strip()  # `1e-3`, not 0.001.
        except HydraException:
            mistakes.append(
                f"Cannot read `{word}`. Write settings as key=value, and quote a value that holds "
                "spaces, commas or equals signs: 'key=\"a, b\"'."
            )
            continue
        if key == "optim.groups" and isinstance(value, dict) and len(value) == 1:
            # One pattern, as it comes from `optim.groups.*.bias.lr=...`: another word may add to it.
            ((pattern, options),) = value.items()
            given = options.items() if isinstance(options, dict) else [("", options)]
            pairs = [(f"{key}.{pattern}.{name}".removesuffix("."), v) for name, v in given]
        else:
            pairs = _flatten(key, value)
        for path, plain in pairs:
            if path in layer and layer[path] != plain:
                name = path.removesuffix("._target_")
                mistakes.append(f"`{name}` is given twice: {layer[path]} and {plain}.")
            layer[path] = plain
    if for_hydra:
        _check_hydra_words(for_hydra, mistakes)
    return layer


def _parse_word(parser: Any, word: str) -> Any:
    """A word by Hydra's grammar, or with its value quoted (`path=a=b`, `path=my runs`)."""
    from hydra.errors import HydraException

    try:
        return parser.parse_override(word)
    except HydraException:
        key, equals, value = word.partition("=")
        if (pattern := re.fullmatch(r"(\+*optim\.groups)\.(.*\*.*)\.(\w+)", key)) and equals:
            # Hydra's grammar has `*` in no key, but in those of a dict.
            groups, name, option = pattern.groups()
            return _parse_word(parser, f"{groups}={{{name}: {{{option}: {value}}}}}")
        if not key or not equals or not value or value[0] in "[{'\"":
            raise
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return parser.parse_override(f"{key}='{quoted}'")


def _flatten(key: str, value: Any) -> list[tuple[str, Any]]:
    """`optim={_target_:SGD,lr:1}` and `optim=SGD optim.lr=1` as the same dotted keys."""
    head, _, rest = key.partition(".")
    key = ALIASES.get(head, head) + (f".{rest}" if rest else "")
    setting = schema().get(key)
    # torch's own device, without importing torch to ask.
    if key == "device" and type(value).__name__ == "device":
        value = str(value)
    if isinstance(value, dict) and (key.count(".") == 0):
        return [pair for k, v in value.items() for pair in _flatten(f"{key}.{k}", v)]
    if setting and setting.names_object and isinstance(value, (str, int, float, Path)):
        return [(f"{key}._target_", value)]
    return [(key, value)]


def _flatten_code(
    code: Mapping[str, Any], live: dict[str, Any], mistakes: list[str]
) -> dict[str, Any]:
    """Python keywords as `{dotted key: plain value}`; other objects go to `live`."""
    layer: dict[str, Any] = {}
    for keyword, value in code.items():
        for key, item in _flatten(keyword, value):
            key = key.removesuffix("._target_") if not _is_plain(item) else key
            setting = schema().get(key)
            if key in live or (key in layer and layer[key] != item):
                mistakes.append(f"`{key.removesuffix('._target_')}` is given twice.")
            of_data = setting is not None and setting.key in ("dataset", "test_dataset")
            kind = form(item) if of_data else "sequence"
            if isinstance(item, tuple) and setting and setting.kind == "names" and not of_data:
                item = list(item)
            if _is_plain(item) and not (isinstance(item, (list, tuple)) and kind != "sequence"):
                layer[key] = _plain(item)
                continue
            live[key] = item
            if kind != "sequence":
                layer[f"{key}._target_"] = name_of(item)
            elif setting and setting.kind == "names" and isinstance(item, list):
                layer[key] = [x if isinstance(x, str) else name_of(x) for x in item]
            elif setting and setting.names_object:
                layer[f"{key}._target_"] = name_of(item)
            else:
                layer[key] = name_of(item)
    return layer


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if value is None or isinstance(value, (bool, int, float, str, Path)):
        return True
    # NumPy's numbers, without importing NumPy to ask.
    return type(value).__module__ == "numpy" and getattr(value, "shape", None) == ()


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "dtype"):
        return value.item()  # NumPy's numbers.
    return str(value) if isinstance(value, Path) else value


def _defaults() -> dict[str, Any]:
    """What `config.yaml` says, without what it says to Hydra."""
    import yaml

    from .plain_yaml import Loader

    values: dict[str, Any] = yaml.load(_yaml_text(), Loader=Loader)
    return {key: value for key, value in values.items() if key not in ("defaults", "hydra")}


def _check_hydra_words(words: list[str], mistakes: list[str]) -> None:
    """Let Hydra refuse `hydra.nonsense=1`."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    # Hydra's state is global: a run inside a Hydra job, or in a second thread, must leave it as it
    # was.
    with _COMPOSE_LOCK:
        instance = GlobalHydra.instance()
        previous, instance.hydra = instance.hydra, None
        try:
            with initialize_config_module("antelope.hyperparams", version_base="1.3"):
                hydra_compose("config", overrides=words)
        except HydraException as error:
            mistakes.append(str(error))
        finally:
            GlobalHydra.instance().hydra = previous


def _flat(layer: Any, mistakes: list[str]) -> dict[str, Any]:
    """A preset's settings as `{dotted key: value}`; their places under the same keys."""
    flat: dict[str, Any] = {}
    for key, value in layer.values:
        for path, plain in _flatten(key, value):
            name = path.removesuffix("._target_")
            place = layer.places.get(name) or layer.places.get(path) or layer.places[key]
            if path in flat and flat[path] != plain:
                mistakes.append(f"{place}: `{name}` is given twice: {flat[path]} and {plain}.")
            flat[path], layer.places[path] = plain, place
    return flat


def _merge(
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
            mistakes.append(f"{place}{_unknown(key)}")
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


def _unknown(key: str) -> str:
    from ...agents.continual import NAMES as STRATEGIES
    from .foreign import answer

    known = schema()
    root, _, rest = key.partition(".")
    if not rest and (foreign := answer(key)):
        return foreign
    if root in known or not rest:
        names = [*known, *ALIASES, "task"]
        if root in known and rest:
            return f"`{root}` has no sub-keys: got `{key}`."
        by_last = {name.split(".")[-1]: name for name in names}
        below = [name for name in known if name.startswith(f"{key}.")]
        if below:
            return f"Unknown setting `{key}`. Did you mean {' or '.join(f'`{n}`' for n in below)}?"
        if not (near := did_you_mean(key, names)) and (close := nearest(key, by_last, count=1)):
            near = f" Did you mean `{by_last[close[0]]}`?"
        return f"Unknown setting `{key}`.{near} `ml --help` lists them all."
    below = [name for name in known if name.startswith(f"{root}.")]
    if below:
        return f"Unknown setting `{key}`. There are: {', '.join(below)}."
    if root in STRATEGIES["strategy"]:
        return f"Unknown setting `{key}`. Did you mean `strategy.{key}`?"
    near, foreign = did_you_mean(root, known), answer(root)
    if foreign:
        # The nearest name may look alike and be something else: `class_order` for `class_weight`.
        alike = any(f" {name}=" in foreign for name in nearest(root, known, count=1))
        near = f"{near} {foreign}" if alike else f" {foreign}"
    return f"Unknown setting `{root}` in `{key}`.{near} `ml --help` lists them all."


def _resolve_interpolations(
    values: dict[str, Any], settings: Settings, mistakes: list[str]
) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config = OmegaConf.create(values)
        return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        key = str(error.full_key or "")
        reason = str(error).splitlines()[0]
        mistakes.append(f"{settings.place(key)}Cannot resolve a `${{...}}` in `{key}`: {reason}")
        return values


def _check_types(settings: Settings, mistakes: list[str]) -> None:
    """Convert and check every value against its line of `config.yaml`, in place."""
    for key, setting in schema().items():
        if key in settings.live:
            if not setting.names_object:
                mistakes.append(f"{key}={settings.live[key]!r}: expected {setting.kind}.")
            continue
        *parents, last = key.split(".")
        node = settings.values
        for part in parents:
            node = node[part]
        if node[last] is None and setting.default == "null":
            continue
        try:
            node[last] = _convert(node[last], setting.kind)
        except (TypeError, ValueError):
            from .foreign import answer

            value = node[last]
            value = str(value).lower() if isinstance(value, bool) else value
            foreign = answer(f"{key}={value}")
            near = f" {foreign}" if foreign else ""
            if setting.kind.startswith(("int", "float")) and _says_number(value):
                near += " It is text: leave out the quotes."
            if not near and setting.kind.startswith(("one of", "list of")):
                near = did_you_mean(str(node[last]), setting.kind.split()[2:])
            place = settings.place(f"{key}._target_" if setting.names_object else key)
            mistakes.append(f"{place}{key}={_shown(node[last])}: expected {setting.kind}.{near}")


def _says_number(value: Any) -> bool:
    """Whether it is text that would be a number without its quotes."""
    try:
        return isinstance(value, str) and float(value) == float(value)
    except ValueError:
        return False


def _shown(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) and not value.strip() else str(value)


def _convert(value: Any, kind: str) -> Any:
    """`value` as `kind` says. ValueError or TypeError where it is not."""
    word, *rest = kind.split()
    if word in ("int", "float"):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError
        if word == "int" and not float(value).is_integer():
            raise ValueError
        value = int(value) if word == "int" else float(value)
        if rest and not _within(value, rest):
            raise ValueError
        return value
    if word == "bool":
        if isinstance(value, float) or str(value).lower() not in _BOOLS:
            raise TypeError
        return _BOOLS[str(value).lower()]
    if word == "text":
        if value is None or isinstance(value, (bool, dict, list)) or value == "":
            raise TypeError
        return str(value)
    if word == "text,":  # text, or a list of them
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list):
            raise TypeError
        return [_convert(item, "text") for item in items]
    if word == "one":  # one of a b c
        if isinstance(value, bool) or str(value) not in rest[1:]:
            raise ValueError
        return int(value) if str(value).isdigit() else value
    if word == "list":  # list of a b c
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or any(item not in rest[1:] for item in items):
            raise ValueError
        return items
    if word == "whole":  # whole number, or a list of them
        items = value if isinstance(value, list) else [value]
        if not items or any(isinstance(item, bool) or not isinstance(item, int) for item in items):
            raise TypeError
        return value
    if word == "shuffled,":  # shuffled, or a list of all classes
        if value != "shuffled" and not isinstance(value, list):
            raise TypeError
        return value if value == "shuffled" else _convert(value, "whole number")
    if word == "probabilities":  # One, a list of them, or a dict of either by action
        _check_probabilities(value)
        return value
    if word == "names" and isinstance(value, list):
        if not value or not all(isinstance(item, (str, dict)) for item in value):
            raise TypeError
        return value
    if not isinstance(value, dict) or not isinstance(value.get("_target_", ""), str):
        raise TypeError
    return value


def _check_probabilities(value: Any) -> None:
    if isinstance(value, (dict, list)) and value:
        for item in value.values() if isinstance(value, dict) else value:
            _check_probabilities(item)
    elif isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise TypeError


def _within(value: float, bound: list[str]) -> bool:
    if ".." in bound[0]:
        low, high = map(float, bound[0].split(".."))
        return low <= value <= high
    limit = float(bound[1])
    return value >= limit if bound[0] == ">=" else limit < value < float("inf")


def _force(word: str, mistakes: list[str]) -> str:
    """`optim=SGD,Adam` as `++optim._target_=SGD,Adam`: a word that Hydra itself accepts."""
    if word.startswith(("hydra.", "hydra/", "+hydra", "~", "task=glob(")):
        return word
    if word.startswith("task="):
        return _force_presets(word.removeprefix("task="), mistakes)
    key, equals, value = word.lstrip("+").partition("=")
    head, dot, rest = key.partition(".")
    head = ALIASES.get(head, head)
    key = head + dot + rest
    setting = schema().get(head)
    if setting is None and not any(name.startswith(f"{head}.") for name in schema()):
        mistakes.append(_unknown(key))
    if setting and setting.names_object and not dot and not value.startswith(("[", "{")):
        key = f"{key}._target_"
    if pattern := re.fullmatch(r"(optim\.groups)\.(.*\*.*)\.(\w+)", key):
        groups, name, option = pattern.groups()
        return f"++{groups}={{{name}: {{{option}: {value}}}}}"
    return f"++{key}{equals}{value}"


def _force_presets(value: str, mistakes: list[str]) -> str:
    """The presets of a sweep under a key that Hydra looks for in no folder: they may be the user's."""
    from .presets import find

    names = [name.strip("'\" ") for name in value.split(",")]
    for name in names:
        try:
            find(name, Path())
        except ConfigError as error:
            mistakes.append(str(error))
    quoted = [name if re.fullmatch(r"[\w./@+-]+", name) else f"'{name}'" for name in names]
    return f"++{_PRESET}={','.join(quoted)}"
