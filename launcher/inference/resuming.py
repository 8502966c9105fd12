"""The settings of a run that is continued from its directory, which is data: see `settings/trust.py`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...envs.sources import folder_of
from ...replay import CheckpointError, ConfigError
from ...replay.files import read_text
from ..record.checkpoint import find
from ..settings.compose import compose
from ..settings.dotted import split_target
from ..settings.interpolation import resolve_interpolations
from ..settings.plain_yaml import load_foreign
from ..settings.schema import ALIASES, schema
from ..settings.secrets import still_hidden, unsaved_secrets
from ..settings.settings import Settings
from ..settings.trust import known_object, saved_argument
from .run_directory import find_run

_LENGTHS = ("epochs", "train_steps")
_OF_THE_CALL = ("resume", "override")  # Words of one call, which the next one must not repeat.


def resumed_settings(path: Path, words: list[str], *, trust: bool) -> Settings:
    """The settings of a run's `config.yaml`, overridden by the words, to continue it in its directory.

    Raises:
        ConfigError: If it is not a run directory, the run is finished, or names must be given here.
    """
    path = find_run(path)
    path = path.parent.parent if (path / "manifest.json").exists() else path
    saved = _saved(path)
    given = compose(["resume=true", *words] if "resume=force" not in words else words, {})
    _refuse_finished(path, given, saved, words)
    values, state = dict(given.values), _state(path)
    asked = state.get("given")
    if asked is None:  # Not saved yet: what is not the default was asked for.
        asked = [key for key, value in saved.items() if value not in (None, values.get(key))]
    names = [_path_of(word) for word in words]
    for key, value in saved.items():
        if key in values and key not in _OF_THE_CALL:
            parts = [name[1] for name in names if name[0] == key and name[1:]]
            values[key] = _laid_over(value, given.values[key], whole=[key] in names, parts=parts)
    values["path"], values["trust"] = str(path.absolute()), trust
    settings = Settings(values, given={*asked, *given.given, "path"} & values.keys())
    settings.places = _places(path, saved, given, names)
    settings.hidden = still_hidden(given.hidden, given.values, values)
    mistakes = list(unsaved_secrets(values, schema()))
    resolve_interpolations(settings, mistakes)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    objects = frozenset(state.get("objects", ()))
    gone = _find_arguments(settings, given, objects, trust=trust)
    if not trust:
        _check(path, settings, given, words, objects)
    if gone:
        raise _gone(path, gone)
    return settings


def _places(
    path: Path, saved: Mapping[str, Any], given: Settings, names: list[list[str]]
) -> dict[str, str]:
    """The dotted keys that the run's `config.yaml` sets, so that they are looked up as a file's names are."""
    file, places = f"{path}/config.yaml", dict(given.places)
    for key, value in saved.items():
        if not any(name[0] == key for name in names):
            places[key] = file
        elif [key] not in names:
            places[f"{key}._target_"] = file
        said = {name[1] for name in names if name[0] == key and name[1:]}
        places |= {f"{key}.{a}": file for a in split_target(value)[1] if a not in said}
    return places


def _path_of(word: str) -> list[str]:
    """The setting that a word sets, and the sub-keys: `["optim", "lr"]`."""
    first, *rest = word.partition("=")[0].lstrip("+").split(".")
    return [ALIASES.get(first, first), *rest]


def _laid_over(saved: Any, given: Any, *, whole: bool, parts: list[str]) -> Any:
    """A saved setting, overridden by the words.

    Sub-keys alone (`optim.lr=1e-3`) leave the rest as it was. So does the name of the saved class, which
    words have to repeat for code that is not imported from a directory; another class has its own arguments.

    Args:
        whole: Whether a word sets the setting itself.
        parts: The sub-keys that words set.
    """
    target, arguments = split_target(saved)
    if whole:
        named, own = split_target(given)
        if not arguments or _last(named) != _last(target):
            return given
        return {"_target_": named, **arguments, **own}
    if not parts:
        return saved
    named = {} if target is None else {"_target_": target}
    return {**named, **arguments, **{part: given[part] for part in parts}}


def _last(name: object) -> str:
    return str(name).replace(":", ".").rpartition(".")[2]


def _find_arguments(
    settings: Settings, given: Settings, objects: frozenset[str], *, trust: bool
) -> list[str]:
    """Look up the saved arguments that were Python objects, such as `model.act`; returns those not found."""
    gone = []
    for path in sorted(objects):
        key, _, argument = path.partition(".")
        value = split_target(settings.values.get(key))[1].get(argument)
        if not argument or value is None or argument in split_target(given.values.get(key))[1]:
            continue
        if (found := saved_argument(str(value), trust=trust)) is None:
            gone.append(f"{path} ({value})")
        else:
            settings.live[path] = found
    return gone


def _gone(path: Path, gone: list[str]) -> ConfigError:
    return ConfigError(
        f"The run in {path} was given Python objects, which its directory does not hold: "
        f"{', '.join(gone)}. Continue it in Python: ml(..., resume=True) with the same arguments."
    )


def _saved(path: Path) -> dict[str, Any]:
    """What `config.yaml` holds.

    Raises:
        ConfigError: If it cannot be read.
    """
    try:
        values = load_foreign(read_text(path / "config.yaml"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be resumed: config.yaml cannot be read ({error})."
        ) from error
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} cannot be resumed: config.yaml holds no settings.")
    return dict(values)


def _state(path: Path) -> Mapping[str, Any]:
    """The newest checkpoint's words about the settings; empty if there is none yet."""
    try:
        state = find(path, without=("replay", "learner", "environment", "augmentation", "actor"))
    except CheckpointError:
        return {}
    return state


