"""Hydra's sweeps: `ml -m seed=1,2,3` runs every combination.

Beside `words`, the only file that talks to Hydra.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...replay.errors import ConfigError
from ...replay.files import link_in
from .bare_words import without_bare_words
from .presets import find
from .schema import ALIASES, schema
from .unknown import unknown_setting
from .words import parse_word

_PRESET = "preset_"  # The name of `task` in Hydra's sweeps.


def run_multirun(words: list[str], job: Callable[[list[str], list[str]], object]) -> None:
    """Hydra's sweepers and launchers over `words`; `job(words, swept)` runs one combination.

    `swept` are the job's words that differ between jobs. Hydra only sees words that force their key
    (`++optim._target_=SGD`), so that it never refuses what our own composition accepts.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.overrides_parser import OverridesParser

    # Hydra writes its own file there, through a link if there is one.
    if (runs := Path("runs")).is_dir() and (found := link_in(runs, names=(".multirun",))):
        raise ConfigError(f"{found} is a link, or not a regular file. Remove it.")
    mistakes: list[str] = []
    forced = [_force(word, mistakes) for word in without_bare_words(words, mistakes)]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    parser = OverridesParser.create()
    parsed = [parse_word(parser, word) for word in forced]
    constant = {p.get_key_element() for p in parsed if not p.is_sweep_override()}

    parent, failures = os.getpid(), []

    @hydra.main(version_base="1.3", config_path="pkg://antelope.hyperparams", config_name="config")
    def task(_: object) -> Any:
        words = list(HydraConfig.get().overrides.task)
        names = {word: said(word) if _PRESET in word else word for word in words}
        chosen = list(names.values())
        try:
            return job(chosen, [names[w] for w in words if w.partition("=")[0] not in constant])
        except Exception as error:
            if os.getpid() != parent:
                raise  # In a process of a Hydra launcher, which reports errors itself.
            # One failure must not cost the other combinations.
            error.add_note(f"In the run {' '.join(said(word) for word in chosen)}.")
            failures.append(error)

    before = sys.argv
    sys.argv = [before[0], "--multirun", *forced]
    try:
        task()
    finally:
        sys.argv = before
    if failures:
        raise failures[0]


def said(word: str) -> str:
    """`optim=SGD` of `++optim._target_=SGD`."""
    return word.lstrip("+").replace("._target_=", "=").replace(f"{_PRESET}=", "task=", 1)


def _force(word: str, mistakes: list[str]) -> str:
    """`optim=SGD,Adam` as `++optim._target_=SGD,Adam`: a word that Hydra itself accepts."""
    if word.startswith(("hydra.", "hydra/", "+hydra", "~", "task=glob(")):
        return word
    if word.startswith("task="):
        return _force_presets(word.removeprefix("task="), mistakes)
    key, equals, value = word.lstrip("+").partition("=")
    head, dot, rest = key.partition(".")
    head = ALIASES.get(head, head)
    key = head + dot + rest
    setting = schema().get(head)
    if setting is None and not any(name.startswith(f"{head}.") for name in schema()):
        mistakes.append(unknown_setting(key))
    if setting and setting.names_object and not dot and not value.startswith(("[", "{")):
        key = f"{key}._target_"
    if pattern := re.fullmatch(r"(optim\.groups)\.(.*\*.*)\.(\w+)", key):
        groups, name, option = pattern.groups()
        return f"++{groups}={{{name}: {{{option}: {value}}}}}"
    return f"++{key}{equals}{value}"


def _force_presets(value: str, mistakes: list[str]) -> str:
    """The presets of a sweep, under a key for which Hydra searches no folder: they may be the user's."""
    names = [name.strip("'\" ") for name in value.split(",")]
    for name in names:
        try:
            find(name, Path())
        except ConfigError as error:
            mistakes.append(str(error))
    quoted = [name if re.fullmatch(r"[\w./@+-]+", name) else f"'{name}'" for name in names]
    return f"++{_PRESET}={','.join(quoted)}"
