"""Checkpoints: numbered folders of plain data, read without executing code.

A folder holds `model.safetensors` (the user's module under its own names, for other tools), the other
tensors in `tensors.safetensors`, a large replay in blocks of rows (`rows-*.safetensors`), everything else in
`state.json`, and `manifest.json` (size and SHA-256 of each). It is written under another name, synced, then
renamed, so that every numbered folder is complete. Hashes reveal a damaged one, which is reported, then
skipped.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from torch import Tensor

from ...replay import CheckpointError
from ...replay.blocks import SavedColumns
from ...replay.files import new_folder, remove_partial
from ...replay.manifest import (
    LARGEST_JSON,
    MANIFEST,
    Manifest,
    Written,
    open_checked,
    parse_json,
    read_json,
    read_manifest,
    write_file,
    write_manifest,
)
from ...replay.ranks import Ranks, ranks
from ...replay.structure import each, text
from .column_blocks import FORM, read_columns, write_columns
from .packing import IN_MODEL, Packed, unpack
from .rank_parts import OtherRanks, folder_of, read_parts, save_parts
from .tensor_file import TensorFile, entry_of
from .tensor_file import write as write_tensors

FORMAT = "antelope-checkpoint-3"
_IN_BLOCKS = [FORMAT]  # With the sizes of files, and replays in blocks.
# 1: before 0.5.0, without the module's own file; 2: with it.
_KNOWN = ("antelope-checkpoint-1", "antelope-checkpoint-2", FORMAT)
KEEP = 3  # A damaged newest checkpoint leaves two to fall back to.
MODEL = "model.safetensors"
_TENSORS, _STATE = "tensors.safetensors", "state.json"
_FILES = (_TENSORS, _STATE)
_FORMATS = re.compile("antelope-checkpoint-([0-9]{1,9})")
_NUMBER = re.compile("[0-9]{6,18}")  # The name of a checkpoint's folder.


class NewerCheckpoint(CheckpointError):
    """A checkpoint is whole, but of a format that only later versions read."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: Holds `000001/`, `000002/`, ...; created by the first `save`.

    Attributes:
        problem: Why the last `save` left out the replay; None if it did not.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.problem: str | None = None

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
            OSError: Of the system, such as a full disk. Nothing is left behind.
        """
        if (place := ranks()).own:
            self._save_parts(place, state, model)
            if place.rank:
                return self._next()
        return self._save(self._next(), state, model)

    def _next(self) -> Path:
        """The folder of the next checkpoint."""
        earlier = self.numbered()
        return self.folder / f"{int(earlier[0].name) + 1 if earlier else 1:06d}"

    def _save_parts(
        self, place: Ranks, state: dict[str, Any], model: Mapping[str, Tensor] | None
    ) -> None:
        """Let every rank but 0 save its own part, under the number that rank 0's will have."""
        name = place.by_first(lambda: self._next().name)
        mine = Checkpoints(folder_of(self.folder, place.rank))

        def save() -> None:
            # Of a run that ended before rank 0 had written its own.
            shutil.rmtree(mine.folder / name, ignore_errors=True)
            mine._save(mine.folder / name, state, model)

        save_parts(save)

    def _save(self, final: Path, state: dict[str, Any], model: Mapping[str, Tensor] | None) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_partial(self.folder)
        for old in self.folder.glob("partial-*"):  # Of a version before 0.5.0 that was killed.
            shutil.rmtree(old, ignore_errors=True)
        with new_folder(final) as partial:
            self.problem = write(partial, state, model=model, earlier=self.numbered())
        _sync(self.folder)
        self._remove_oldest()
        return final

    def save_crash(self, state: dict[str, Any], *, model: Mapping[str, Tensor]) -> Path:
        """Write a checkpoint of the moment of an error, which a resume does not use; arguments as for `save`.

        Returns:
            The folder, `crash`, which replaces an earlier one.

        Raises:
            CheckpointError, OSError: As for `save`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        final = self.folder / "crash"
        if final.exists():
            shutil.rmtree(final)
        with new_folder(final) as partial:
            write(partial, state, model=model, earlier=self.numbered())
        return final

    def _remove_oldest(self) -> None:
        """Keep the newest `KEEP` to resume from, and one with the weights alone if it is newer than these."""
        whole = alone = 0
        for path in self.numbered():
            try:
                left_out = _left_out(_manifest(path))
            except CheckpointError:
                left_out = []  # Damaged ones count as they did when they were written.
            whole, alone = whole + (not left_out), alone + bool(left_out)
            if whole > KEEP or (left_out and (whole or alone > 1)):
                shutil.rmtree(path, ignore_errors=True)

    def newest(self, *, without: Collection[str] = ()) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest valid checkpoint.

        Args:
            without: As for `read`.

        Returns:
            Its state, or None, and a message for each newer one that is damaged.

        Raises:
            NewerCheckpoint: If there is one that a later version wrote. It is not passed over: what was
                learnt since the one before it would be lost.
            OtherRanks: If it belongs to another number of ranks.
        """
        problems: list[str] = []
        place = ranks()
        for path in place.by_first(self.numbered) if place.own else self.numbered():
            part = folder_of(path.parent, place.rank) / path.name if place.own else path
            try:
                if place.own:
                    return read_parts(functools.partial(read, part, without=without)), problems
                return read(path, without=without), problems
            except (NewerCheckpoint, OtherRanks):
                raise
            except CheckpointError as error:
                problems.append(str(error))
        return None, problems


