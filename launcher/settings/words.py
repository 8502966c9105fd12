"""Console words, read by Hydra's grammar: the only file that talks to Hydra."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from ...replay.errors import ConfigError
from .bare_words import without_bare_words
from .dotted import flatten
from .plain_words import plain_word
from .schema import schema

if TYPE_CHECKING:
    from hydra.core.override_parser.overrides_parser import OverridesParser

_COMPOSE_LOCK = threading.RLock()


def parse_words(words: Iterable[str], mistakes: list[str]) -> dict[str, Any]:
    """Console words as `{dotted key: value}`, without those for Hydra itself."""
    layer: dict[str, Any] = {}
    for_hydra: list[str] = []
    for word in without_bare_words(words, mistakes):
        if not isinstance(word, str):
            mistakes.append(f"ml() takes strings such as 'lr=1e-3' by position, got {word!r}.")
            continue
        read = plain_word(word) or _by_grammar(word, for_hydra, mistakes)
        if read is None:
            continue
        key, value = read
        setting = schema().get(key)
        if setting is not None and setting.kind == "text" and isinstance(value, (int, float)):
            value = word.partition("=")[2].strip()  # `1e-3`, not 0.001.
        if key == "optim.groups" and isinstance(value, dict) and len(value) == 1:
            # One pattern, as from `optim.groups.*.bias.lr=...`: flattened, so that other words can add to it.
            ((pattern, options),) = value.items()
            given = options.items() if isinstance(options, dict) else [("", options)]
            pairs = [(f"{key}.{pattern}.{name}".removesuffix("."), v) for name, v in given]
        else:
            pairs = flatten(key, value)
        for path, plain in pairs:
            if path in layer and layer[path] != plain:
                name = path.removesuffix("._target_")
                mistakes.append(f"`{name}` is given twice: {layer[path]} and {plain}.")
            layer[path] = plain
    if for_hydra:
        _check_hydra_words(for_hydra, mistakes)
    return layer


def _by_grammar(word: str, for_hydra: list[str], mistakes: list[str]) -> tuple[str, Any] | None:
    """Key and value by Hydra's grammar; None for a word that is Hydra's own, or a mistake."""
    from hydra.errors import HydraException

    try:
        override = parse_word(_parser(), word)
        if not (key := override.key_or_group):
            raise HydraException
        if key.startswith(("hydra.", "hydra/")):
            for_hydra.append(word)
            return None
        if override.is_sweep_override():
            mistakes.append(
                f"`{word}` lists several values. Add -m to run each of them, or write a list as "
                f"{key}=[...]."
            )
            return None
        return key, None if override.is_delete() else override.value()
    except HydraException:
        mistakes.append(
            f"Cannot read `{word}`. Write settings as key=value, and quote a value that contains "
            "spaces, commas or equals signs: 'key=\"a, b\"'."
        )
        return None


@cache
def _parser() -> OverridesParser:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


def parse_word(parser: OverridesParser, word: str) -> Any:
    """A word by Hydra's grammar, or with its value quoted (`path=a=b`, `path=my runs`)."""
    from hydra.errors import HydraException

    try:
        return parser.parse_override(word)
    except HydraException:
        key, equals, value = word.partition("=")
        if (pattern := re.fullmatch(r"(\+*optim\.groups)\.(.*\*.*)\.(\w+)", key)) and equals:
            # Hydra's grammar allows `*` only in keys of a dict.
            groups, name, option = pattern.groups()
            return parse_word(parser, f"{groups}={{{name}: {{{option}: {value}}}}}")
        if not key or not equals or not value or value[0] in "[{'\"":
            raise
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return parser.parse_override(f"{key}='{quoted}'")


def swept_values(word: str, names: Sequence[str], *, most: int) -> list[str] | None:
    """The values that a word of a sweep lists, as text that the grammar reads; None: it lists none.

    Args:
        word: `lr=1e-3,1e-2`, `seed=range(5)`, `model.hidden=[64],[64,64]`.
        names: What `glob(...)` chooses from.
        most: Longer lists are refused.

    Raises:
        ConfigError: For a range without end, or one that only a search can sample.
    """
    key, equals, value = word.partition("=")
    if plain_word(word) is not None or not equals or key.startswith("~"):
        return None
    from hydra.core.override_parser.types import Glob
    from hydra.errors import HydraException

    try:
        # Keys may be ours alone, such as `optim.groups.*.lr`.
        read = _parser().parse_override(f"x={value}")
    except HydraException as error:
        if sampled := re.search(r"(?:^|,)\s*([A-Za-z_]\w*)\(", value):
            raise ConfigError(_not_listed(word, sampled[1])) from error
        return None  # What a run on its own makes of it, or says.
    if read.is_interval_sweep():
        raise ConfigError(_not_listed(word, "interval"))
    if not read.is_sweep_override():
        return None
    if isinstance(chosen := read.value(), Glob):
        found: list[str] = chosen.filter(list(names))
        if not found:
            raise ConfigError(
                f"`{word}`: only presets can be chosen by glob, and none has such a name."
            )
        return found
    values = list(itertools.islice(read.sweep_string_iterator(), most + 1))
    if len(values) > most:
        raise ConfigError(f"`{word}` lists more than {most:,} values.")
    return [_as_typed(value) for value in values]


def _as_typed(value: str) -> str:
    """A value without the backslashes that Hydra adds, where it means the same: `${oc.env:NAME}`."""
    from hydra.errors import HydraException

    plain = value.replace("\\", "")
    if plain == value:
        return value
    try:
        same = _parser().parse_override(f"x={plain}")
    except HydraException:
        return value
    read = _parser().parse_override(f"x={value}")
    as_before = not same.is_sweep_override() and same.value() == read.value()
    return plain if as_before else value


def _not_listed(word: str, function: str) -> str:
    key = word.partition("=")[0]
    return (
        f"`{word}`: a sweep lists its values, as in {key}=1,2 or {key}=range(5), and {function}(...) lists "
        "none. To sample from a range, add search=tpe; there are log(a,b), interval(a,b) and int(a,b)."
    )


def interval(word: str) -> tuple[float, float, frozenset[str]] | None:
    """Both bounds and the tags of `lr=tag(log,interval(1e-5,1e-1))`; None if a word is nothing like it.

    Bounds are int where the word says so: `int(interval(1,8))`.
    """
    from hydra.core.override_parser.types import IntervalSweep
    from hydra.errors import HydraException

    try:
        read = _parser().parse_override(f"x={word.partition('=')[2]}").value()
    except HydraException:
        return None
    if not isinstance(read, IntervalSweep) or read.start is None or read.end is None:
        return None
    return read.start, read.end, frozenset(read.tags)


def _check_hydra_words(words: list[str], mistakes: list[str]) -> None:
    """Let Hydra refuse `hydra.nonsense=1`."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    # Hydra's state is global: a run inside a Hydra job, or in a second thread, must restore it.
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
