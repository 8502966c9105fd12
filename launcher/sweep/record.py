"""`sweep.json`, beside the runs of a sweep: its words, its runs, and how those that have ended did."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...replay.errors import ConfigError
from ...replay.files import read_text, replacing
from ..settings.secrets import NOT_SAVED, tells_secret
from .trial import Outcome, Trial

NAME = "sweep.json"


class Record:
    """Writes `sweep.json`. It holds nothing that a sweep needs to go on: that is in the run directories.

    Args:
        folder: Where the file is.
        words: Those of the sweep, as typed.

    Raises:
        ConfigError: If the file is a link.
    """

    def __init__(self, folder: Path, words: Sequence[str]):
        self.path = folder / NAME
        if self.path.is_symlink():
            raise ConfigError(f"{self.path} is a link, or not a regular file. Remove it.")
        before = _read(self.path)
        self._runs: dict[str, dict[str, Any]] = {}
        # Those of other sweeps of this experiment, which a later start may ask for.
        self._earlier = {run["path"]: run for run in [*before["earlier"], *before["runs"]]}
        self._about = {
            "words": [_without_secret(word) for word in words],
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def digest_of(self, trial: Trial) -> str:
        """The digest of the settings that the run in this trial's directory was started with; or empty."""
        run = self._runs.get(str(trial.path)) or self._earlier.get(str(trial.path)) or {}
        return str(run.get("settings", ""))

    def add(self, trial: Trial, digest: str) -> None:
        """Add a run to the sweep, without writing the file."""
        self._earlier.pop(str(trial.path), None)
        self._runs[str(trial.path)] = {
            "path": str(trial.path),
            "swept": dict(trial.swept),
            "words": [_without_secret(word) for word in trial.words],
            "settings": digest,
        }

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        """Note how a run ended, without writing the file."""
        run = self._runs[str(trial.path)]
        run |= {"status": outcome.status, "reason": outcome.reason}

    def write(self) -> None:
        """Write the file, whole.

        Raises:
            ConfigError: If it cannot be written.
        """
        swept = dict.fromkeys(key for run in self._runs.values() for key in run["swept"])
        whole = {
            **self._about,
            "swept": list(swept),
            "runs": list(self._runs.values()),
            "earlier": list(self._earlier.values()),
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path, newline="") as file:
                file.write(json.dumps(whole, indent=1) + "\n")
        except OSError as error:
            raise ConfigError(
                f"Cannot write {self.path} ({error.strerror or error}). Set another experiment=."
            ) from error


def _read(path: Path) -> dict[str, Any]:
    """What a file holds; empty lists if there is none, or it is damaged."""
    try:
        found = json.loads(read_text(path))
        runs = {key: [_checked(run) for run in found[key]] for key in ("runs", "earlier")}
    except (OSError, ValueError, KeyError, TypeError):
        return {"runs": [], "earlier": []}
    return runs


def _checked(run: Mapping[str, Any]) -> dict[str, Any]:
    os.fspath(run["path"])
    return dict(run)


def _without_secret(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{key}={NOT_SAVED}" if tells_secret(key, value) else word