def write(
    path: Path,
    state: dict[str, Any],
    *,
    model: Mapping[str, Tensor] | None = None,
    earlier: Sequence[Path] = (),
) -> str | None:
    """Write a checkpoint into the existing folder `path`, and sync it to the disk.

    Tensors and columns are hashed and written where they are, a few megabytes at a time.

    Args:
        state: Nested dicts and lists of tensors, arrays and scalars.
        model: The weights of the user's module, for `model.safetensors`; None: there is no such file. A
            tensor that is in `state` too is written here only.
        earlier: Earlier checkpoints, newest first, to which unchanged rows of a replay are linked.

    Returns:
        Why a replay was left out; None if it was not. `read` then reads what remains, if asked for no more.

    Raises:
        CheckpointError: If the state holds an object of any other type.
        OSError: Of the system, where even the weights could not be written.
    """
    packed = Packed(state, model)
    tree = json.dumps({"format": FORMAT, "state": packed.tree}, allow_nan=False).encode()
    if len(tree) > LARGEST_JSON:
        raise CheckpointError(f"The state holds {len(tree):,} bytes besides its tensors: too many.")
    files: dict[str, Written] = {}
    if model is not None:
        own = {name: entry_of(value) for name, value in model.items()}
        files[MODEL] = write_tensors(path / MODEL, own, {"format": "pt"})
    tensors = {name: entry_of(value) for name, value in packed.values.items()}
    files[_TENSORS] = write_tensors(path / _TENSORS, tensors, {})
    files[_STATE] = write_file(path / _STATE, [tree])
    rest, problem = _write_columns(path, packed, earlier, files)
    write_manifest(path, format=FORMAT, files=files, rest=rest)
    _sync(path)
    return problem


def _write_columns(
    path: Path, packed: Packed, earlier: Sequence[Path], files: dict[str, Written]
) -> tuple[dict[str, Any], str | None]:
    """Write the columns of replays, or leave these out where there is no room for them.

    Returns:
        What the manifest says about them, and why they were left out.
    """
    columns: dict[str, Any] = {}
    written: dict[str, Written] = {}
    readable = _readable(earlier) if packed.columns else []
    try:
        for name, values in packed.columns.items():
            columns[name], blocks = write_columns(path, name, values, readable)
            written |= blocks
    except OSError as error:
        for file in path.glob("rows-*"):
            file.unlink()
        # A name's quotes are escaped in JSON, so no name can look like this.
        left_out = [k for k, part in packed.tree.items() if '{"$columns": "' in json.dumps(part)]
        return {"left_out": left_out}, str(error)
    files |= written
    return ({"columns": columns} if columns else {}), None


