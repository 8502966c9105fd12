"""Keywords of `antelope.sweep`: which of them list values, one for each run.

A list, tuple or range of a setting that has one value lists values. Where one value may be a list itself,
`[[64, 64]]` is one list, and `[[64], [64, 64]]` are two; anything less clear is refused.
"""

from __future__ import annotations

import itertools
import math
import numbers
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...envs.forms import form
from ...replay.errors import ConfigError
from ..settings.object_names import name_of
from ..settings.schema import ALIASES, schema
from ..settings.unknown import OF_SWEEPS
from .words import MOST_RUNS, Combination, check_count, combinations

Choice = tuple[str, object]
"""A value and its text, which folders and tables show; the text comes first."""

_DATA = ("dataset", "test_dataset")


def split_keywords(keywords: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The words that keywords such as `jobs=4` stand for, and all other keywords.

    `slurm={"partition": "gpu"}` stands for `slurm.partition=gpu`.
    """
    words, rest = list[str](), dict[str, Any]()
    for key, value in keywords.items():
        if key.partition(".")[0] not in OF_SWEEPS:
            rest[key] = value
        elif isinstance(value, Mapping):
            words += [f"{key}.{name}={text_of(item)}" for name, item in value.items()]
        elif value is not None:
            words.append(f"{key}={text_of(value)}")
    return words, rest


def combined(
    words: Sequence[str], keywords: Mapping[str, Any]
) -> list[tuple[Combination, dict[str, object]]]:
    """Every combination of what words and keywords list; a word wins over the same keyword, as for a run.

    Raises:
        ConfigError: For a keyword that may be meant either way, a value listed twice, or too many runs.
    """
    given = {word.lstrip("+").partition("=")[0] for word in words}
    of_words = combinations(words)
    of_keywords = product({key: value for key, value in keywords.items() if key not in given})
    check_count(len(of_words) * len(of_keywords))
    return [
        (Combination(combination.words, {**combination.swept, **swept}), settings)
        for combination in of_words
        for swept, settings in of_keywords
    ]


def product(
    keywords: Mapping[str, Any],
) -> list[tuple[dict[str, str], dict[str, object]]]:
    """Every combination of the values that keywords list: the text of what is swept, and all keywords.

    Raises:
        ConfigError: For a keyword that may be meant either way, a value listed twice, or too many runs.
    """
    lists = {key: _listed(key, value) for key, value in keywords.items()}
    if wrong := [str(found) for found in lists.values() if isinstance(found, ConfigError)]:
        raise ConfigError("\n".join(wrong))
    swept = {key: found for key, found in lists.items() if isinstance(found, list)}
    check_count(math.prod(map(len, swept.values())))
    found = []
    for choice in itertools.product(*swept.values()):
        chosen = dict(zip(swept, choice, strict=True))
        values = {key: chosen[key][1] if key in chosen else v for key, v in keywords.items()}
        found.append(({key: text for key, (text, _) in chosen.items()}, values))
    return found


def _listed(key: str, value: Any) -> list[Choice] | ConfigError | None:
    """The values that a keyword lists; None if it is one value; an error if nobody could tell."""
    if not isinstance(value, (list, tuple, range)) or not _may_list(key, value):
        setting = schema().get(key)
        one = isinstance(value, (str, Mapping)) or not isinstance(value, Iterable)
        if not one and setting is not None and setting.kind.startswith(("int", "float")):
            return ConfigError(f"{key}={value!r:.60}: write {key}=list(...) for a run with each.")
        return None
    if not value:
        return ConfigError(f"{key}= lists no values.")
    whole = all(isinstance(item, list) for item in value)
    if isinstance(value, range) or whole or not _may_be_list(key):
        if len(value) > MOST_RUNS:
            return ConfigError(f"{key}= lists {len(value):,} values, more than {MOST_RUNS:,}.")
        texts = [text_of(item) for item in value]
        if all(isinstance(item, (str, numbers.Real)) for item in value):
            for text, count in Counter(texts).items():
                if count > 1:
                    return ConfigError(f"{key}= lists {text} twice.")
        return list(zip(_told_apart(texts), value, strict=True))
    shown = f"{value!r:.60}"
    return ConfigError(
        f"{key}={shown} may be one value or several. Write {key}=[{shown}] for one value that is a list, "
        f"{key}=[[{text_of(value[0])}], ...] for a list in each run, or the word '{key}=A,B' for one "
        "value in each."
    )


def _may_list(key: str, value: Sequence[Any]) -> bool:
    """Whether a list or tuple may list values: a pair of arrays is one data set."""
    return key not in _DATA or isinstance(value, list) or form(value) == "sequence"


def _may_be_list(key: str) -> bool:
    """Whether one value of a setting may be a list."""
    setting = schema().get(ALIASES.get(key, key))
    if setting is None:  # An argument of an object, which may be anything.
        return True
    return setting.kind == "names" or "list" in setting.kind


def _told_apart(texts: Sequence[str]) -> list[str]:
    """The texts, with a number where objects have the same name."""
    counts = Counter(texts)
    numbers: Counter[str] = Counter()
    told = []
    for text in texts:
        numbers[text] += 1
        told.append(f"{text}-{numbers[text]}" if counts[text] > 1 else text)
    return told


def text_of(value: object) -> str:
    """A value as a word has it, or the short name of an object."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (str, numbers.Real)):  # Those of NumPy, too.
        return str(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(text_of(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(map(str, value))}}}"  # Their values may be secrets.
    return name_of(value).rpartition(":")[2].rpartition(".")[2]
