"""Where the runs of a sweep are: decided from their words alone, without torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...envs.sequence_names import directory_name
from ...replay.errors import ConfigError
from ..settings.compose import compose
from ..settings.dotted import split_target
from ..settings.schema import schema
from ..settings.secrets import tells_secret
from ..settings.settings import Settings
from .trial import Trial

_LONGEST = 150  # Characters of a folder's name.
_NOT_NAMED = ("seed", "path", "experiment")  # What the rest of a path says.


def make_trial(
    words: Sequence[str],
    swept: Mapping[str, str],
    settings: Mapping[str, object],
    folder: Path,
) -> Trial:
    """The trial of these words, without its path; see `place`.

    Args:
        words: Its console words, those that are swept included.
        swept: What differs between the runs, by key as typed.
        settings: Keywords of Python.
        folder: The working directory, absolute.

    Raises:
        ConfigError: For words that no run accepts, or a secret that would become part of a folder's name.
    """
    composed = compose(words, settings)
    for key, value in swept.items():
        if tells_secret(key, value):
            raise ConfigError(
                f"`{key}` holds secrets, which a sweep would write into the names of its folders. Put them "
                f"into the environment, and sweep over '{key}=${{oc.env:FIRST}},${{oc.env:SECOND}}'."
            )
    kept, keywords = _without(words, ("path", "resume")), dict(settings)
    if composed.path is not None:
        return Trial(kept, Path(str(composed.path)).absolute(), swept, folder, keywords)
    experiment = str(composed.experiment)
    if varied := folder_name(swept):
        experiment = f"{experiment}/{varied}"
        kept = (*_without(kept, ("experiment",)), f"experiment={_quoted(experiment)}")
    path = Path("runs", experiment, *_last_folders(composed))
    return Trial(kept, folder / path, swept, folder, keywords)


def folder_name(swept: Mapping[str, str]) -> str:
    """`lr=0.001,optim=SGD`: what a folder of runs that differ only in their seed is called; maybe empty."""
    plain = [f"{key}={_plain(value)}" for key, value in swept.items() if key not in _NOT_NAMED]
    whole = ",".join(sorted(plain))
    if len(whole.encode()) <= _LONGEST:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{whole[: _LONGEST // 4]}...{digest}"


def sweep_folder(composed: Settings, swept: Sequence[str], folder: Path) -> Path:
    """Where `sweep.json` is: beside the runs."""
    return folder / "runs" / ("" if "experiment" in swept else str(composed.experiment))


def digest(composed: Settings) -> str:
    """Tells the settings of a run from others, as far as they matter to its results."""
    values = {
        key: value
        for key, value in composed.written().items()
        if not (key in schema() and "incidental" in schema()[key].counts)
    }
    text = replace(composed, values=values).yaml()
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: str) -> str:
    """A value as part of a folder's name; of a variable of the environment, its name."""
    value = re.sub(r"\$\{oc\.env:([^}]*)\}", r"\1", value)
    return re.sub(r"[\\/:]+", "-", re.sub(r"['\"${}]|\\(?=[^/:])", "", value)).strip()


def _quoted(text: str) -> str:
    """A text as the grammar reads it, whatever is in it."""
    quote = '"' if "'" in text else "'"
    return quote + text.replace(quote, f"\\{quote}") + quote


def _without(words: Sequence[str], keys: Sequence[str]) -> tuple[str, ...]:
    starts = tuple(f"{key}=" for key in keys)
    return tuple(word for word in words if not word.lstrip("+").startswith(starts))


def _last_folders(composed: Settings) -> list[str]:
    """Model, data and seed, as a run on its own names its folders where words tell them."""
    model = _named(composed.model, "AC2Agent")
    source = composed.dataset if composed.env is None else composed.env
    parts = source if isinstance(source, list) else [source]
    data = directory_name([_named(part, "Digits") for part in parts])
    return [re.sub(r"[^\w.+-]+", "-", name) for name in (model, data, str(composed.seed))]


def _named(item: object, default: str) -> str:
    name = str(split_target(item)[0] or default)
    if Path(name).is_dir():
        return Path(name).resolve().name
    return re.split(r"[.:]", name)[-1]
