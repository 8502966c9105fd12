"""Reads the words of `ml eval`, `predict`, `export` and `resume`: a run, options of the verb, settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...replay.errors import ConfigError
from ...replay.suggestions import did_you_mean
from ..settings.schema import ALIASES, schema
from ..settings.values import is_bool, is_true


@dataclass
class VerbWords:
    """What the words after a verb say.

    Attributes:
        run: The run directory.
        others: Further words without `=`.
        options: The verb's own options.
        settings: Words about settings, `key=value`.
        trust: Whether names in the directory may be imported.
    """

    run: Path
    others: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    settings: list[str] = field(default_factory=list)
    trust: bool = False

    def task(self) -> int | None:
        """The task in `task=`, from 0; None: none is given.

        Raises:
            ConfigError: If it is not a whole number.
        """
        text = self.options.get("task")
        if text is not None and not text.isdigit():
            raise ConfigError(f"task={text}: expected a whole number.")
        return None if text is None else int(text)


def read_words(
    words: list[str], verb: str, usage: str, *, own: Sequence[str] = (), others: int = 0
) -> VerbWords:
    """Split the words after a verb.

    Args:
        verb: What errors call it: `ml eval`.
        usage: Its usage, for errors.
        own: Options of the verb beside `trust`.
        others: How many words without `=` follow the run.

    Raises:
        ConfigError: With every invalid word.
    """
    options = (*own, "trust")
    if not words or (words[0].partition("=")[0] in options and not Path(words[0]).exists()):
        raise ConfigError(f"Which run? {usage}")
    found = VerbWords(Path(words[0]))
    mistakes = []
    for word in words[1:]:
        key, equals, value = word.partition("=")
        root = key.split(".")[0]
        if key in options and equals:
            found.options[key] = value
            if not value:
                mistakes.append(f"`{word}` has no value. {usage}")
        elif equals and (root in schema() or root in ALIASES):
            found.settings.append(word)
        elif len(found.others) < others and (not equals or Path(word).exists()):
            found.others.append(word)
        else:
            mistakes.append(
                f"`{word}` is not an option of {verb}.{did_you_mean(key, options)} {usage}"
            )
    trust = found.options.pop("trust", "false")
    if not is_bool(trust):
        mistakes.append(f"trust={trust}: expected true or false.")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    found.trust = is_true(trust)
    return found
