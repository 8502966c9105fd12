"""Checkpoints: numbered folders of plain data, read without executing code.

A folder holds `model.safetensors` (the user's module under its own names, for other tools), the other
tensors in `tensors.safetensors`, everything else in `state.json`, and `manifest.json` (the SHA-256 of each).
It is written under another name, synced, then renamed, so that every numbered folder is complete. Hashes
reveal a damaged one, which is reported and skipped.
"""

from __future__ import annotations

import collections
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...replay import CheckpointError

FORMAT = "antelope-checkpoint-2"
_KNOWN = ("antelope-checkpoint-1", FORMAT)  # 1: before 0.5.0, without the module's own file.
KEEP = 3  # A damaged newest checkpoint leaves two to fall back to.
MODEL = "model.safetensors"
_FILES = ("tensors.safetensors", "state.json")
_FORMATS = re.compile("antelope-checkpoint-([0-9]{1,9})")
_NUMBER = re.compile("[0-9]{6,18}")  # The name of a checkpoint's folder.
_IN_MODEL = "model:"  # Before the names of tensors that state.json refers to in `MODEL`.


class NewerCheckpoint(CheckpointError):
    """A checkpoint is whole, but of a format that only later versions read."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: Holds `000001/`, `000002/`, ...; created by the first `save`.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def numbered(self) -> list[Path]:
        """The numbered folders, newest first."""
        if not self.folder.is_dir():
            return []
        folders = (path for path in self.folder.iterdir() if _NUMBER.fullmatch(path.name))
        # As numbers: 1000000 comes after 999999.
        return sorted(folders, key=lambda path: int(path.name), reverse=True)

    def save(self, state: dict[str, Any], *, model: Mapping[str, Tensor] | None = None) -> Path:
        """Write a checkpoint durably, and remove the oldest beyond `KEEP`.

        Args:
            state: Nested dicts and lists of tensors, arrays and scalars, of any dtype and device.
            model: As for `write`.

        Returns:
            The new folder.

        Raises:
            CheckpointError: If the state holds an object of any other type.
        """
        existing = self.numbered()
        number = int(existing[0].name) + 1 if existing else 1
        final = self.folder / f"{number:06d}"
        partial = self.folder / f"partial-{number:06d}"
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        write(partial, state, model=model)
        os.replace(partial, final)
        _sync(self.folder)
        for old in existing[KEEP - 1 :]:
            shutil.rmtree(old, ignore_errors=True)
        return final

    def newest(self, *, without: Collection[str] = ()) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest valid checkpoint.

        Args:
            without: As for `read`.

        Returns:
            Its state, or None, and a message for each newer one that is damaged.

        Raises:
            NewerCheckpoint: If there is one that a later version wrote. It is not passed over: what was
                learnt since the one before it would be lost.
        """
        problems: list[str] = []
        for path in self.numbered():
            try:
                return read(path, without=without), problems
            except NewerCheckpoint:
                raise
            except CheckpointError as error:
                problems.append(str(error))
        return None, problems


