"""`ml play RUN`: watch, film or measure a trained policy from its run directory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ...replay.errors import ConfigError
from ...replay.suggestions import did_you_mean
from ..settings.import_path import import_nothing_from
from ..settings.schema import ALIASES, schema
from ..settings.values import is_bool, is_true

USAGE = (
    "ml play RUN [episodes=3] [render=true] [video=out.mp4] [seed=0] [task=0] [model=...] [env=...]"
)
_NUMBERS, _SWITCHES, _TEXT = ("episodes", "seed", "task"), ("render", "trust"), ("video",)
_OWN = (*_NUMBERS, *_SWITCHES, *_TEXT)


def play_command(words: list[str]) -> int:
    """Play episodes of a run's policy and print their returns; the exit code.

    Raises:
        ConfigError: For an invalid word, a folder that is not a run, or a model that must be named.
    """
    if not words or (words[0].partition("=")[0] in _OWN and not Path(words[0]).exists()):
        raise ConfigError(f"Which run? {USAGE}")
    path, (options, overrides) = Path(words[0]), _read(words[1:])
    trust = options.pop("trust", False)
    if not trust:
        import_nothing_from(path)
    from .loading import load  # It imports torch, which typos must not wait for.

    run = load(path, *overrides, trust=trust)
    returns: list[float] = []

    def show(number: int, gained: float, length: int) -> None:
        returns.append(gained)
        print(f"episode {number + 1}: return {gained:.6g}, {length:,} steps", flush=True)

    try:
        run.play(**options, show=show)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130  # As shells report an interrupt.
    if len(returns) > 1:
        mean = sum(returns) / len(returns)
        print(f"mean return {mean:.6g}, from {min(returns):.6g} to {max(returns):.6g}")
    if (video := options.get("video")) is not None:
        print(f"video: {video}")
    return 0


def _read(words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Split the words into options of playing, and words about the run.

    Raises:
        ConfigError: With every invalid word.
    """
    options: dict[str, Any] = {}
    others: list[str] = []
    mistakes: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        root = key.split(".")[0]
        if key not in _OWN:
            known = root in schema() or root in ALIASES
            if not equals or not known:
                mistakes.append(
                    f"`{word}` is not an option of ml play.{did_you_mean(key, _OWN)} {USAGE}"
                )
            others.append(word)
        elif key in _NUMBERS and value.isdigit():
            options[key] = int(value)
        elif key in _SWITCHES and is_bool(value):
            options[key] = is_true(value)
        elif key in _TEXT and value:
            options[key] = value
        else:
            kind = (
                "a whole number"
                if key in _NUMBERS
                else "true or false"
                if key in _SWITCHES
                else "a path"
            )
            mistakes.append(f"{word}: expected {kind}.")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return options, others
