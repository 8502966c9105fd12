"""Times the start on a folder of pictures (against a DataLoader), crops and flips, and shuffled orders.

Makes its own JPEG files below `--folder`, and deletes them at the end. Run by hand:

    python benchmarks/decoding.py [--pictures 20000] [--size 64] [--folder /tmp] [--only start augment order]
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from antelope.envs import RandomCrop, RandomHorizontalFlip
from antelope.envs.datasets import read
from antelope.envs.decoded import Cache
from antelope.envs.folders import open_folder
from antelope.envs.images import Pictures
from antelope.envs.tasks import DataWorld
from antelope.launcher.assembly.augmentation import Augmentation
from antelope.replay import Space, Standardize
from antelope.replay.samplers import Epochs


class Silent:
    """A report that is thrown away."""

    def begin(self, text: str, done: int, total: int) -> None: ...

    def advance(self, done: int) -> None: ...

    def end(self) -> None: ...

    def say(self, text: str) -> None: ...


def cpu_seconds() -> float:
    """CPU seconds of this process and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds and wall-clock seconds of a call."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    work()
    return cpu_seconds() - cpu, time.perf_counter() - wall


def make_pictures(root: Path, count: int, size: int) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for k in range(count):
        file = root / f"class{k % 10}" / f"{k:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(file, quality=85)


def start(root: Path, cache: Path) -> None:
    """All that a run does with a folder before it learns: the spec and both tables."""
    parts, pictures = open_folder(root).split(), Pictures(colour=True)
    kept = Cache([cache], Silent())
    assert parts.held_out is not None
    train = read(parts.train, name="train", pictures=pictures, cache=kept)
    test = read(parts.held_out, name="test", pictures=pictures, cache=kept)
    DataWorld([train], [test])


def one_pass(root: Path) -> None:
    """One pass of a DataLoader with two workers, as every tutorial writes it."""
    source = ImageFolder(str(root), transform=ToTensor())
    for _ in DataLoader(source, batch_size=128, shuffle=True, num_workers=2):
        pass


def starts(folder: Path, count: int, size: int) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        root = Path(place) / "pictures"
        make_pictures(root, count, size)
        print(f"{count:,} JPEG files of {size} x {size}, {os.cpu_count()} cores: CPU s, seconds")
        start(root, Path(place) / "warm")  # What is imported late, and the files, are in memory.
        rows = {
            "one pass of a DataLoader, 2 workers": lambda: one_pass(root),
            "first start": lambda: start(root, Path(place) / "decoded"),
            "second start": lambda: start(root, Path(place) / "decoded"),
        }
        found = {name: timed(work) for name, work in rows.items()}
        found["second start"] = min(timed(rows["second start"]) for _ in range(5))
        for name, (cpu, wall) in found.items():
            faster = [
                one / other for one, other in zip(found[next(iter(rows))], (cpu, wall), strict=True)
            ]
            print(
                f"{name:<40}{cpu:>9.3f}{wall:>9.3f}   {faster[0]:.1f} and {faster[1]:.1f} times as fast"
            )


def augmented(pairs: int) -> None:
    """Images per CPU second, from stored bytes to standardised floats."""
    images = torch.randint(256, (128, 3, 32, 32), dtype=torch.uint8)
    mean, stddev = torch.tensor([125.0, 123.0, 114.0]), torch.tensor([63.0, 62.0, 67.0])
    space = Space((3, 32, 32), torch.uint8, 0.0, 255.0, mean, stddev)
    part = Standardize(space, augment=Augmentation([RandomCrop(), RandomHorizontalFlip()]))
    plain = Standardize(space)

    def on_floats(batch: Tensor) -> Tensor:
        return RandomHorizontalFlip()(RandomCrop()(batch.float().div_(255)))

    costs: dict[str, list[float]] = {
        "crop, flip and standardise": [],
        "standardise alone": [],
        "crop and flip floats": [],
    }
    for _ in range(pairs * 20):
        for name, work in zip(
            costs,
            (
                lambda: part({"obs": images}),
                lambda: plain({"obs": images}),
                lambda: on_floats(images),
            ),
            strict=True,
        ):
            begin = time.process_time()
            for _ in range(5):
                work()
            costs[name].append((time.process_time() - begin) / 5)
    # `batch.raw` is made as well, so the first includes the second once.
    whole, raw, floats = (statistics.median(cost) for cost in costs.values())
    print(f"crop, flip and standardise: {128 / (whole - raw):,.0f} images per CPU s beside `raw`")
    print(f"crop and flip of floats:    {128 / floats:,.0f}")


def order(rows: int) -> None:
    index = torch.arange(rows)
    begin = time.process_time()
    sampler = Epochs(index, batch_size=128, generator=torch.Generator().manual_seed(0))
    for _ in range(len(sampler)):
        sampler.next()
    print(f"order of a pass over {rows:,} rows: {time.process_time() - begin:.2f} CPU s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--pairs", type=int, default=5)
    names = ["start", "augment", "order"]
    parser.add_argument("--only", nargs="*", default=names, choices=names)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread")
    if "start" in arguments.only:
        starts(arguments.folder, arguments.pictures, arguments.size)
    if "augment" in arguments.only:
        augmented(arguments.pairs)
    if "order" in arguments.only:
        order(10**7)


if __name__ == "__main__":
    main()
