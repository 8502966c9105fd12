"""storage=mmap: rows that are larger than memory, and the same run as in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder

import antelope
from antelope import ConfigError, DataError, Run, ml
from antelope.envs.mapping import new_file
from antelope.replay import Mapped

STREAM = np.random.default_rng(0)
PIXELS = STREAM.integers(0, 255, (90, 3, 8, 8), dtype=np.uint8)
NUMBERS = STREAM.normal(1e6, 1, (90, 5))
LABELS = np.arange(90) % 3


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTELOPE_DATA", str(tmp_path / "data"))


class Items(Dataset[Any]):
    """Items whose dtype becomes wider in the middle."""

    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        row = PIXELS[i, 0].astype(np.float32) + 1e-9
        return (row if i < 50 else row.astype(np.float64) + 1e-9), int(LABELS[i])


def folder() -> str:
    for i, picture in enumerate(PIXELS):
        path = Path("pictures", str(LABELS[i]), f"{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.transpose(1, 2, 0)).save(path)
    return "pictures"


def mapped_array() -> Any:
    np.save("pixels.npy", PIXELS.transpose(0, 2, 3, 1))
    return np.load("pixels.npy", mmap_mode="r"), LABELS


def tensors() -> TensorDataset:
    return TensorDataset(torch.from_numpy(NUMBERS), torch.from_numpy(LABELS))


SOURCES: dict[str, Callable[[], dict[str, Any]]] = {
    "a mapped file": lambda: {"dataset": mapped_array()},
    "another byte order": lambda: {"dataset": (NUMBERS.astype(">f8"), LABELS)},
    "wide unsigned ids": lambda: {"dataset": (PIXELS[:, 0, 0].astype(np.uint32), LABELS)},
    "a dict": lambda: {"dataset": ({"a": NUMBERS, "b": PIXELS}, LABELS)},
    "values": lambda: {"dataset": (NUMBERS, NUMBERS[:, :2])},
    "tensors": lambda: {"dataset": Subset(tensors(), range(80, 5, -1))},
    "items": lambda: {"dataset": Items(), "test_dataset": Items()},
    "a list": lambda: {"dataset": [(PIXELS, LABELS), (PIXELS[:50], LABELS[:50])]},
    "tasks": lambda: {"dataset": (PIXELS, LABELS), "tasks": 3, "strategy": "er", "validation": 0.2},
    "a folder": lambda: {"dataset": folder()},
    "an ImageFolder": lambda: {"dataset": ImageFolder(folder())},
    "torchvision": lambda: {"dataset": "Digits"},
}


def run(name: str, **settings: Any) -> Run:
    return ml(path=name, progress=False, plot=False, **{"epochs": 2, "batch_size": 16, **settings})


def assert_same(one: Run, other: Run) -> None:
    """The same weights to the bit, and the same CSV files."""
    weights = one.agent.state_dict()
    for key, value in other.agent.state_dict().items():
        assert torch.equal(weights[key], value), key
    for name in ("train.csv", "eval.csv"):
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes()


@pytest.mark.parametrize("source", SOURCES)
def test_a_run_on_mapped_rows_has_the_same_bits(source: str) -> None:
    settings = SOURCES[source]()
    mapped = run("mapped", storage="mmap", **settings)
    assert_same(run("ram", **settings), mapped)
    obs = mapped.replay.storage.columns["obs"]  # type: ignore[union-attr]
    columns = obs.values() if isinstance(obs, dict) else [obs]
    assert all(isinstance(column, Mapped) for column in columns)


def test_a_run_goes_on_with_another_storage() -> None:
    settings: dict[str, Any] = {"dataset": mapped_array(), "batch_size": 16}

    def in_two_halves(path: str, first: str, then: str) -> Run:
        run(path, storage=first, **settings)
        return run(path, storage=then, resume=True, **{**settings, "epochs": 4})

    whole = in_two_halves("ram", "ram", "ram")
    assert_same(whole, in_two_halves("to", "ram", "mmap"))
    assert_same(whole, in_two_halves("from", "mmap", "ram"))


def test_a_later_task_stays_in_its_file() -> None:
    first = run("first", storage="mmap", dataset=(PIXELS, LABELS), num_classes=5)
    first.learn_task((PIXELS[:40], LABELS[:40] % 2 + 3))
    assert isinstance(first.replay.storage.columns["obs"], Mapped)  # type: ignore[union-attr]
    assert len(first.replay.storage) == 72 + 32


LIMITED = """
import gc, sys
from pathlib import Path
import numpy as np, torch
from PIL import Image
from torch.utils.data import Dataset
from antelope import ml

