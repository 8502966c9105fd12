"""`ml export RUN format=onnx`: a run's model for other tools."""

from __future__ import annotations

from pathlib import Path

from ...replay.errors import ConfigError
from ...replay.suggestions import did_you_mean
from ..settings.schema import ALIASES, schema
from ..settings.values import is_bool, is_true

USAGE = "ml export RUN [format=onnx] [out=FILE] [model=...] [trust=true]"
_OWN = ("format", "out", "trust")


def export_command(words: list[str]) -> int:
    """Export a run's model and print the file; the exit code.

    Raises:
        ConfigError: For an invalid word, a folder that is not a run, or a model that cannot be exported.
    """
    if not words or (words[0].partition("=")[0] in _OWN and not Path(words[0]).exists()):
        raise ConfigError(f"Which run? {USAGE}")
    path, options, overrides = Path(words[0]), {"format": "onnx"}, []
    for word in words[1:]:
        key, equals, value = word.partition("=")
        root = key.split(".")[0]
        if key in _OWN and value:
            options[key] = value
        elif equals and (root in schema() or root in ALIASES):
            overrides.append(word)
        else:
            raise ConfigError(
                f"`{word}` is not an option of ml export.{did_you_mean(key, _OWN)} {USAGE}"
            )
    if not is_bool(trust := options.get("trust", "false")):
        raise ConfigError(f"trust={trust}: expected true or false.")
    from ..inference.loading import load  # It imports torch, which typos must not wait for.
    from ..inference.play_command import import_nothing_from

    if not is_true(trust):
        import_nothing_from(path)
    run = load(path, *overrides, trust=is_true(trust))
    print(run.export(options["format"], options.get("out")))
    return 0
