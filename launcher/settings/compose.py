"""Console words and Python keywords become one plain configuration.

The only file that talks to Hydra: its grammar parses the words, its launchers and sweepers run `-m`.
Layers, presets included, are merged here, because Hydra refuses `optim=SGD optim.lr=1e-2`, answers an
unknown key with advice that would accept the typo, and takes any key in a preset.

Precedence: console words over code over preset over defaults. Within a layer the order of words
never matters: a name (`optim=SGD`) goes first and drops what lower layers said of the object it
replaces; sub-keys (`optim.lr=1e-2`) follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...replay.errors import ConfigError
from .dotted import flatten
from .keywords import flatten_keywords
from .merge import merge
from .presets import layers
from .schema import defaults
from .settings import Settings
from .values import check_values
from .words import parse_words


def compose(words: Iterable[str], code: Mapping[str, Any]) -> Settings:
    """The settings that console `words` and Python keywords (`code`) ask for.

    Raises:
        ConfigError: With every mistake at once.
    """
    mistakes: list[str] = []
    console = parse_words(words, mistakes)
    settings = Settings({})
    plain = flatten_keywords(code, settings.live, mistakes)
    values = defaults()
    preset = console.pop("task", plain.get("task"))
    plain.pop("task", None)
    settings.live.pop("task", None)
    try:
        for layer in layers(preset):
            settings.preset = layer.label
            merge(values, _flat(layer, mistakes), settings, mistakes, places=layer.places)
    except ConfigError as error:
        mistakes.append(str(error))
    merge(values, plain, settings, mistakes)
    merge(values, console, settings, mistakes, covers=settings.live)
    settings.values = _resolve_interpolations(values, settings, mistakes)
    check_values(settings, mistakes)
    if mistakes:
        from .lookup import unresolved

        raise ConfigError("\n".join(dict.fromkeys(mistakes + unresolved(settings))))
    return settings


def _flat(layer: Any, mistakes: list[str]) -> dict[str, Any]:
    """A preset's settings as `{dotted key: value}`; their places under the same keys."""
    flat: dict[str, Any] = {}
    for key, value in layer.values:
        for path, plain in flatten(key, value):
            name = path.removesuffix("._target_")
            place = layer.places.get(name) or layer.places.get(path) or layer.places[key]
            if path in flat and flat[path] != plain:
                mistakes.append(f"{place}: `{name}` is given twice: {flat[path]} and {plain}.")
            flat[path], layer.places[path] = plain, place
    return flat


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
