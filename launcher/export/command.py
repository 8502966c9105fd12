"""`ml export RUN format=onnx`: a run's model for other tools."""

from __future__ import annotations

from ..inference.verb_words import read_words
from ..settings.import_path import import_nothing_from

USAGE = "ml export RUN [format=onnx] [out=FILE] [model=...] [trust=true]"


def export_command(words: list[str]) -> int:
    """Export a run's model and print the file; the exit code.

    Raises:
        ConfigError: For an invalid word, a folder that is not a run, or a model that cannot be exported.
    """
    said = read_words(words, "ml export", USAGE, own=("format", "out"))
    if not said.trust:
        import_nothing_from(said.run)
    from ..inference.loading import load  # It imports torch, which typos must not wait for.

    run = load(said.run, *said.settings, trust=said.trust)
    print(run.export(said.options.get("format", "onnx"), said.options.get("out")))
    return 0
