"""The settings of a run that is continued from its directory, which is data: see `settings/trust.py`."""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...envs.sources import folder_of
from ...replay import CheckpointError, ConfigError
from ..record.checkpoint import find
from ..settings.compose import compose
from ..settings.dotted import split_target
from ..settings.imports import member
from ..settings.plain_yaml import load as load_yaml
from ..settings.schema import ALIASES, schema
from ..settings.settings import Settings
from ..settings.trust import known_object, may_be_imported
from .run_directory import find_run

# Where the classes of other settings come from; those of the rest, `known_object` knows.
_HOMES = {
    "optim": ("torch.optim",),
    "scheduler": ("torch.optim",),
    "loss": ("torch.nn",),
    "aug": ("torchvision.transforms", "antelope.envs"),
    "metrics": ("torchmetrics",),
    "callbacks": ("antelope",),
}
_LENGTHS = ("epochs", "train_steps")


def resumed_settings(path: Path, words: list[str], *, trust: bool) -> Settings:
    """The settings of a run's `config.yaml`, overridden by the words, to continue it in its directory.

    Raises:
        ConfigError: If it is not a run directory, the run is finished, or names must be given here.
    """
    path = find_run(path)
    path = path.parent.parent if (path / "manifest.json").exists() else path
    saved = _saved(path)
    given = compose([*words, "resume=true"], {})
    _refuse_finished(path, given, saved, words)
    values, state = dict(given.values), _state(path)
    asked = state.get("given")
    if asked is None:  # Not saved yet: what is not the default was asked for.
        asked = [key for key, value in saved.items() if value not in (None, values.get(key))]
    names = [word.partition("=")[0].lstrip("+").split(".") for word in words]
    for key, value in saved.items():
        if key in values and [key] not in [
            [ALIASES.get(name[0], name[0]), *name[1:]] for name in names
        ]:
            # Sub-keys alone (`optim.lr=1e-3`) leave the rest as it was.
            parts = [name[1] for name in names if name[0] == key and name[1:]]
            values[key] = value
            if parts:
                values[key] = {**value, **{part: given.values[key][part] for part in parts}}
    values["path"] = str(path.absolute())
    settings = Settings(values, given={*asked, *given.given, "path"} & values.keys())
    if not trust:
        _check(path, settings, given, words, frozenset(state.get("objects", ())))
    return settings


def _saved(path: Path) -> dict[str, Any]:
    """What `config.yaml` holds.

    Raises:
        ConfigError: If it cannot be read.
    """
    try:
        values = load_yaml((path / "config.yaml").read_text())
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
        status = json.loads((path / "status.json").read_text())["status"]
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
        named = key in given.given and split_target(given.values[key])[0] is not None
        if not setting.names_object or value is None or named:
            continue
        for item in value if isinstance(value, list) else [value]:
            target, arguments = split_target(item)
            name = str(target)
            if " of " in name or any(o == key or o.startswith(f"{key}.") for o in objects & {key}):
                gone.append(f"{key} ({name})")
            elif not _known(name, key) or not _plain(arguments):
                unnamed.append(f"{key}={name}")
    if gone:
        raise ConfigError(
            f"The run in {path} was given Python objects, which its directory does not hold: "
            f"{', '.join(gone)}. Continue it in Python: ml(..., resume=True) with the same arguments."
        )
    if unnamed:
        again = shlex.join(["ml", "resume", str(path), *words, *unnamed])
        raise ConfigError(
            f"The run in {path} names {', '.join(unnamed)}, and code that a run directory names is not "
            f"imported. If it is yours, name it again: {again}. Or add trust=true."
        )


def _known(name: str, key: str) -> bool:
    """Whether looking a name up runs no foreign code."""
    if key in ("dataset", "test_dataset") and (folder_of(name) is not None or Path(name).is_file()):
        return True
    if key == "env":
        return may_be_imported(name, key)
    if (homes := _HOMES.get(key)) is None:
        return known_object(name, key) is not None
    home, _, last = name.rpartition(".")
    if not home.startswith(homes):
        return False
    try:
        item = member(home, last)
    except ImportError:
        return False
    if not (inspect.isclass(item) or inspect.isroutine(item)):
        return False
    # A module's namespace also holds what it imports, from anywhere.
    return (item.__module__ or "").startswith(homes)


def _plain(value: object) -> bool:
    """Whether arguments hold no names of classes to construct."""
    if isinstance(value, Mapping):
        return "_target_" not in value and all(map(_plain, value.values()))
    return all(map(_plain, value)) if isinstance(value, list) else True
