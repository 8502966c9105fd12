"""`ml resume RUN`: continue an interrupted run from its own settings."""

from __future__ import annotations

from ..settings.import_path import import_nothing_from
from .verb_words import read_words

USAGE = "ml resume RUN [epochs=20] [model=...] [trust=true]"


def resume_command(words: list[str]) -> int:
    """Continue a run as `ml` with its words and `resume=true` would; the exit code.

    Raises:
        ConfigError: For an invalid word, a folder that is not a run, a finished run, or names that must be
            given here.
    """
    said = read_words(words, "ml resume", USAGE)
    if not said.trust:
        import_nothing_from(said.run)
    from ..plainly import plainly
    from .resuming import resumed_settings

    settings = resumed_settings(said.run, said.settings, trust=said.trust)

    def work() -> None:
        from ..train import train

        train(settings)

    plainly(settings, work, advise=False)
    return 0
