"""Words that are not of the form key=value: `--epochs 5`, `ml train`, `MNIST`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Any

from ...replay.suggestions import did_you_mean
from .foreign import answer
from .presets import presets
from .schema import ALIASES, schema

COMMANDS = (
    *("models", "datasets", "envs", "strategies", "tasks", "plot"),
    *("eval", "predict", "play", "export", "resume", "compat"),
)
_OURS = (*COMMANDS, "--help", "--cfg", "--multirun", "--version", "--completion")
# Commands of other tools, and what to write here instead.
_COMMANDS = {
    "train": "`ml` alone trains, as in `ml model=Model dataset=MNIST`",
    "fit": "`ml` alone trains, as in `ml model=Model dataset=MNIST`",
    "run": "`ml` alone trains, as in `ml model=Model dataset=MNIST`",
    "learn": "`ml` alone trains, as in `ml model=Model dataset=MNIST`",
    "test": "`ml eval RUN` evaluates a run",
    "evaluate": "`ml eval RUN` evaluates a run",
    "validate": "`ml eval RUN` evaluates a run",
    "infer": "`ml predict RUN INPUTS out=predictions.csv` predicts for new inputs",
    "continue": "`ml resume RUN` continues a run",
    "sweep": "-m runs every combination, as in `ml -m seed=1,2,3 lr=1e-3,1e-2`",
    "multirun": "-m runs every combination, as in `ml -m seed=1,2,3 lr=1e-3,1e-2`",
    "config": "`ml --cfg job` prints the composed configuration",
    "list": "`ml models`, `datasets`, `envs`, `strategies` and `tasks` list what can be named",
    "agents": "`ml models` lists agents too",
    "optims": "`optim=` takes any name of torch.optim",
    "presets": "`ml tasks` lists them",
}


def without_bare_words(words: Iterable[Any], mistakes: list[str]) -> list[Any]:
    """Keep the words of the form key=value; report each other word, with what to write instead."""
    settings = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not isinstance(word, str) or not word.strip():
            settings.append(word)
            continue
        key, value, taken = _option(word, rest)
        if key is None:
            # Items of a list of environments are addressed by their id, without its module.
            settings.append(re.sub(r"^(env\.)[\w.]+:(?=[^=]*\.\w+=)", r"\1", word))
            continue
        said = " ".join([word, *rest[:taken]])
        del rest[:taken]
        mistakes.append(_mistake(said, word, key, value))
    return settings


def _option(word: str, rest: list[str]) -> tuple[str | None, str | None, int]:
    """The key and value that a word was meant as, and how many of the words after it belong to it.

    `--epochs 5`, `--epochs=5`, `-lr 1e-3`, `epochs 5`, `epochs: 5`, `epochs = 5`, `epochs= 5`.
    """
    if word.startswith("~") or re.match(r"[^-=:\s][^=:\s]*\s*=|env\.[\w.]+:[^=]*=", word):
        if (joined := re.fullmatch(r"([^=]*\S)\s*=\s*", word)) and rest and _is_value(rest[0]):
            return joined[1], rest[0], 1
        return None, None, 0
    found = re.match(r"-*([^=:\s]*)(\s*[=:]\s*|\s+|)(.*)", word, re.DOTALL)
    assert found is not None  # The pattern matches any text.
    key, sign, value = found.groups()
    if value or not key:
        return key or word, value or None, 0
    if rest and rest[0].startswith("="):
        if rest[0] != "=":
            return key, rest[0][1:], 1
        return (key, rest[1], 2) if len(rest) > 1 else (key, None, 1)
    if word in _COMMANDS:
        return key, None, sum(1 for _ in itertools.takewhile(_is_value, rest))
    known = _setting(key) is not None or answer(key) is not None
    if rest and _is_value(rest[0]) and (known or sign or word.startswith("--")):
        return key, rest[0], 1
    return key, None, 0


def _is_value(word: object) -> bool:
    """Whether a word may be the value of the one before it."""
    option = isinstance(word, str) and word.startswith("-") and not re.match(r"-[\d.]", word)
    return isinstance(word, str) and "=" not in word and not option


def _mistake(said: str, word: str, key: str, value: str | None) -> str:
    if value is None and word in _COMMANDS:
        return f"`ml {word}` is not a command: {_COMMANDS[word]}."
    if file := re.fullmatch(r"(.+\.py)(:\w+)?", word):
        return f"`{said}`: to name a model, write model={file[1]}{file[2] or ':Name'}."
    if re.fullmatch(r"[\w.]+:[\w./-]+-v\d+", said):
        return f"`{said}`: settings are words of the form key=value. Write env={said}."
    name = _setting(key)
    if name is not None and value is None and word.startswith("-") and _is_bool(name):
        value = "true"
    off = re.sub("^no[-_]?", "", key)
    if name is None and off != key and _is_bool(_setting(off)):
        name, value = _setting(off), "false"
    if name is not None and value is not None:
        return f"`{said}`: settings are words of the form key=value. Write {name}={value}."
    if name is None and (foreign := answer(key)) is not None:
        return foreign
    if value is None and not word.startswith("-") and (found := _named(word)) is not None:
        return f"`{word}`: settings are words of the form key=value. Write {found}={word}."
    names = [*_OURS, *_COMMANDS]
    if value is not None or word.startswith("--"):
        names += [*schema(), *ALIASES, "task"]
    near = (
        f" Write {name}=VALUE." if name else did_you_mean(key, names) or did_you_mean(word, names)
    )
    return f"`{said}` is neither a setting (key=value) nor a command.{near} `ml --help` shows both."


def _named(word: str) -> str | None:
    """The setting that a bare word, such as `MNIST` or `CartPole-v1`, is a value of; or None."""
    from .imports import classes_here
    from .names import builtin_names, library_names

    if word in presets():
        return "task"
    if word in classes_here():
        return "model"
    kinds = ("dataset", "model", "env", "strategy")
    if found := next((kind for kind in kinds if word in builtin_names(kind)), None):
        return found
    return next((kind for kind in kinds[:3] if word in library_names(kind)), None)


def _is_bool(name: str | None) -> bool:
    return name in schema() and schema()[name].kind.startswith("bool")


def _setting(key: str) -> str | None:
    """Our setting of that name, dashes and all: `batch_size` of `batch-size`, `optim.lr` of itself."""
    name = key.replace("-", "_")
    root = name.split(".")[0]
    if name in schema() or name in ALIASES or name == "task":
        return name
    below = root in ALIASES or (root in schema() and schema()[root].names_object)
    return name if below and "." in name else None