def _refuse_finished(
    path: Path, given: Settings, saved: Mapping[str, Any], words: list[str]
) -> None:
    """Refuse a finished run, unless it is to learn for longer.

    Raises:
        ConfigError: Saying how to go on.
    """
    try:
        status = json.loads(read_text(path / "status.json"))["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if status != "finished" or given.given & set(_LENGTHS):
        return
    length = "train_steps" if saved.get("epochs") is None and saved.get("train_steps") else "epochs"
    had = saved.get(length) or 10
    longer = shlex.join(["ml", "resume", str(path), *words, f"{length}={2 * had}"])
    raise ConfigError(
        f"The run in {path} is finished. To train it for longer: {longer} (it had {had}). "
        f"To start another run from its weights, add load={path} to that run's command."
    )


def _check(
    path: Path, settings: Settings, given: Settings, words: list[str], objects: frozenset[str]
) -> None:
    """Refuse names in the directory that would run code which nobody named here; all of them at once.

    Raises:
        ConfigError: With the words to add.
    """
    gone, unnamed = [], []
    for key, setting in schema().items():
        value = settings.values.get(key)
        if not setting.names_object or value is None:
            continue
        said, own = split_target(given.values[key] if key in given.given else None)
        if said is not None:
            kept = split_target(value)[1]
            unnamed += [f"{key}.{a}={v}" for a, v in kept.items() if a not in own and not _plain(v)]
            continue
        for item in value if isinstance(value, list) else [value]:
            target, arguments = split_target(item)
            name = str(target)
            if " of " in name or key in objects:
                gone.append(f"{key} ({name})")
            elif not _known(name, key) or not _plain(arguments):
                unnamed.append(f"{key}={name}")
    if gone:
        raise _gone(path, gone)
    if unnamed:
        again = shlex.join(["ml", "resume", str(path), *words, *unnamed])
        raise ConfigError(
            f"The run in {path} names {', '.join(unnamed)}, and code that a run directory names is not "
            f"imported. If it is yours, name it again: {again}. Or add trust=true."
        )


def _known(name: str, key: str) -> bool:
    """Whether looking a name up runs no foreign code."""
    of_data = key in ("dataset", "test_dataset")
    if of_data and (folder_of(name) is not None or Path(name).is_file() or name.endswith(".tar")):
        return True
    return known_object(name, key) is not None


def _plain(value: object) -> bool:
    """Whether arguments hold no names of classes to construct."""
    if isinstance(value, Mapping):
        return "_target_" not in value and all(map(_plain, value.values()))
    return all(map(_plain, value)) if isinstance(value, list) else True
