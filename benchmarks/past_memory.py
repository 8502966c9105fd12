"""Data sets larger than memory: what a run takes, under a limit, and how fast it learns.

    python benchmarks/past_memory.py [--megabytes 512] [--only arrays ...]

Each case is a process that makes or opens a data set of four times the limit, does a small run (which loads
what every run loads), and is then put into a control group of its own with that limit (as root, where there
are such groups; else its growth alone is measured). Of the limit, Python and torch take about 375 MB.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from antelope import ml

SIDE, CLASSES = 64, 4
ROW = 3 * SIDE * SIDE
GROUPS = Path("/sys/fs/cgroup/memory")


class Few(nn.Module):
    """A model that costs nothing: what is left is the reading."""

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.head = nn.Linear(16, out_features)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(x.flatten(1)[:, :16])
        return found


class Watch:
    """The largest private memory of a run, in bytes, and the time of its steps."""

    def __init__(self) -> None:
        self.before = self.most = private()
        self.began = self.ended = 0.0

    def on_begin(self, run: Any) -> None:
        self.began = time.perf_counter()

    def on_step(self, run: Any) -> None:
        self.most, self.ended = max(self.most, private()), time.perf_counter()


class Items(Dataset[Any]):
    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        return np.full((3, SIDE, SIDE), i % 251, np.uint8), i % CLASSES


class Stream(IterableDataset[Any]):
    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        return (Items(self.rows)[i] for i in range(self.rows))


def jpeg(i: int) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (i % 251, i // 251 % 251, 0)).save(held, "jpeg")
    return held.getvalue()


def arrays(rows: int) -> dict[str, Any]:
    made = np.lib.format.open_memmap("rows.npy", "w+", np.uint8, (rows, 3, SIDE, SIDE))
    for i in range(rows):
        made[i] = i % 251
    del made
    return {"dataset": (np.load("rows.npy", mmap_mode="r"), np.arange(rows) % CLASSES)}


def folder(rows: int) -> dict[str, Any]:
    for i in range(rows):
        path = Path("pictures", str(i % CLASSES), f"{i}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(i))
    return {"dataset": "pictures"}


def shards(rows: int) -> dict[str, Any]:
    Path("shards").mkdir()
    for start in range(0, rows, 2000):
        with tarfile.open(f"shards/{start // 2000:03}.tar", "w") as archive:
            for i in range(start, min(rows, start + 2000)):
                for ending, content in (("jpg", jpeg(i)), ("cls", str(i % CLASSES).encode())):
                    about = tarfile.TarInfo(f"{i:07}.{ending}")
                    about.size = len(content)
                    archive.addfile(about, io.BytesIO(content))
    return {"dataset": "shards"}


def arrow(rows: int) -> dict[str, Any]:
    import datasets

    form = {"x": datasets.Array3D((3, SIDE, SIDE), "uint8"), "label": datasets.Value("int64")}
    made = datasets.Dataset.from_generator(
        lambda: ({"x": x, "label": label} for x, label in iter(Stream(rows))),
        features=datasets.Features(form),
        cache_dir="cache",
    )
    made.save_to_disk("saved")
    return {"dataset": "saved", "target": "label"}


def items(rows: int) -> dict[str, Any]:
    return {"dataset": Items(rows)}


def stream(rows: int) -> dict[str, Any]:
    return {"dataset": Stream(rows), "test_dataset": Stream(rows // 5)}


KINDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "arrays": arrays,
    "folder": folder,
    "shards": shards,
    "arrow": arrow,
    "items": items,
    "stream": stream,
}


def private() -> int:
    """Private memory of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024


def limit(nbytes: int) -> bool:
    """Let this process take so many bytes from now on; whether that is possible here."""
    group = GROUPS / f"antelope_{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(nbytes))
        with contextlib.suppress(OSError):
            (group / "memory.memsw.limit_in_bytes").write_text(str(nbytes))
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        return False
    return True


def case(kind: str, storage: str, megabytes: int, *, limited: bool) -> None:
    torch.set_num_threads(1)
    rows = 4 * megabytes * 2**20 // ROW
    usual = {"model": Few, "optim": "SGD", "lr": 1e-3, "epochs": 1, "batch_size": 64, "threads": 1}
    usual |= {"progress": False, "plot": False}
    given = KINDS[kind](rows)
    small = np.random.default_rng(0).integers(0, 255, (64, 3, SIDE, SIDE), np.uint8)
    ml(path="small", **{**usual, "dataset": (small, np.arange(64) % CLASSES)})
    gc.collect()
    under = limited and limit(megabytes * 2**20)
    watch, start = Watch(), time.perf_counter()
    usual |= {"storage": storage} | ({"shuffle_buffer": 500} if storage == "stream" else {})
    run = ml(path="run", callbacks=watch, **usual, **given)
    prepared, learnt = watch.began - start, watch.ended - watch.began
    print(
        f"| {kind} | {storage} | {4 * megabytes} | {megabytes if under else '-'} | "
        f"{(watch.most - watch.before) / 2**20:.0f} | {prepared:.1f} | {len(run.replay) / learnt:,.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--only", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case:
        kind, storage, limited = asked.case
        case(kind, storage, asked.megabytes, limited=limited == "limited")
        return
    print("| data | storage | MB | limit, MB | grew, MB | s before the first step | rows/s |")
    print("|---|---|---|---|---|---|---|")
    for kind in asked.only:
        for storage, limited in (
            ("ram", ""),
            ("ram", "limited"),
            ("mmap", "limited"),
            ("stream", "limited"),
        ):
            if kind == "stream" and storage == "ram":
                continue
            with tempfile.TemporaryDirectory() as folder:
                command = [
                    sys.executable,
                    os.path.abspath(__file__),
                    "--megabytes",
                    str(asked.megabytes),
                ]
                environment = {
                    **os.environ,
                    "ANTELOPE_DATA": f"{folder}/data",
                    "OMP_NUM_THREADS": "1",
                }
                with subprocess.Popen(
                    [*command, "--case", kind, storage, limited],
                    cwd=folder,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                ) as process:
                    out, errors = process.communicate()
                with contextlib.suppress(OSError):
                    (GROUPS / f"antelope_{process.pid}").rmdir()
                rows = [line for line in out.splitlines() if line.startswith("|")]
                why = "killed" if process.returncode == -9 else errors.strip().splitlines()[-1:]
                print(
                    *(rows or [f"| {kind} | {storage} | | {asked.megabytes} | {why} | | |"]),
                    flush=True,
                )


if __name__ == "__main__":
    main()
