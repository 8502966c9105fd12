"""A replay's blocks are written once, linked while they stay as they are, and as safe as all other files."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from antelope.launcher.record import column_blocks, packing
from antelope.launcher.record.checkpoint import KEEP, Checkpoints, find, read
from antelope.replay import CheckpointError, blocks
from antelope.replay.blocks import SavedColumns

ROWS, PER_BLOCK = 40, 8


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SMALL_COLUMNS", 0)
    monkeypatch.setattr(blocks, "PART", 50)


class Rows:
    """Rows that are changed one by one, and known by the blocks that were changed since each save."""

    def __init__(self) -> None:
        self.image = np.arange(ROWS * 6, dtype=np.uint8).reshape(ROWS, 2, 3)
        self.reward = np.arange(ROWS, dtype=np.float32)
        self.changed: dict[str, set[int]] = {}
        self.saves = 0

    def write(self, row: int) -> None:
        self.image[row] += 1
        self.reward[row] = -1
        for changed in self.changed.values():
            changed.add(row // PER_BLOCK)

    def saved(self) -> dict[str, Any]:
        self.saves += 1
        mark = str(self.saves)
        self.changed[mark] = set()
        arrays = {"image": self.image, "reward": self.reward}
        columns = SavedColumns(
            {name: (array.shape[1:], array.dtype) for name, array in arrays.items()},
            ROWS,
            lambda name, start, stop: arrays[name][start:stop],
            block_rows=PER_BLOCK,
            mark=mark,
            changed_since=self.changed.get,
        )
        return {"weight": torch.arange(3.0), "replay": {"columns": columns, "size": ROWS}}

    def assert_in(self, state: dict[str, Any] | None) -> None:
        assert state is not None
        for name in ("image", "reward"):
            np.testing.assert_array_equal(state["replay"]["columns"][name], getattr(self, name))
        assert list(state["replay"]["columns"]) == ["image", "reward"]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("rows-*"))


@pytest.mark.row(50)
def test_only_blocks_that_have_changed_are_written(tmp_path: Path) -> None:
    rows, checkpoints = Rows(), Checkpoints(tmp_path)
    first = checkpoints.save(rows.saved())
    rows.write(9)
    rows.write(39)
    second = checkpoints.save(rows.saved())
    linked = [a.samefile(b) for a, b in zip(files(first), files(second), strict=True)]
    assert linked == [True, False, True, True, False]
    rows.assert_in(checkpoints.newest()[0])
    for row in (0, 0, 17, 17):  # The first checkpoint is removed in the meantime.
        rows.write(row)
        last = checkpoints.save(rows.saved())
    assert len(checkpoints.numbered()) == KEEP
    assert not first.exists()
    rows.assert_in(read(last))
    assert os.stat(files(last)[3]).st_nlink == KEEP


def test_what_is_written_to_later_stays_as_it_was_on_disk(tmp_path: Path) -> None:
    rows, checkpoints = Rows(), Checkpoints(tmp_path)
    path = checkpoints.save(rows.saved())
    before = {file: file.read_bytes() for file in files(path)}
    for row in range(ROWS):
        rows.write(row)
    checkpoints.save(rows.saved())
    assert {file: file.read_bytes() for file in files(path)} == before
    read(path)


@pytest.mark.parametrize("error", [errno.EPERM, errno.EXDEV, errno.EMLINK])
def test_without_links_every_block_is_written(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", no_links)
    rows, checkpoints = Rows(), Checkpoints(tmp_path)
    first, second = checkpoints.save(rows.saved()), checkpoints.save(rows.saved())
    assert not any(a.samefile(b) for a, b in zip(files(first), files(second), strict=True))
    rows.assert_in(read(second))


def test_a_block_that_was_truncated_is_written_again(tmp_path: Path) -> None:
    rows, checkpoints = Rows(), Checkpoints(tmp_path)
    first = checkpoints.save(rows.saved())
    os.truncate(files(first)[2], 10)
    (first / "rows-0-0003.safetensors").unlink()
    rows.assert_in(read(checkpoints.save(rows.saved())))


def flip(file: Path) -> str:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.unlink()  # Not in place: the checkpoint before has the same file.
    file.write_bytes(data)
    return "does not match its SHA-256"


def truncate(file: Path) -> str:
    file.write_bytes(b"".join([file.read_bytes()[:-1], file.unlink() or b""]))
    return "has"


def lose(file: Path) -> str:
    file.unlink()
    return "cannot be read"


def lead_elsewhere(file: Path) -> str:
    data = file.read_bytes()
    file.unlink()
    (file.parent.parent / "elsewhere").write_bytes(data)
    file.symlink_to(file.parent.parent / "elsewhere")
    return "cannot be read"


@pytest.mark.row(4, 5, 6)
@pytest.mark.parametrize("damage", [flip, truncate, lose, lead_elsewhere])
@pytest.mark.parametrize("block", [0, 4])
def test_a_damaged_block_is_named_and_its_checkpoint_passed_over(
    damage: Any, block: int, tmp_path: Path
) -> None:
    rows, checkpoints = Rows(), Checkpoints(tmp_path)
    checkpoints.save(rows.saved())
    newest = checkpoints.save(rows.saved())
    what = damage(files(newest)[block])
    state, (problem,) = checkpoints.newest()
    rows.assert_in(state)
    assert f"{newest} is " in problem
    assert f"rows-0-000{block}.safetensors {what}" in problem
    # Whoever needs no replay does not read it.
    assert torch.equal(read(newest, without=("replay",))["weight"], torch.arange(3.0))


@pytest.mark.parametrize("copy", ["copytree", "zip"])
def test_a_copy_of_the_folder_holds_every_block(copy: str, tmp_path: Path) -> None:
    rows, checkpoints = Rows(), Checkpoints(tmp_path / "run" / "checkpoints")
    checkpoints.save(rows.saved())
    rows.write(3)
    checkpoints.save(rows.saved())
    if copy == "zip":
        packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "run")
        shutil.unpack_archive(packed, tmp_path / "copy")
    else:
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
    shutil.rmtree(tmp_path / "run")
    rows.assert_in(find(tmp_path / "copy"))


@pytest.mark.row(12)
class TestOnAFullDisk:
    def test_the_weights_are_saved_without_the_replay(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = column_blocks.write

        def some(path: Path, *arguments: Any) -> Any:
            if path.name.endswith("2.safetensors"):
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            return write(path, *arguments)

        monkeypatch.setattr(column_blocks, "write", some)
        checkpoints = Checkpoints(tmp_path)
        path = checkpoints.save(Rows().saved())
        assert "No space left" in str(checkpoints.problem)
        assert files(path) == []
        assert torch.equal(find(path, without=("replay",))["weight"], torch.arange(3.0))
        with pytest.raises(CheckpointError, match=r"weights without the replay.*load="):
            read(path)
        state, problems = checkpoints.newest()
        assert state is None
        assert len(problems) == 1

    def test_what_can_be_resumed_stays_and_is_found(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows, checkpoints = Rows(), Checkpoints(tmp_path)
        checkpoints.save(rows.saved())
        with monkeypatch.context() as patch:
            patch.setattr(column_blocks, "write", self.refuse)
            for _ in range(KEEP + 2):
                rows.changed.clear()  # Nothing can be linked.
                checkpoints.save(rows.saved())
        names = [path.name for path in checkpoints.numbered()]
        assert names == [f"{KEEP + 3:06d}", "000001"]
        rows.assert_in(checkpoints.newest()[0])
        checkpoints.save(rows.saved())
        assert checkpoints.problem is None
        assert len(checkpoints.numbered()) == 2  # The one with the weights alone is superseded.

    @staticmethod
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files")
def test_blocks_stay_open_until_they_are_read(tmp_path: Path) -> None:
    rows = Rows()
    path = Checkpoints(tmp_path).save(rows.saved())
    before = len(os.listdir("/proc/self/fd"))
    state = read(path)
    shutil.rmtree(path)  # As a run that goes on removes its oldest checkpoint.
    rows.assert_in(state)
    del state
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 39}, "does not hold the rows"),
        ({"rows": 32}, "does not hold the rows"),
        ({"block_rows": 7}, "does not hold the rows"),
        ({"fields": ["image"]}, "does not hold the rows"),
        ({"files": []}, "does not list the files of a checkpoint"),
        ({"files": ["../state.json"]}, "does not list the files of a checkpoint"),
        ({"rows": -1}, "expected a whole number"),
        ({"fields": 3}, "expected a list"),
        ({"mark": None}, "expected a text"),
        (None, "expected a dict"),
    ],
)
def test_a_manifest_that_does_not_fit_its_blocks_is_refused(
    change: dict[str, Any] | None, message: str, tmp_path: Path
) -> None:
    rows, checkpoints = Rows(), Checkpoints(tmp_path)
    path = checkpoints.save(rows.saved())
    manifest = json.loads((path / "manifest.json").read_text())
    about = manifest["columns"]["0"]
    manifest["columns"]["0"] = None if change is None else {**about, **change}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=message):
        read(path)
    # And no later save depends on it.
    rows.assert_in(read(checkpoints.save(rows.saved())))


@pytest.mark.parametrize("left_out", [3, {"replay": 1}, [3]])
def test_a_manifest_that_does_not_say_what_was_left_out_is_refused(
    left_out: Any, tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save({"step": 1})
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "left_out": left_out}))
    assert "expected a" in checkpoints.newest()[1][0]
    assert read(checkpoints.save({"step": 2})) == {"step": 2}