LIMIT = 32 * 2**20  # Bytes of private memory that a run may take beyond those of a small one.
ROWS = 4 * LIMIT // (3 * 32 * 32)

class Few(torch.nn.Module):
    def __init__(self, out_features=None):
        super().__init__()
        self.head = torch.nn.Linear(16, out_features)
    def forward(self, x):
        return self.head(x.flatten(1)[:, :16])

class Items(Dataset):
    def __len__(self):
        return ROWS
    def __getitem__(self, i):
        return np.full((3, 32, 32), i % 251, np.uint8), i % 4

def array():
    rows = np.lib.format.open_memmap("x.npy", "w+", np.uint8, (ROWS, 3, 32, 32))
    for i in range(ROWS):
        rows[i] = i % 251
    del rows
    return np.load("x.npy", mmap_mode="r"), np.arange(ROWS) % 4

def folder():
    for i in range(4 * LIMIT // (3 * 128 * 128)):
        path = Path("pictures", str(i % 4), f"{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (128, 128), (i % 251, i // 251, 0)).save(path, compress_level=1)
    return "pictures"

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024

def run(dataset, batch_size=256, **settings):
    ml(model=Few, dataset=dataset, optim="SGD", lr=1e-3, epochs=1, batch_size=batch_size, threads=1,
       progress=False, plot=False, save_every=10**9, **settings)

def small(**settings):  # Loads what every run loads.
    rows = np.random.default_rng(0).integers(0, 255, (64, 3, 32, 32), np.uint8)
    run((rows, np.arange(64) % 4), **settings)

KINDS = {"array": array, "items": Items, "folder": folder}
small(path="small")
held = []
def peak(run):
    held.append(status("RssAnon"))
class Watch:
    def on_begin(self, run): peak(run)
    def on_step(self, run): peak(run)
for kind, source in KINDS.items():
    gc.collect()
    held[:] = [status("RssAnon")]
    run(source(), 4 if kind == "folder" else 128, path=kind, storage="mmap", callbacks=Watch())
    print(kind, max(held) - held[0], 4 * LIMIT)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_sets_of_four_times_the_growth_are_learnt_in_flat_memory() -> None:
    command = [sys.executable, "-c", LIMITED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [line.split() for line in done.stdout.splitlines()]
    assert [kind for kind, *_ in found] == ["array", "items", "folder"]
    assert all(int(grew) < int(size) / 4 for _, grew, size in found), found


def test_rows_without_room_are_refused_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"no space left on device.*data_dir="):
        run("run", storage="mmap", dataset=Items())
    with pytest.raises(DataError, match="decoded pictures of pictures cannot be stored"):
        run("run", storage="mmap", dataset=folder())
    assert not Path("run").exists()


def test_a_file_of_rows_has_no_name(tmp_path: Path) -> None:
    rows = new_file((4, 2), torch.float32, [tmp_path / "new"])
    rows[:] = 3
    assert rows.sum() == 24
    assert not list((tmp_path / "new").iterdir())


def test_tables_are_refused() -> None:
    Path("table.csv").write_text("a,b,c\n" + "1.5,2.5,0\n2.5,1.5,1\n" * 20)
    with pytest.raises(ConfigError, match="this is a table, whose rows are held in memory"):
        run("run", storage="mmap", dataset="table.csv", target="c")


def test_environments_say_where_their_storage_is() -> None:
    with pytest.warns(UserWarning, match=r"`storage` has no effect.*replay\.storage"):
        antelope.ml(
            env="CartPole-v1",
            storage="mmap",
            train_steps=10,
            seed_steps=5,
            progress=False,
            plot=False,
        )
