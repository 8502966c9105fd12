"""From the words of `ml -m search=tpe ...`, and the keywords of `antelope.sweep`, to the search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...replay.errors import ConfigError
from ..settings.compose import compose
from ..settings.object_names import name_of
from ..settings.schema import ALIASES, schema
from .keywords import product
from .places import make_trial, sweep_folder
from .search import Search
from .search_words import WORDS, read_wanted
from .spaces import Choice, Range, Space, is_range, read_range
from .trial import Trial
from .words import Words, listed


def build_search(asked: Words, folder: Path, keywords: Mapping[str, object]) -> Search:
    """The search that words and keywords ask for.

    Args:
        asked: The words of a sweep, with `search` among its options.
        folder: The working directory, absolute.
        keywords: Settings from Python: `"log(1e-5,1e-1)"` is a range, and a list is a choice.

    Raises:
        ConfigError: Before anything starts, with every mistake: for words that no run accepts, values at the
            ends of a range included.
    """
    mistakes: list[str] = []
    sought = _Sought(folder)
    sought.read_words(asked.words, mistakes)
    sought.read_keywords(keywords, mistakes)
    _raise(mistakes)
    spaces = list(sought.spaces.values())
    first = {space.key: space.ends[0] for space in spaces}
    ends = [{**first, space.key: end} for space in spaces for end in space.ends]
    examples = []
    for swept in ends:
        try:
            examples.append(sought.trial(swept))
        except ConfigError as error:
            mistakes += str(error).splitlines()
    _raise(mistakes)
    composed = compose(sought.words(first), sought.keywords(first))
    options = {key: value for key, value in asked.options.items() if key in WORDS}
    wanted = read_wanted(options, composed.values, mistakes)
    if composed.path is not None:
        mistakes.append("path= would be the same for all trials. Leave it out, or set experiment=.")
    _raise(mistakes)
    assert wanted is not None  # Else there were mistakes.
    return Search(
        wanted,
        spaces,
        about=sought.about(),
        constant=None if keywords else sought.lasting(),
        composed=composed,
        folder=sweep_folder(composed, list(first), folder),
        make=sought.trial,
        examples=examples,
    )


@dataclass
class _Sought:
    """What trials share, and what is chosen.

    Attributes:
        folder: The working directory.
        constant: Console words of all trials.
        settings: Keywords of all trials.
        spaces: What is chosen, by key as typed.
        values: Of keywords that are chosen, the value for each text.
    """

    folder: Path
    constant: list[str] = field(default_factory=list)
    settings: dict[str, object] = field(default_factory=dict)
    spaces: dict[str, Space] = field(default_factory=dict)
    values: dict[str, dict[str, object]] = field(default_factory=dict)

    def read_words(self, words: Sequence[str], mistakes: list[str]) -> None:
        """Tell the words that are chosen from the others."""
        for word in words:
            key = word.lstrip("+").partition("=")[0].strip()
            try:
                if is_range(word):
                    self._add(read_range(word), mistakes)
                elif (values := listed(word, mistakes)) is not None:
                    self._add(Choice(key, tuple(values)), mistakes)
                else:
                    self.constant.append(word)
            except ConfigError as error:
                mistakes.append(str(error))

    def read_keywords(self, keywords: Mapping[str, object], mistakes: list[str]) -> None:
        """The same for keywords, whose values may be objects."""
        for key, value in keywords.items():
            try:
                if isinstance(value, str) and is_range(f"{key}={value}"):
                    self._add(read_range(f"{key}={value}"), mistakes)
                    self.values[key] = {}
                    continue
                found = product({key: value})
            except ConfigError as error:
                mistakes.append(str(error))
                continue
            if not found[0][0]:
                self.settings[key] = value
                continue
            self.values[key] = {swept[key]: settings[key] for swept, settings in found}
            self._add(Choice(key, tuple(self.values[key])), mistakes)

    def _add(self, space: Space, mistakes: list[str]) -> None:
        if space.key in self.spaces:
            mistakes.append(f"`{space.key}` is given twice: {self.spaces[space.key]} and {space}.")
        self.spaces[space.key] = space

    def words(self, swept: Mapping[str, str]) -> list[str]:
        """The console words of a trial."""
        chosen = [f"{key}={value}" for key, value in swept.items() if key not in self.values]
        return [*self.constant, *chosen]

    def keywords(self, swept: Mapping[str, str]) -> dict[str, object]:
        """The keywords of a trial."""
        chosen = {
            key: _number(value) if isinstance(self.spaces[key], Range) else self.values[key][value]
            for key, value in swept.items()
            if key in self.values
        }
        return {**self.settings, **chosen}

    def trial(self, swept: Mapping[str, str]) -> Trial:
        """The trial with these values.

        Raises:
            ConfigError: If no run accepts them.
        """
        return make_trial(self.words(swept), swept, self.keywords(swept), self.folder)

    def lasting(self) -> list[str]:
        """The console words of all trials that a run of its own needs too."""
        return [word for word in self.constant if not _has_key(word, ("resume", "override"))]

    def about(self) -> list[str]:
        """What all trials share, as far as it matters to their results, as text."""
        plain = (str, int, float, type(None))
        told = [
            f"{key}={value if isinstance(value, plain) else name_of(value)}"
            for key, value in self.settings.items()
        ]
        incidental = [key for key, setting in schema().items() if "incidental" in setting.counts]
        return sorted(word for word in [*self.constant, *told] if not _has_key(word, incidental))


def _number(text: str) -> float:
    return int(text) if text.lstrip("-").isdigit() else float(text)


def _has_key(word: str, keys: Iterable[str]) -> bool:
    root = word.lstrip("+").partition("=")[0].partition(".")[0].strip()
    return ALIASES.get(root, root) in keys


def _raise(mistakes: Sequence[str]) -> None:
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))