def read(path: Path, *, without: Collection[str] = ()) -> dict[str, Any]:
    """The state in a checkpoint folder.

    Args:
        without: Top-level keys of the state to leave out; their tensors are not read into memory.

    Raises:
        CheckpointError: If it is incomplete, damaged, or not a checkpoint.
    """
    manifest = _manifest(path)
    missing = sorted({*_left_out(manifest)} - {*without})
    if missing:
        raise CheckpointError(
            f"{path} holds the weights without the {' and '.join(missing)}, for which there was no room: "
            f"no run can be resumed from it. load={path} starts one from its weights."
        )
    with ExitStack() as opened:
        files = {}
        for name in (*_FILES, MODEL):
            if name in manifest.sha256:
                files[name] = opened.enter_context(_checked(path, name, manifest))
        try:
            tree = parse_json(files[_STATE].read())["state"]
            tree = {key: part for key, part in tree.items() if key not in without}
            found: dict[str, Any] = unpack(tree, _Files(path, manifest, files))
        except CheckpointError:
            raise
        except Exception as error:  # Files of another origin may raise anything.
            raise CheckpointError(f"{path} was not written by a run: {error!r}.") from error
    return found


class _Files:
    """The files of a checkpoint, from which a state is unpacked."""

    def __init__(self, path: Path, manifest: Manifest, files: Mapping[str, BufferedReader]):
        self._path, self._manifest = path, manifest
        names = (MODEL, _TENSORS)
        self._tensors = {name: TensorFile(files[name]) for name in names if name in files}

    def tensor(self, name: str) -> Tensor:
        file = MODEL if name.startswith(IN_MODEL) else _TENSORS
        return self._tensors[file].tensor(name.removeprefix(IN_MODEL))

    def columns(self, name: str) -> SavedColumns:
        about = self._manifest.rest["columns"][name]
        with _explained(self._path):
            return read_columns(self._path, about, self._manifest)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Says which checkpoint cannot be read, and why."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{path} is incomplete: {_file_of(error)} cannot be read ({error})."
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from error


def _checked(path: Path, name: str, manifest: Manifest) -> BufferedReader:
    with _explained(path):
        return open_checked(path, name, manifest)


def _file_of(error: OSError) -> str:
    return Path(error.filename).name if error.filename else "a file"


def _manifest(path: Path) -> Manifest:
    """The manifest of a checkpoint, which names its own files only.

    Raises:
        CheckpointError: If there is none, or not one of ours.
    """
    try:
        manifest = read_manifest(path, formats=_KNOWN, sized=_IN_BLOCKS)
        columns = manifest.rest.get("columns", {}) if manifest.format in _IN_BLOCKS else {}
        FORM(columns, "columns")
        each(text)(manifest.rest.get("left_out", []), "left_out")
        blocks = {file for about in columns.values() for file in about["files"]}
        if {*manifest.sha256} - {MODEL} - blocks != {*_FILES} or blocks - {*manifest.sha256}:
            raise ValueError("it does not list the files of a checkpoint")
    except (OSError, ValueError) as error:
        if (unknown := _unknown(path)) is not None:
            raise unknown from error
        raise CheckpointError(
            f"{path} is not a complete checkpoint: manifest.json cannot be read ({error})."
        ) from error
    return manifest


def _readable(earlier: Sequence[Path]) -> list[tuple[Path, Manifest]]:
    """Those of some checkpoints whose manifests are valid."""
    found = []
    for path in earlier:
        with suppress(CheckpointError):
            found.append((path, _manifest(path)))
    return found


def _left_out(manifest: Manifest) -> list[str]:
    """The top-level keys of the state that could not be written."""
    return list(manifest.rest.get("left_out", []))


def _unknown(path: Path) -> CheckpointError | None:
    """The error for a checkpoint whose format this version does not read; None if that is not the reason."""
    try:
        written = read_json(path / MANIFEST)["format"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if written in _KNOWN:
        return None
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
    if (path / MANIFEST).exists():
        return read(path, without=without)
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    checkpoints = Checkpoints(folder)
    seen = checkpoints.numbered()
    state, problems = checkpoints.newest(without=without)
    while state is None and seen != (seen := checkpoints.numbered()):
        # A run that is still training has replaced all of them in the meantime.
        state, problems = checkpoints.newest(without=without)
    if state is None:
        if problems:
            found = "\n".join(f"  {problem}" for problem in problems)
            raise CheckpointError(
                f"Cannot load {path}: none of its checkpoints can be read.\n{found}"
            )
        raise CheckpointError(
            f"Cannot load {path}: it holds no checkpoint. Pass a run directory or one of its checkpoints/ "
            "folders."
        )
    return state


def _sync(folder: Path) -> None:
    """Sync a folder's entries to the disk, where the system can: a rename alone may be lost in a crash."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
