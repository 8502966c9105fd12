"""Tar shards, as webdataset writes them: `0001.jpg` and `0001.cls` (or `0001.json`) one after the other.

Shards have no row by number, so their headers are read once; a row is then where its bytes begin.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..replay import DataError
from .arrays import held_out_rows
from .decoded import Files, PictureRows
from .folders import is_picture, part_of
from .images import load

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")  # As a shell has it: {000..009}.
_LABELS = ("label", "cls", "class", "target", "y")  # Usual names in a `.json`.


def shards_named(name: Any) -> list[Path] | None:
    """The shards that a name stands for, in the order of their names; None: it names none.

    One `.tar`, a pattern (`shards/{000..009}.tar`, `shards/*.tar`), or a folder that holds them.

    >>> [path.name for path in shards_named("shards/{08..10}.tar")]
    ['08.tar', '09.tar', '10.tar']
    """
    if not isinstance(name, (str, Path)) or not str(name):
        return None
    path = Path(name).expanduser() if str(name).startswith("~") else Path(name)
    if path.suffix.lower() == ".tar" and not path.is_dir():
        if (found := _RANGE.search(path.name)) is not None:
            first, last = found.groups()
            numbers = range(int(first), int(last) + 1)
            start, end = path.name[: found.start()], path.name[found.end() :]
            return [path.parent / f"{start}{n:0{len(first)}}{end}" for n in numbers]
        return sorted(path.parent.glob(path.name)) if re.search(r"[*?\[]", path.name) else [path]
    if not path.is_dir():
        return None
    held = sorted(path.glob("*.tar")) or sorted(path.glob("*/*.tar"))
    return held or None


class ShardRows(PictureRows):
    """The samples of some shards, as items `(picture or array, label)`.

    Args:
        index: Where they are.
        rows: Which of them, int64 `[n]`; None: all.
        part: Tells these rows from others of the same shards.
    """

    def __init__(self, index: _Index, rows: np.ndarray | None = None, part: str = ""):
        self.index, self.part = index, part
        self.rows = np.arange(len(index.starts)) if rows is None else rows
        self.targets = [index.labels[row] for row in self.rows]
        self.files = self._files() if index.ending != "npy" else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        return self.index.read(int(self.rows[i])), self.targets[i]

    def split(self) -> tuple[ShardRows, ShardRows]:
        """Its rows to learn from and those held out, a fixed fifth."""
        parts = zip(("train", "held out"), held_out_rows(len(self)), strict=True)
        one, other = (ShardRows(self.index, rows.numpy(), part) for part, rows in parts)
        return one, other

    def _files(self) -> Files:
        index, rows = self.index, self.rows
        listing = [str(path) for path in index.shards]
        return Files(
            root=os.path.abspath(index.shards[0].parent),
            part=self.part,
            paths=_Names(index, rows),
            labels=self.targets if isinstance(self.targets[0], str) else torch.tensor(self.targets),
            image=lambda i: index.read(int(rows[i])),
            listing=listing,
            listed=index.read,
            count=len(index.starts),
            reader=f"tar {index.ending}",
            whole=True,
        )


@dataclass
class Parts:
    """Shards to learn from, and those held out; attributes as of a folder of pictures."""

    path: Path
    train: ShardRows
    held_out: ShardRows | None = None
    notes: list[str] = field(default_factory=list)

    def split(self) -> Parts:
        """The shards with a held-out part, their own or a fixed fifth; themselves if they have one row."""
        if self.held_out is not None or len(self.train) < 2:
            return self
        return Parts(self.path, *self.train.split(), self.notes)

    def numbered_as(self, other: Any) -> Parts:
        """The held-out data for others: their own held-out part, if they have one, or all of them."""
        return Parts(self.path, self.held_out or self.train, None, self.notes)


def open_shards(path: Path, target: Sequence[str] | None) -> Parts:
    """The shards that a path names; `train` and `test` (or `val`) in their names tell parts apart.

    Args:
        target: The key of `.json` files that is predicted; None: `.cls` files, or the usual keys.

    Raises:
        DataError: If a shard is missing or cannot be read, or its samples are not pictures or arrays with a
            label each.
    """
    shards = shards_named(path) or []
    if missing := [shard for shard in shards if not shard.is_file()]:
        raise DataError(
            f"There is no shard {missing[0]} ({len(missing)} of {len(shards)} are missing)."
        )
    if not shards:
        raise DataError(f"There is no shard {path} (looked in {path.parent.resolve()}).")
    by_part: dict[str | None, list[Path]] = {}
    for shard in shards:
        kind = part_of(shard.stem) or (part_of(shard.parent.name) if shard.parent != path else None)
        by_part.setdefault(kind, []).append(shard)
    if "train" not in by_part:
        index = _Index(shards, target)
        return Parts(path, ShardRows(index), None, index.notes)
    kind = next((kind for kind in ("test", "val") if kind in by_part), None)
    train = _Index(by_part["train"], target)
    notes = train.notes
    if rest := sum(len(held) for key, held in by_part.items() if key not in ("train", kind)):
        notes = [*notes, f"{rest} shards skipped, which are neither to learn from nor held out"]
    held_out = None if kind is None else ShardRows(_Index(by_part[kind], target))
    return Parts(path, ShardRows(train), held_out, notes)


class _Index:
    """Where the samples of shards begin, and their labels.

    Attributes:
        ending: Of the inputs' names: that of pictures, or `npy`.
        which, starts, sizes: The shard of each sample, and the place of its input there, int64 `[N]`.
        labels: Of each sample: a number, a word, or a list of numbers.
        notes: What of the samples is not read.
    """

    def __init__(self, shards: Sequence[Path], target: Sequence[str] | None):
        self.shards, self.labels = list(shards), list[Any]()
        places = array("q")
        self._wanted = target
        self.ending, others = "", set()
        for number, shard in enumerate(shards):
            try:
                with open(shard, "rb") as file:
                    for key, parts in _samples(file):
                        ending = self._input(parts, f"{shard}: sample {key}")
                        self.labels.append(self._label(parts, file, f"{shard}: sample {key}"))
                        places.extend((number, *parts[ending]))
                        others |= parts.keys() - {ending, self._labelled}
            except (OSError, tarfile.TarError) as error:
                raise DataError(f"{shard} cannot be read as a tar archive ({error}).") from error
        if not places:
            raise DataError(f"{shards[0]} holds no samples: files such as 0001.jpg and 0001.cls.")
        if len(forms := {_form(label): label for label in self.labels}) > 1:
            one, other = [f"{label!r:.40}" for label in forms.values()][:2]
            raise DataError(
                f"{shards[0]}: the labels of samples differ in form, such as {one} and {other}. Write all as "
                "words, all as numbers, or all as lists of one length."
            )
        self.which, self.starts, self.sizes = np.array(places).reshape(-1, 3).T.copy()
        self.notes = [f"{', '.join(sorted(others))} of the samples not read"] if others else []

    def read(self, row: int) -> Any:
        """The input of a sample, a picture or an array."""
        shard, start = self.shards[self.which[row]], int(self.starts[row])
        with open(shard, "rb") as file:
            file.seek(start)
            held = BytesIO(file.read(int(self.sizes[row])))
        if self.ending == "npy":
            return np.load(held, allow_pickle=False)
        return load(held, name=self.name(row))

    def name(self, row: int) -> str:
        """What errors call a sample: its shard, and its name there."""
        shard = self.shards[self.which[row]]
        with open(shard, "rb") as file:
            file.seek(int(self.starts[row]) - tarfile.BLOCKSIZE)
            name = file.read(100).split(b"\0")[0].decode(errors="replace")
        return f"{name} in {shard}"

    def _input(self, parts: dict[str, tuple[int, int]], what: str) -> str:
        found = [end for end in parts if end == "npy" or is_picture(Path(f"x.{end}"))]
        if len(found) != 1:
            held = f"holds {' and '.join(sorted(parts))}"
            raise DataError(
                f"{what} {held}; expected one picture or one .npy. Write shards with one input and a "
                ".cls or .json each; or give a Dataset, with storage=mmap."
            )
        if self.ending and (found[0] == "npy") != (self.ending == "npy"):
            raise DataError(f"{what} is a .{found[0]}, and others are .{self.ending}.")
        self.ending = self.ending or found[0]
        return found[0]

    def _label(self, parts: dict[str, tuple[int, int]], file: Any, what: str) -> Any:
        self._labelled = next((end for end in ("cls", "json") if end in parts), "")
        if self._wanted is not None:
            self._labelled = "json" if "json" in parts else ""
        if not self._labelled:
            raise DataError(
                f"{what} has no {'.json' if self._wanted else '.cls and no .json'} (it has "
                f"{', '.join(sorted(parts))}): there is no label to learn."
            )
        start, size = parts[self._labelled]
        file.seek(start)
        text = file.read(size).decode(errors="replace").strip()
        try:
            value = json.loads(text)
        except ValueError:
            value = text  # A word.
        if self._labelled == "json":
            value = self._of_json(value, what)
        if not isinstance(value, (int, float, str, list)):
            raise DataError(
                f"{what} has the label {value!r:.60}, which is neither a number nor a word."
            )
        return value

    def _of_json(self, value: Any, what: str) -> Any:
        keys = self._wanted or _LABELS
        found = [key for key in keys if isinstance(value, dict) and key in value]
        if not found:
            held = ", ".join(value) if isinstance(value, dict) else f"{value!r:.60}"
            raise DataError(f"{what}: which of {held} is to be predicted? Set target=NAME.")
        return (
            value[found[0]] if len(keys) == 1 or not self._wanted else [value[key] for key in keys]
        )


def _form(label: Any) -> Any:
    """What labels of one column have in common: words, numbers, or the forms of a list's entries."""
    if isinstance(label, list):
        return tuple(_form(entry) for entry in label)
    return str if isinstance(label, str) else float if isinstance(label, (int, float)) else None


class _Names(Sequence[str]):
    """What errors call the rows, made when one is asked for."""

    def __init__(self, index: _Index, rows: np.ndarray):
        self._index, self.rows = index, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        return self._index.name(int(self.rows[i]))


def _samples(file: Any) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """The key of each sample of a shard, and where its files are: their beginning and size, by ending."""
    key = ""
    parts: dict[str, tuple[int, int]] = {}
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # Otherwise it holds all headers.
            folder, slash, name = member.name.rpartition("/")
            stem, dot, ending = name.partition(".")
            if not member.isreg() or not stem or not dot:
                continue
            if parts and folder + slash + stem != key:
                yield key, parts
                parts = {}
            key = folder + slash + stem
            parts[ending.lower()] = member.offset_data, member.size
    if parts:
        yield key, parts
