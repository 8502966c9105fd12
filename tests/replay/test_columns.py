"""Columns in RAM, in a file and on a device are the same to who reads them; a file stays out of RAM."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from antelope.replay import ConfigError
from antelope.replay.columns import Columns
from antelope.replay.device_columns import DeviceColumns

FIELDS: dict[str, Any] = {
    "obs": ((3,), np.dtype(np.float32)),
    "image": ((2, 11, 13), np.dtype(np.uint8)),  # Too large for a record.
    "flag": ((), np.dtype(np.bool_)),
    "wide": ((), np.dtype(np.float64)),
    "number": ((2, 1), np.dtype(np.int64)),
}


def columns_of(kind: str, rows: int = 10) -> Columns | DeviceColumns:
    if kind == "gpu":
        return DeviceColumns(FIELDS, rows, torch.device("cpu"))
    return Columns(FIELDS, rows, mapped=kind == "mmap")


@given(st.integers(0, 10**6), st.sampled_from(["ram", "mmap", "gpu"]))
def test_rows_are_what_was_written_last(seed: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    columns = columns_of(kind)
    expected = {n: np.zeros((10, *shape), dtype) for n, (shape, dtype) in FIELDS.items()}
    for _ in range(6):
        name = random.choice(sorted(FIELDS))
        rows = random.permutation(10)[: random.integers(0, 11)]
        shape, dtype = FIELDS[name]
        value = random.integers(0, 2, (len(rows), *shape)).astype(dtype)
        columns.write(rows, {name: value})
        expected[name][rows] = value
    columns.write(np.array([4]), {"flag": True})  # One for all rows.
    expected["flag"][4] = True
    columns.add_to("wide", np.array([1, 7]), np.array([0.5, 2]))
    expected["wide"][[1, 7]] += [0.5, 2]
    index = random.integers(0, 20, 7)  # Past the end it wraps around.
    for names in (None, ["flag", "image"], ["wide"]):
        taken = columns.take(index, names)
        assert list(taken) == (list(FIELDS) if names is None else names)
        for name, value in taken.items():
            np.testing.assert_array_equal(value.numpy(), expected[name][index % 10])
    for name in FIELDS:
        np.testing.assert_array_equal(columns.peek(name, index), expected[name][index % 10])
        np.testing.assert_array_equal(columns.read(name, 0, 6), expected[name][:6])
    other = columns_of(kind)
    for name in FIELDS:
        other.restore(name, np.array(columns.read(name, 0, 6)))
        np.testing.assert_array_equal(other.read(name, 0, 10)[:6], expected[name][:6])


@pytest.mark.parametrize("kind", ["ram", "mmap", "gpu"])
def test_rows_are_copies(kind: str) -> None:
    columns = columns_of(kind)
    for value in columns.take(np.array([0])).values():
        value.fill_(1)
    batch = columns.gather(
        np.array([0]),
        1,
        names=["flag"],
        pairs=["obs", "image"],
        stacked=["wide"],
        frames=lambda index, after: np.concatenate((index, after)),
    )
    for value in batch.values():
        value.fill_(1)
    assert all(not columns.read(name, 0, 10).any() for name in FIELDS)


def test_values_may_be_read_only() -> None:
    value = np.ones((2, 3), np.float32)
    value.flags.writeable = False
    for kind in ("ram", "mmap", "gpu"):
        columns = columns_of(kind)
        columns.write(np.array([0, 1]), {"obs": value})
        columns.restore("obs", value)
        assert columns.read("obs", 0, 10).sum() == 6


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"replay\.folder=.*nowhere"):
        Columns(FIELDS, 10, mapped=True, folder=str(tmp_path / "nowhere"))


def test_a_disk_too_small_is_found_before_it_is_full(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs \d+\.\d GB in .*Lower capacity"):
        Columns(FIELDS, 10**13, mapped=True, folder=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_memory_too_small_proposes_a_file() -> None:
    with pytest.raises(ConfigError, match=r"replay\.storage=mmap"):
        Columns(FIELDS, 10**14)


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="resident memory is read in /proc (Linux)"
)

_WRITE = """
import numpy as np, sys
from antelope.replay.columns import Columns

def resident():
    lines = open("/proc/self/smaps_rollup").read().split("\\n")
    return int(next(line for line in lines if line.startswith("Rss:")).split()[1]) / 1024

frame = ((1, 256, 256), np.dtype(np.uint8))
columns = Columns({"obs": frame, "reward": ((), np.dtype(np.float32))}, 9600, mapped=True, folder=sys.argv[1])
before, most = resident(), 0.0
for row in range(0, 9600, 40):
    rows = np.arange(row, row + 40)
    columns.write(rows, {"obs": (rows % 251)[:, None, None, None].astype(np.uint8)})
    columns.write(rows, {"reward": rows})
    if row % 400 == 0:
        most = max(most, resident())
random = np.random.default_rng(0)
for _ in range(60):
    index = random.integers(0, 9600, 64)
    taken = columns.take(index)
    assert (taken["obs"][:, 0, 7, 9].numpy() == index % 251).all()
    assert (taken["reward"].numpy() == index).all()
    most = max(most, resident())
del taken
print(most - before, flush=True)
sys.stdin.read()  # Until it is killed.
"""


@needs_proc
def test_a_mapped_file_stays_out_of_memory_and_leaves_nothing_behind(tmp_path: Path) -> None:
    # 630 MB of frames, in a process of their own.
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITE, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert process.stdout is not None
    assert process.stdin is not None
    grown = float(process.stdout.readline())
    assert list(tmp_path.iterdir()) == []  # The file has no name, even now.
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []
    assert grown < 200, f"{grown:.0f} MB"