def write(path: Path, state: dict[str, Any], *, model: Mapping[str, Tensor] | None = None) -> None:
    """Write a checkpoint into the existing folder `path`, and sync it to the disk.

    Args:
        state: Nested dicts and lists of tensors, arrays and scalars.
        model: The weights of the user's module, for `model.safetensors`; None: there is no such file. A
            tensor that is in `state` too is written here only.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    names: dict[Any, tuple[str, Tensor]] = {}
    contents: dict[str, bytes] = {}
    if model is not None:
        contents[MODEL] = save(_as_own_file(model, names), {"format": "pt"})
    tree = _pack(state, tensors, names)
    contents["tensors.safetensors"] = save(tensors)
    contents["state.json"] = json.dumps({"format": FORMAT, "state": tree}, allow_nan=False).encode()
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    contents["manifest.json"] = json.dumps({"format": FORMAT, "sha256": hashes}, indent=1).encode()
    for name, data in contents.items():
        with open(path / name, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    _sync(path)


def read(path: Path, *, without: Collection[str] = ()) -> dict[str, Any]:
    """The state in a checkpoint folder.

    Args:
        without: Top-level keys of the state to leave out; their tensors are not read into memory.

    Raises:
        CheckpointError: If it is incomplete, damaged, or not a checkpoint.
    """
    from safetensors import safe_open

    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        hashes = manifest["sha256"]
        known = manifest["format"] in _KNOWN and {*hashes} - {MODEL} == {*_FILES}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not a complete checkpoint: manifest.json cannot be read ({error})."
        ) from error
    if not known:
        raise _unknown(path, manifest.get("format"))
    for name in hashes:
        try:
            with open(path / name, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(
                f"{path} is incomplete: {name} cannot be read ({error})."
            ) from error
        if digest != hashes[name]:
            raise CheckpointError(f"{path} is damaged: {name} does not match its SHA-256.")
    try:
        tree = json.loads((path / "state.json").read_bytes())["state"]
        tree = {key: part for key, part in tree.items() if key not in without}
        with ExitStack() as opened:
            files = {
                name: opened.enter_context(safe_open(path / name, framework="pt"))
                for name in (MODEL, "tensors.safetensors")
                if name in hashes
            }

            def tensor(name: str) -> Tensor:
                file = MODEL if name.startswith(_IN_MODEL) else "tensors.safetensors"
                found: Tensor = files[file].get_tensor(name.removeprefix(_IN_MODEL))
                return found

            return _unpack(tree, tensor)
    except Exception as error:  # Files of another origin may raise anything.
        raise CheckpointError(f"{path} was not written by a run: {error!r}.") from error


def _unknown(path: Path, written: object) -> CheckpointError:
    """The error for a checkpoint whose format this version does not read."""
    newest = int(FORMAT.rpartition("-")[2])
    number = _FORMATS.fullmatch(written) if isinstance(written, str) else None
    if number is not None and int(number[1]) > newest:
        return NewerCheckpoint(
            f"{path} was written by a newer version of Antelope (checkpoint format {number[1]}; this version "
            f"reads 1 to {newest}). Install that version or a later one: pip install -U antelope-ml."
        )
    return CheckpointError(f"{path} has an unknown checkpoint format: {written!r}.")


def find(path: Path, *, without: Collection[str] = ()) -> dict[str, Any]:
    """The state in a checkpoint folder, or the newest valid one of a run directory.

    Args:
        without: As for `read`.

    Raises:
        CheckpointError: If there is none.
    """
    if (path / "manifest.json").exists():
        return read(path, without=without)
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    checkpoints = Checkpoints(folder)
    seen = checkpoints.numbered()
    state, problems = checkpoints.newest(without=without)
    while state is None and seen != (seen := checkpoints.numbered()):
        # A run that is still training has replaced all of them in the meantime.
        state, problems = checkpoints.newest(without=without)
    if state is None:
        found = "; ".join(problems).removesuffix(".") if problems else "it holds no checkpoint"
        raise CheckpointError(
            f"Cannot load {path}: {found}. Pass a run directory or one of its checkpoints/ folders."
        )
    return state


def copied(state: dict[str, Any]) -> dict[str, Any]:
    """`state` as if saved and read back: on the CPU, and sharing no memory with the original."""
    tensors: dict[str, Tensor] = {}
    tree = _pack(state, tensors, {})
    again: dict[str, Any] = _unpack(tree, tensors.__getitem__)
    return again


def _as_own_file(
    model: Mapping[str, Tensor], names: dict[Any, tuple[str, Tensor]]
) -> dict[str, Tensor]:
    """The tensors of `model.safetensors`: a copy under every name, also of those that share memory.

    Args:
        names: Receives where each tensor is, by memory region.
    """
    copies: dict[str, Tensor] = {}
    for name, value in model.items():
        tensor = value.detach()
        names.setdefault(_memory(tensor), (f"{_IN_MODEL}{name}", tensor))
        copies[name] = tensor.cpu().clone(memory_format=torch.contiguous_format)
    return copies


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    """Identifies the memory of a tensor, as long as the tensor exists."""
    return (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device)


def _pack(value: object, tensors: dict[str, Tensor], names: dict[Any, tuple[str, Tensor]]) -> Any:
    """JSON for `value`, in which names stand for tensors; tensors that share memory get one name.

    Args:
        tensors: Receives the tensors by name, contiguous on the CPU.
        names: Name by memory region, of the tensors so far.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(float(value))}  # JSON has no NaN and no infinity.
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return _pack(value.item(), tensors, names)
    if isinstance(value, np.ndarray):
        array = np.array(value, order="C", dtype=value.dtype.newbyteorder("="))
        return {"$array": _pack(torch.from_numpy(array), tensors, names)}
    if isinstance(value, Tensor):
        tensor = value.detach()
        memory = _memory(tensor)
        if tensor.numel() == 0 or memory not in names:
            # Hold the tensor: once freed, its address could be reused by another.
            names[memory] = (str(len(tensors)), tensor)
            copy = tensor.cpu().clone(memory_format=torch.contiguous_format)
            tensors[names[memory][0]] = copy
        return {"$tensor": names[memory][0]}
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _pack(item, tensors, names) for key, item in value.items()}
        pairs = [[_pack(k, tensors, names), _pack(v, tensors, names)] for k, v in value.items()]
        return {"$dict": pairs}
    if isinstance(value, (list, collections.deque)):
        return [_pack(item, tensors, names) for item in value]
    if isinstance(value, (tuple, set)):
        return {"$tuple": [_pack(item, tensors, names) for item in value]}
    raise CheckpointError(f"Cannot save a {type(value).__name__} in a checkpoint.")


def _unpack(value: Any, tensors: Callable[[str], Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((kind, content),) = value.items()
        if kind == "$tensor":
            # Cloned: safetensors' views may be unaligned, and share one buffer.
            return tensors(content).clone()
        if kind == "$array":
            return _unpack(content, tensors).numpy()
        if kind == "$float":
            return float(content)
        if kind == "$bytes":
            return bytes.fromhex(content)
        if kind == "$tuple":
            return tuple(_unpack(item, tensors) for item in content)
        if kind == "$dict":
            return {_unpack(k, tensors): _unpack(v, tensors) for k, v in content}
    return {key: _unpack(item, tensors) for key, item in value.items()}


def _sync(folder: Path) -> None:
    """Sync a folder's entries to the disk, where the system can: a rename alone may be lost in a crash."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
