"""Nested dicts of arrays and numbers, saved to a folder without pickle: JSON, and one file per array.

`manifest.json` holds the SHA-256 of each file, so that damaged files are not loaded.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .errors import CheckpointError

_NAME, _MANIFEST = "replay.json", "manifest.json"
_FORMAT = "antelope-replay-1"


def save(state: dict[str, Any], folder: Path) -> None:
    """Write to a temporary folder, then rename it: an earlier archive stays until the new one is complete.

    Raises:
        CheckpointError: If the folder holds something else.
    """
    if folder.exists() and not (folder / _NAME).is_file():
        raise CheckpointError(f"{folder} already exists and is not a saved replay.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        (beside / _NAME).write_text(json.dumps(_write(state, beside), allow_nan=False))
        hashes = {name: _hash(beside / name) for name in sorted(os.listdir(beside))}
        (beside / _MANIFEST).write_text(json.dumps({"format": _FORMAT, "sha256": hashes}))
        if folder.exists():
            shutil.rmtree(folder)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def load(folder: Path) -> dict[str, Any]:
    """The state that `save` wrote; arrays are memory-mapped, not read.

    Raises:
        CheckpointError: If it does not exist, or is damaged.
    """
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        if manifest["format"] != _FORMAT:
            raise ValueError(f"its format is {manifest['format']}, not {_FORMAT}")
        for name, expected in manifest["sha256"].items():
            if _hash(folder / name) != expected:
                raise ValueError(f"{name} does not match its SHA-256")
        state: dict[str, Any] = _read(json.loads((folder / _NAME).read_bytes()), folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder} is not a readable saved replay: {error}") from error
    return state


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(value: object, folder: Path) -> Any:
    if isinstance(value, dict):
        return {"dict": [[key, _write(item, folder)] for key, item in value.items()]}
    if isinstance(value, (np.ndarray, torch.Tensor)):
        array = value.cpu().numpy() if isinstance(value, torch.Tensor) else value
        name = f"{len(os.listdir(folder))}.npy"
        np.save(folder / name, array, allow_pickle=False)
        kind = "tensor" if isinstance(value, torch.Tensor) else "array"
        return {kind: name}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}  # JSON has no NaN and no infinity.
    return {"value": value}


def _read(node: dict[str, Any], folder: Path) -> Any:
    kind, value = next(iter(node.items()))
    if kind == "dict":
        return {key: _read(item, folder) for key, item in value}
    if kind == "value":
        return value
    if kind == "float":
        return float(value)
    if Path(value).name != value:
        raise ValueError(f"{value!r} is not the name of a file in the folder")
    array = np.load(folder / value, mmap_mode="r", allow_pickle=False)
    return torch.from_numpy(np.array(array)) if kind == "tensor" else array
