"""What a run directory holds beside its checkpoints: where it is, its history and its tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ...replay import ConfigError
from ...replay.files import read_text
from ..record.checkpoint import Checkpoints
from ..record.csv_file import rows_of
from ..record.history import History


def find_run(path: Path) -> Path:
    """The run directory or checkpoint that a path means.

    Raises:
        ConfigError: If there is not exactly one.
    """
    path = path.expanduser()
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ConfigError(
            f"{path} {what}. Give a run directory, as run.path or the console shows it."
        )
    if any((path / name).exists() for name in ("config.yaml", "checkpoints", "manifest.json")):
        return path
    if Checkpoints(path).numbered():
        return path.parent if path.name == "checkpoints" else path
    found = sorted(file.parent for file in path.glob("**/config.yaml"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(
            f"{path} is not a run directory, and holds none: there is no config.yaml."
        )
    some = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
    raise ConfigError(f"{path} holds {len(found)} runs. Name one: {some}")


def history(path: Path, counts: Mapping[str, int]) -> History:
    """The rows of the CSV files in the order of their steps.

    Args:
        counts: Rows of `train` and `eval` up to the checkpoint; the run may have written more since.

    Raises:
        ConfigError: If a file is a link, or cannot be read.
    """
    files = {mode: path / f"{mode}.csv" for mode in ("train", "eval")}
    try:
        # Files from elsewhere may have lost rows.
        there = {m: sum(1 for _ in islice(rows_of(files[m]), counts.get(m, 0))) for m in files}
        return History(files, there)
    except OSError as error:
        raise ConfigError(f"Cannot read the run in {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"Cannot read the run in {path}: {error}.") from error


def tasks_of(path: Path) -> list[dict[str, Any]]:
    """The costs of each task from `status.json`; empty if it cannot be read."""
    try:
        tasks = json.loads(read_text(path / "status.json"))["tasks"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return tasks if isinstance(tasks, list) else []
