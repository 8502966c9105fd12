"""Data sets larger than memory: what a run takes, under a limit, and how fast it learns.

    python benchmarks/past_memory.py [--limit 1024] [--only arrays ...] [--storage mmap ...]

One process makes a data set of four times the limit. Another one, which is started with that limit on its
private memory (`RLIMIT_DATA`, which Python and torch count against too), opens it, learns from it, saves
checkpoints, evaluates and predicts; a thread of it looks at its memory every few milliseconds.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset
from torchvision.datasets import MNIST, ImageFolder

from antelope import ml

SIDE, CLASSES = 64, 4
ROW = 3 * SIDE * SIDE
PICTURE = 256  # Side of a picture in a file: it takes as much as 16 rows.
LARGE = ("folder", "image_folder", "shards", "arrow_pictures")
STORAGES = {"arrays": ("ram", "mmap"), "floats": ("mmap",), "items": ("ram", "mmap", "stream")}
STORAGES |= dict.fromkeys(LARGE, ("mmap", "stream")) | {"iterable": ("mmap", "stream")}
STORAGES |= {"arrow": ("mmap",), "mnist": ("mmap",)}
SETTINGS: dict[str, Any] = {
    "optim": "SGD",
    "lr": 1e-3,
    "epochs": 1,
    "threads": 1,
    "progress": False,
}


class Few(nn.Module):
    """A model that costs nothing: what is left is the reading."""

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.head = nn.Linear(16, out_features)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(x.flatten(1)[:, :16])
        return found


class Watch:
    """The largest private memory of this process during each part of a run, in bytes.

    Attributes:
        most: By the name of the part.
        began, ended: When learning did.
    """

    def __init__(self) -> None:
        self.before, self.began, self.ended = private(), 0.0, 0.0
        self.part, self.most = "prepared", {}
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            now = private()
            self.most[self.part] = max(now, self.most.get(self.part, 0))
            time.sleep(0.01)

    def on_begin(self, run: Any) -> None:
        self.part, self.began = "learnt", time.perf_counter()

    def on_step(self, run: Any) -> None:
        self.ended = time.perf_counter()

    def grew(self, part: str) -> str:
        return f"{(self.most.get(part, self.before) - self.before) / 2**20:.0f}"


class Items(Dataset[Any]):
    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        return np.full((3, SIDE, SIDE), i % 251, np.uint8), i % CLASSES


class Iterable(IterableDataset[Any]):
    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        return (Items(self.rows)[i] for i in range(self.rows))


def pictures() -> list[bytes]:
    """Files of pictures of noise, which are as large as their pixels."""
    draw, made = np.random.default_rng(0), []
    for _ in range(16):
        held = io.BytesIO()
        pixels = draw.integers(0, 255, (PICTURE, PICTURE, 3), np.uint8)
        Image.fromarray(pixels).save(held, "png", compress_level=0)
        made.append(held.getvalue())
    return made


def make_arrays(nbytes: int, dtype: Any = np.uint8) -> None:
    rows = nbytes // (ROW * np.dtype(dtype).itemsize)
    made = np.lib.format.open_memmap("rows.npy", "w+", dtype, (rows, 3, SIDE, SIDE))
    for i in range(rows):
        made[i] = i % 251


def make_folder(nbytes: int) -> None:
    files = pictures()
    for i in range(nbytes // (3 * PICTURE**2)):
        path = Path("pictures", str(i % CLASSES), f"{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[i % len(files)])


def make_shards(nbytes: int) -> None:
    Path("shards").mkdir()
    rows, files = nbytes // (3 * PICTURE**2), pictures()
    for start in range(0, rows, 500):
        with tarfile.open(f"shards/{start // 500:03}.tar", "w") as archive:
            for i in range(start, min(rows, start + 500)):
                for ending, content in (
                    ("png", files[i % len(files)]),
                    ("cls", str(i % CLASSES).encode()),
                ):
                    about = tarfile.TarInfo(f"{i:07}.{ending}")
                    about.size = len(content)
                    archive.addfile(about, io.BytesIO(content))


def make_arrow(nbytes: int) -> None:
    import datasets

    form = {"x": datasets.Array3D((3, SIDE, SIDE), "uint8"), "label": datasets.Value("int64")}
    made = datasets.Dataset.from_generator(
        lambda: ({"x": x, "label": label} for x, label in iter(Iterable(nbytes // ROW))),
        features=datasets.Features(form),
        cache_dir="cache",
    )
    made.save_to_disk("saved")


def make_arrow_pictures(nbytes: int) -> None:
    import datasets

    files, form = pictures(), {"x": datasets.Image(), "label": datasets.Value("int64")}

    def rows() -> Iterator[dict[str, Any]]:
        for i in range(nbytes // (3 * PICTURE**2)):
            yield {"x": {"bytes": files[i % len(files)], "path": None}, "label": i % CLASSES}

    made = datasets.Dataset.from_generator(
        rows, features=datasets.Features(form), cache_dir="cache"
    )
    made.save_to_disk("saved")


def make_mnist(nbytes: int) -> None:
    """Files as MNIST's, of more rows."""
    folder = Path("data", "MNIST", "raw")
    folder.mkdir(parents=True)
    for part, rows in (("train", nbytes // 784), ("t10k", nbytes // 784 // 6)):
        with open(folder / f"{part}-images-idx3-ubyte", "wb") as file:
            file.write(np.array([0x803, rows, 28, 28], ">i4").tobytes())
            for i in range(0, rows, 1000):
                file.write(np.full((min(1000, rows - i), 28, 28), i % 251, np.uint8).tobytes())
        with open(folder / f"{part}-labels-idx1-ubyte", "wb") as file:
            file.write(np.array([0x801, rows], ">i4").tobytes())
            file.write((np.arange(rows) % 10).astype(np.uint8).tobytes())


MAKE: dict[str, Callable[[int], None]] = {
    "arrays": make_arrays,
    "floats": lambda nbytes: make_arrays(nbytes, np.float32),
    "folder": make_folder,
    "image_folder": make_folder,
    "mnist": make_mnist,
    "arrow": make_arrow,
    "arrow_pictures": make_arrow_pictures,
    "shards": make_shards,
    "items": lambda nbytes: None,
    "iterable": lambda nbytes: None,
}


def given(kind: str, nbytes: int) -> dict[str, Any]:
    """The settings that name a data set."""
    if kind in ("arrays", "floats"):
        rows = np.load("rows.npy", mmap_mode="r")
        return {"dataset": (rows, np.arange(len(rows)) % CLASSES)}
    if kind == "image_folder":
        return {"dataset": ImageFolder("pictures")}
    if kind == "mnist":
        return {"dataset": MNIST, "data_dir": "data"}
    if kind == "items":
        return {"dataset": Items(nbytes // ROW)}
    if kind == "iterable":
        rows = nbytes // ROW
        return {"dataset": Iterable(rows), "test_dataset": Iterable(rows // 5)}
    if kind == "arrow_pictures":
        import datasets

        rows = datasets.load_from_disk("saved").shuffle(seed=0)
        return {"dataset": rows, "target": "label"}
    named = {"folder": "pictures", "shards": "shards"}.get(kind, "saved")
    return {"dataset": named} | ({"target": "label"} if named == "saved" else {})


def private() -> int:
    """Private memory of this process, in bytes."""
    with open("/proc/self/statm") as file:
        _, resident, shared, *_ = map(int, file.read().split())
    return (resident - shared) * resource.getpagesize()


def case(kind: str, storage: str, nbytes: int) -> None:
    torch.set_num_threads(1)
    small = np.random.default_rng(0).integers(0, 255, (64, 3, SIDE, SIDE), np.uint8)
    first = ml(model=Few, dataset=(small, np.arange(64) % CLASSES), path="small", **SETTINGS)
    first.predict(small[:4])
    del first
    gc.collect()
    watch, start = Watch(), time.perf_counter()
    settings = {"storage": storage} | ({"shuffle_buffer": 128} if storage == "stream" else {})
    batch_size = 4 if kind in LARGE else 64
    settings |= {"batch_size": batch_size, "save_every": 500}
    run = ml(model=Few, path="run", callbacks=watch, **settings, **SETTINGS, **given(kind, nbytes))
    seconds = watch.began - start, watch.ended - watch.began
    watch.part = "evaluated"
    run.evaluate()
    time.sleep(0.01)
    rows = f"{len(run.replay) / seconds[1]:,.0f}"
    found = *map(watch.grew, ("prepared", "learnt", "evaluated")), f"{seconds[0]:.1f}", rows
    print(f"| {kind} | {storage} | {nbytes // 2**20:,} | {' | '.join(found)} |", flush=True)


def started(words: list[str], folder: str, limit: int | None) -> tuple[int, str, str]:
    """The exit code and the output of this file in another process."""
    environment = {**os.environ, "ANTELOPE_DATA": f"{folder}/data", "OMP_NUM_THREADS": "1"}

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    command = [sys.executable, os.path.abspath(__file__), *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, preexec_fn=limited, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--limit", type=int, default=1024, help="MB")
    parser.add_argument("--only", nargs="*", choices=MAKE, default=list(MAKE))
    parser.add_argument("--storage", nargs="*", choices=("ram", "mmap", "stream"))
    parser.add_argument("--free", action="store_true", help="no limit: only measured")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    limit = asked.limit * 2**20
    if asked.case:
        kind, storage = asked.case
        MAKE[kind](4 * limit) if storage == "make" else case(kind, storage, 4 * limit)
        return
    print("| data | `storage` | MB | prepared | learnt | evaluated | s to prepare | rows/s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    size = ["--limit", str(asked.limit)]
    for kind in asked.only:
        with tempfile.TemporaryDirectory() as folder:
            code, _, errors = started([*size, "--case", kind, "make"], folder, None)
            if code:
                sys.exit(errors)
            for storage in asked.storage or STORAGES[kind]:
                words = [*size, "--case", kind, storage]
                code, out, errors = started(words, folder, None if asked.free else limit)
                found = [line for line in out.splitlines() if line.startswith("|")]
                why = f"ended by {-code}" if code < 0 else (errors.strip().splitlines() or [""])[-1]
                print(
                    *(found or [f"| {kind} | {storage} | {4 * asked.limit:,} | {why} |"]),
                    flush=True,
                )
                subprocess.run(["rm", "-rf", f"{folder}/run", f"{folder}/small"])


if __name__ == "__main__":
    main()
