"""What a file may not set: whether it is trusted, and folders outside of the working directory."""

from __future__ import annotations

import sys
from pathlib import Path, PurePath

from .settings import Settings

_OURS = str(Path(__file__).parents[1])
# Settings that say where a run writes.
_WRITTEN = ("path", "experiment", "replay.folder")


def check_files(settings: Settings, mistakes: list[str]) -> None:
    """Add a message for each setting that whoever gave it may not give; `trust` is then false."""
    before = len(mistakes)
    if settings.from_file("trust") and settings.values["trust"]:
        mistakes.append(
            f"{settings.place('trust')}trust=true: no file can say that it is trusted. Add trust=true to "
            "the words, if you trust everything that the file names."
        )
    if settings.from_text("trust") and settings.values["trust"] and not _in_callers("trust"):
        mistakes.append(
            "trust=True was not written in the code that is running, so it may come from a file: "
            "ml(**settings). Write it yourself: ml('trust=true', **settings)."
        )
    if len(mistakes) > before:  # What is wrong otherwise is still asked of names.
        settings.values["trust"] = False
    for key in _WRITTEN:
        if settings.trusts or not settings.from_file(key):
            continue
        group, _, rest = key.partition(".")
        value = settings.values[group][rest] if rest else settings.values[group]
        path = PurePath(value) if isinstance(value, str) else PurePath()
        if path.is_absolute() or ".." in path.parts or str(path).startswith("~"):
            mistakes.append(
                f"{settings.place(key)}{key}={value} lies outside of the working directory, and a file "
                f"cannot say to write there. Name it yourself, as a word: {key}={value}."
            )


def _in_callers(word: str) -> bool:
    """Whether a word is written, as a keyword or as text, in a function that is running outside of Antelope.

    Python passes `ml(trust=True)` and `ml(**{"trust": True})` alike; only the caller's code tells them apart.
    """
    frame = sys._getframe(1)
    while (above := frame.f_back) is not None:
        frame = above
        code = frame.f_code
        if code.co_filename.startswith(_OURS):
            continue
        for constant in (*code.co_names, *code.co_consts):
            if constant == word or (isinstance(constant, tuple) and word in constant):
                return True
    return False
