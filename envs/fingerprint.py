"""What a run learns from, in a few hundred bytes: a resumed run is refused if it is something else.

A fingerprint is plain data. It holds what identifies rows wherever they are read: their number, shapes, names
and digests, but no paths and no times. It costs a pass over the rows up to 256 MB (10 ms for MNIST), and a
sample of the rows beyond. `differences` compares two of them, in words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..replay import LazyColumn, Ragged, Table
from ..replay.mapped import Mapped
from ..replay.randomness import kept_randomness
from ..replay.storage import Column, TableField, changes
from ..replay.tree import leaves, walk

_WHOLE_BYTES = 256 * 2**20  # Columns up to this size are read whole; of larger ones, some rows.
_SAMPLE_BYTES, _SAMPLE_ROWS = 16 * 2**20, (64, 4096)
_READ = 8  # Items that are read of data which is decoded at each use.
_CHUNK_BYTES = 2**22
_STATS = 20_000  # Files whose sizes are asked for: a network's file system takes its time for each.

_IDENTITY = ("id", "class", "arguments", "wrappers", "observations", "actions")

Fingerprint = dict[str, Any]


def of_rows(table: Table, rows: int, *, decoder: str | None = None) -> Fingerprint:
    """The fingerprint of a table's first rows.

    Args:
        decoder: What turned files into pixels, which another version may round otherwise; None: nothing did.
    """
    obs, label = table.columns["obs"], table.columns["label"]
    every = _whole(obs) and _whole(label)
    inputs, labels = list(_by_row(obs, rows)), list(_by_row(label, rows))
    found: Fingerprint = {
        "rows": rows,
        "form": {".".join(path): _form(column) for path, column in walk(obs)},
        "labels": _sha256(*labels),
        "inputs": _sha256(*inputs),
        "decoder": decoder,
        # Read differently each time: nothing but their number and form is known.
        "changing": changes(obs),
    }
    if every and inputs and not any(isinstance(column, Ragged) for column in leaves(obs)):
        # The same for the same rows in any order.
        found["in_any_order"] = _sha256(np.sort(_mixed([*inputs, *labels])))
    if lazy := [c for c in leaves(obs) if isinstance(c, LazyColumn) and not c.changes]:
        found["inputs"] = _sha256(*inputs, *_read(lazy, rows))
    return found


def of_index(parts: Sequence[Tensor | None]) -> str:
    """The fingerprint of row numbers, int64 `[N]` each: which rows are in which task."""
    arrays = (None if part is None else part.cpu().numpy() for part in parts)
    return _sha256(*(np.full(1, -1) if array is None else array for array in arrays))


def of_files(root: str, paths: Sequence[str]) -> str:
    """The fingerprint of files: their names below `root`, and the sizes of (at most 20,000 of) them."""
    import os

    found = hashlib.sha256()
    for path in paths:
        found.update(os.path.relpath(path, root).replace(os.sep, "/").encode(errors="replace"))
        found.update(b"\0")
    for path in paths[:: 1 + len(paths) // _STATS]:
        try:
            found.update(f"{os.stat(path).st_size} ".encode())
        except OSError:
            found.update(b"- ")
    return found.hexdigest()


def decoder() -> str:
    """What decodes pictures here: another version may give other pixels."""
    import PIL
    from PIL import features

    versions = (features.version(name) for name in ("jpg", "zlib", "webp"))
    return " ".join(["Pillow", PIL.__version__, *map(str, versions)])


def differences(known: Fingerprint, now: Fingerprint) -> list[str]:
    """What is different about the data, in words; empty if it is the same.

    Args:
        known: The checkpoint's fingerprint.
        now: That of this run.
    """
    if known.get("kind") != now.get("kind"):
        return [
            f"the checkpoint comes from {known.get('kind')}, this run learns from {now['kind']}"
        ]
    if now["kind"] == "environments":
        return list(_other_environments(known["tasks"], now["tasks"]))
    words: list[str] = []
    for key in ("columns", "targets", "classes"):
        if known.get(key) != now.get(key):
            words.append(
                f"the {key} are {_named(now.get(key))}; they were {_named(known.get(key))}"
            )
    same_files = known.get("files") == now.get("files")
    if not same_files:
        words.append("files were added, removed, renamed, or changed in size")
    for key, what in (("train", "training"), ("test", "held-out")):
        words += _other_rows(known[key], now[key], what)
    if not words and known.get("tasks") != now.get("tasks"):
        words.append("the tasks, or what is held out of them, consist of other rows")
    return words


def as_lists(names: object) -> Any:
    """Names as JSON holds them: lists in place of tuples."""
    if isinstance(names, Mapping):
        return {key: as_lists(value) for key, value in names.items()}
    return [as_lists(name) for name in names] if isinstance(names, list | tuple) else names


def is_whole(found: Fingerprint) -> bool:
    """Whether an equal one means the same data or environments, however they were named."""
    if found["kind"] == "environments":
        return all(task["whole"] for task in found["tasks"])
    return not any(found[key]["changing"] for key in ("train", "test"))


def _other_rows(known: Fingerprint, now: Fingerprint, what: str) -> Iterator[str]:
    if known["rows"] != now["rows"]:
        yield f"{now['rows']:,} {what} rows; there were {known['rows']:,}"
        return
    if known["form"] != now["form"]:
        yield f"the {what} inputs are {_in_words(now['form'])}; they were {_in_words(known['form'])}"
        return
    # Other versions decode the same files to slightly different pixels.
    comparable = known["decoder"] == now["decoder"]
    parts = [key for key in ("inputs", "labels") if known[key] != now[key]]
    parts = [key for key in parts if key != "inputs" or (comparable and not now["changing"])]
    if not parts:
        return
    order = known.get("in_any_order")
    if order is not None and order == now.get("in_any_order"):
        yield f"the {what} rows are in another order"
    else:
        yield f"{' and '.join(parts)} of the {what} rows have changed"


def _other_environments(
    known: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    if len(known) != len(now):
        yield f"{len(now)} environments; there were {len(known)}"
        return
    for one, other in zip(known, now, strict=True):
        # The first is enough: another environment has other spaces too.
        key = next((key for key in _IDENTITY if one.get(key) != other[key]), None)
        if key is not None:
            yield f"{other['name']} has the {key} {other[key]}, {one.get('name')} had {one.get(key)}"


def _named(names: object) -> str:
    if names is None:
        return "without names"
    if isinstance(names, Mapping):
        return "; ".join(f"{key}: {_named(value)}" for key, value in names.items())
    shown = list(map(str, names)) if isinstance(names, list) else [str(names)]
    return ", ".join(shown[:20]) + (f", ... ({len(shown)} in all)" if len(shown) > 20 else "")


def _in_words(form: Mapping[str, Sequence[Any]]) -> str:
    return ", ".join(
        f"{dtype} {shape}{f' ({name})' if name else ''}" for name, (shape, dtype) in form.items()
    )


def _form(column: Column) -> list[Any]:
    # The length of the longest sequence is that of the rows read, not of each.
    shape = column.values.shape if isinstance(column, Ragged) else column.shape
    return [list(shape[1:]), str(column.dtype).removeprefix("torch.")]


def _whole(field: TableField) -> bool:
    """Whether every row of a field is read."""
    return all(
        isinstance(column, Tensor | Ragged | Mapped) and column.nbytes <= _WHOLE_BYTES
        for column in leaves(field)
    )


def _by_row(field: TableField, rows: int) -> Iterator[np.ndarray]:
    """For each column in memory a number for each row that is read, uint64 `[n]`."""
    for column in leaves(field):
        if isinstance(column, Ragged):
            first = column.rows(torch.arange(rows, device=column.device))
            yield first.lengths.cpu().numpy().astype(np.uint64)
            yield _numbers(first.values, len(first.values))
        elif isinstance(column, Tensor | Mapped):
            yield _numbers(column, rows)


def _numbers(column: Tensor | Mapped, rows: int) -> np.ndarray:
    """A number for each of the first rows of a column, uint64 `[n]`: a sum of its bytes with weights.

    The weights are odd, so a row that changes in one place always has another number.
    """
    row_bytes = column[:1].nbytes
    step = 1
    if rows * row_bytes > _WHOLE_BYTES:
        fewest, most = _SAMPLE_ROWS
        step = max(1, rows // min(most, max(fewest, _SAMPLE_BYTES // row_bytes)))
    at_once = max(1, _CHUNK_BYTES // row_bytes) * step
    words = -(-row_bytes // 8)
    weights = np.arange(1, words + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(
        1
    )
    parts = []
    for start in range(0, rows, at_once):
        some = column[start : min(rows, start + at_once) : step]
        # Flat first: a dimension of size 1 may have any stride.
        flat = some.cpu().reshape(-1).contiguous()
        raw = flat.view(torch.uint8).numpy().reshape(len(some), row_bytes)
        if raw.shape[1] % 8:
            raw = np.pad(raw, ((0, 0), (0, -raw.shape[1] % 8)))
        parts.append(np.einsum("ij,j->i", raw.view(np.uint64), weights))
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def _mixed(numbers: Sequence[np.ndarray]) -> np.ndarray:
    """One number for each row from those of its columns, uint64 `[n]`."""
    mixed = np.zeros_like(numbers[0])
    for column in numbers:
        mixed = (mixed ^ column) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(31)
    return mixed


def _read(columns: Sequence[LazyColumn], rows: int) -> Iterator[np.ndarray]:
    """A few rows of data that is decoded at each use."""
    places = torch.arange(0, rows, max(1, rows // _READ))[:_READ]
    with kept_randomness():  # A run draws the same numbers whether it is asked for this or not.
        for column in columns:
            yield _numbers(column.take(places), len(places))


def _sha256(*arrays: np.ndarray) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{len(array)} ".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
