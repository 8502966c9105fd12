"""Nested dicts of arrays and numbers, kept in a folder without pickle: JSON, and one file an array."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .errors import CheckpointError

_NAME = "replay.json"


def save(state: dict[str, Any], folder: Path) -> None:
    """Write beside, then rename: an earlier archive is there until the new one is whole.

    Raises:
        CheckpointError: If the folder holds something else.
    """
    if folder.exists() and not (folder / _NAME).is_file():
        raise CheckpointError(f"{folder} is there already and is no saved replay.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        (beside / _NAME).write_text(json.dumps(_write(state, beside)))
        if folder.exists():
            shutil.rmtree(folder)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def load(folder: Path) -> dict[str, Any]:
    """What `save` wrote; arrays are mapped, not read.

    Raises:
        CheckpointError: If it is not there, or damaged.
    """
    try:
        state: dict[str, Any] = _read(json.loads((folder / _NAME).read_text()), folder)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} is no saved replay that can be read: {error}") from error
    return state


def _write(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {"dict": [[key, _write(item, folder)] for key, item in value.items()]}
    if isinstance(value, (np.ndarray, torch.Tensor)):
        array = value.cpu().numpy() if isinstance(value, torch.Tensor) else value
        name = f"{len(os.listdir(folder))}.npy"
        np.save(folder / name, array, allow_pickle=False)
        kind = "tensor" if isinstance(value, torch.Tensor) else "array"
        return {kind: name}
    return {"value": value}


def _read(node: dict[str, Any], folder: Path) -> Any:
    kind, value = next(iter(node.items()))
    if kind == "dict":
        return {key: _read(item, folder) for key, item in value}
    if kind == "value":
        return value
    if Path(value).name != value:
        raise ValueError(f"{value!r} is not the name of a file in it")
    array = np.load(folder / value, mmap_mode="r", allow_pickle=False)
    return torch.from_numpy(np.array(array)) if kind == "tensor" else array
