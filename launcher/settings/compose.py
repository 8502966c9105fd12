"""Console words and Python keywords become one plain configuration.

Hydra's grammar reads the words (`words`). Layers,
presets included, are laid over each other here (`merge`), because Hydra refuses `optim=SGD optim.lr=1e-2`,
answers an unknown key with advice that would accept the typo, and takes any key in a preset.

Precedence: console words over code over preset over defaults. Within a layer the order of words
never matters: a name (`optim=SGD`) goes first and drops what lower layers said of the object it
replaces; sub-keys (`optim.lr=1e-2`) follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...replay.errors import ConfigError
from .dotted import flatten
from .file_rules import check_files
from .import_path import importing_nothing_from
from .interpolation import resolve_interpolations
from .keywords import flatten_keywords
from .merge import Layers
from .presets import Layer, layers
from .settings import Settings
from .values import check_values
from .words import parse_words


def compose(words: Iterable[str], code: Mapping[str, Any]) -> Settings:
    """The settings that console words and Python keywords ask for.

    Args:
        words: `key=value`, as typed.
        code: Keywords of `ml(...)`; values may be Python objects.

    Raises:
        ConfigError: With every mistake at once.
    """
    mistakes: list[str] = []
    console = parse_words(words, mistakes)
    stack = Layers(mistakes)
    settings = stack.settings
    plain = flatten_keywords(code, settings.live, mistakes)
    # `task` is not a setting: it chooses the preset, whose layers lie below the other words and keywords.
    preset = console.pop("task", plain.get("task"))
    plain.pop("task", None)
    settings.live.pop("task", None)
    try:
        for layer in layers(preset):
            settings.preset = layer.label
            stack.lay(_flat(layer, mistakes), places=layer.places)
    except ConfigError as error:  # Go on without it, to report mistakes in words and keywords too.
        mistakes.append(str(error))
    stack.lay(plain, texts=True)
    stack.lay(console, hides_objects=True)
    resolve_interpolations(settings, mistakes)
    check_values(settings, mistakes)
    check_files(settings, mistakes)
    if mistakes:
        # What names mean is only asked where there is an error anyway: it imports what they name.
        from .lookup import unresolved

        load = settings.values.get("load")
        with importing_nothing_from(load if isinstance(load, str) else None):
            mistakes += unresolved(settings)
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))
    return settings


def _flat(layer: Layer, mistakes: list[str]) -> dict[str, Any]:
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
