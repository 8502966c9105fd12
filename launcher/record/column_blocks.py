"""The columns of a replay on disk: one file per block of rows, linked if the block is on disk already.

A ring buffer writes to few blocks between two checkpoints. The others are files of the previous checkpoint
under a second name (`os.link`), so that they are neither written nor stored twice. A file is never changed
once it is written, and a copy of a run's folder holds every block in full.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...replay.blocks import SavedColumns
from ...replay.manifest import Manifest, Written, open_checked
from ...replay.structure import count, each, fields, table, text
from .tensor_file import Entry, TensorFile, column_entry, write

# What a manifest says about the columns of its checkpoint, by their names.
FORM = table(
    fields(
        {
            "mark": text,
            "rows": count,
            "block_rows": count,
            "fields": each(text),
            "files": each(text),
        }
    )
)


def write_columns(
    folder: Path, name: str, columns: SavedColumns, earlier: Sequence[tuple[Path, Manifest]]
) -> tuple[dict[str, Any], dict[str, Written]]:
    """Write columns into a new checkpoint's folder, block by block.

    Args:
        name: Tells these columns from others in the checkpoint.
        earlier: Earlier checkpoints, newest first, whose blocks may be linked; their manifests are valid.

    Returns:
        What the manifest says about the columns, and about each file.

    Raises:
        OSError: From the system, such as a full disk.
    """
    about: dict[str, Any] = {
        "mark": columns.mark,
        "rows": columns.rows,
        "block_rows": columns.block_rows,
        "fields": list(columns),
        "files": [f"rows-{name}-{block:04d}.safetensors" for block in range(columns.num_blocks)],
    }
    known = _blocks_on_disk(columns, about, earlier)
    files: dict[str, Written] = {}
    for block, file in enumerate(about["files"]):
        linked = None if block not in known else _linked(*known[block], folder / file)
        files[file] = linked or write(folder / file, _entries(columns, block), {})
    return about, files


def _entries(columns: SavedColumns, block: int) -> dict[str, Entry]:
    start, stop = columns.bounds(block)

    def parts(name: str) -> Iterator[np.ndarray]:
        return (part for _, part in columns[name].parts(start, stop))

    return {
        name: column_entry(dtype, (stop - start, *shape), functools.partial(parts, name))
        for name, (shape, dtype) in columns.fields.items()
    }


def _blocks_on_disk(
    columns: SavedColumns, about: Mapping[str, Any], earlier: Sequence[tuple[Path, Manifest]]
) -> dict[int, tuple[Path, Written]]:
    """The files of the blocks that have not changed since an earlier checkpoint, the newest that is known."""
    for folder, manifest in earlier:
        for before in manifest.rest.get("columns", {}).values():
            changed = columns.changed_since(before["mark"])
            if changed is None or any(before[k] != about[k] for k in ("block_rows", "fields")):
                continue
            return {
                block: (folder / file, Written(manifest.size[file], manifest.sha256[file]))
                for block, file in enumerate(before["files"])
                if block not in changed
            }
    return {}


def _linked(source: Path, written: Written, target: Path) -> Written | None:
    """Give a file a second name; None if it has another size by now, or the system makes no links."""
    try:
        os.link(source, target, follow_symlinks=False)
        found = os.lstat(target)
    except (OSError, NotImplementedError):
        return None
    if stat.S_ISREG(found.st_mode) and found.st_size == written.size:
        return written
    target.unlink()
    return None


def read_columns(folder: Path, about: Mapping[str, Any], manifest: Manifest) -> SavedColumns:
    """The columns in a checkpoint's folder, after a check of every block; rows are read when needed.

    The blocks stay open, so that they can be read even if the checkpoint is removed in the meantime.

    Args:
        about: What `write_columns` returned.

    Raises:
        OSError, ValueError: A block cannot be read, or is damaged. The message names its file.
    """
    rows, block_rows, names = about["rows"], about["block_rows"], about["fields"]
    blocks: list[TensorFile] = []
    with contextlib.ExitStack() as opened:
        for block, name in enumerate(about["files"]):
            file = opened.enter_context(open_checked(folder, name, manifest))
            blocks.append(TensorFile(file))
            _check_block(blocks[-1], names, min(block_rows, rows - block * block_rows), name)
        if not blocks or len(blocks) != -(-rows // block_rows):
            raise ValueError(f"{rows} rows are not in {len(blocks)} blocks of {block_rows}")
        shapes = {name: blocks[0].field(name) for name in names}
        if any(block.field(name) != field for block in blocks for name, field in shapes.items()):
            raise ValueError("its blocks hold different columns")
        files = opened.pop_all()

    def read(name: str, start: int, stop: int) -> np.ndarray:
        parts = []
        while start < stop:
            block, first = divmod(start, block_rows)
            last = min(first + stop - start, block_rows)
            parts.append(blocks[block].rows(name, first, last))
            start += last - first
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    columns = SavedColumns(shapes, rows, read, block_rows=block_rows, mark=about["mark"])
    weakref.finalize(columns, files.close)
    return columns


def _check_block(block: TensorFile, names: Collection[str], rows: int, file: str) -> None:
    if {*block.names} != {*names} or any(block.num_rows(name) != rows for name in names):
        raise ValueError(f"{file} does not hold the rows that the manifest says")
