"""What grows with what: CPU time and memory of small runs of growing size, one quantity at a time.

    python benchmarks/scaling.py                        # all: about five minutes on two cores
    python benchmarks/scaling.py --only rows ranks

Every point is a process of its own with one thread. Times are CPU seconds of that process and of those it
started, without imports; memory is the peak of what belongs to the process alone (`RssAnon`). Beside each
table stands the line through its points, `fixed + slope * n`, by least squares.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

QUIET: dict[str, Any] = {"progress": False, "plot": False, "device": "cpu", "threads": 1, "seed": 0}


def cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


@contextmanager
def memory() -> Iterator[dict[str, float]]:
    """The growth of RssAnon at its peak within the block, in MB, looked at a hundred times a second."""
    found, over = {"mb": 0.0}, threading.Event()
    before = _anonymous()

    def look() -> None:
        while not over.wait(0.01):
            found["mb"] = max(found["mb"], _anonymous() - before)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def _anonymous() -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in x)
    return int(line.split()[1]) / 1000


def run(steps: tuple[int, int], **settings: Any) -> dict[str, float]:
    """CPU time of a start and of a step, from two runs that differ in length; the longer one's memory."""
    from antelope import ml

    def took(train_steps: int) -> float:
        began = cpu()
        ml(**{**QUIET, **settings, "train_steps": train_steps, "path": f"run_{train_steps}"})
        return cpu() - began

    took(steps[0])  # Imports, and what the first run of a process pays.
    first = took(steps[0])
    with memory() as held:
        second = took(steps[1])
    step = (second - first) / (steps[1] - steps[0])
    return {
        "start s": max(first - steps[0] * step, 0.0),
        "step ms": 1e3 * step,
        "peak MB": held["mb"],
    }


def rows(n: int) -> dict[str, float]:
    """Rows of a data set of 64 bytes each, an MLP in batches of 256, no evaluation of all rows."""
    import numpy as np

    draw = np.random.default_rng(0)
    data = draw.integers(0, 256, (n, 64), dtype=np.uint8), draw.integers(0, 10, n)
    return run((20, 220), model="MLP", dataset=data, batch_size=256, eval_rows=1000)


def tasks(n: int) -> dict[str, float]:
    """Tasks of two classes with 200 rows each, one epoch of each: er with 500 rows of memory."""
    import numpy as np

    from antelope import ml

    draw = np.random.default_rng(0)
    label = np.repeat(np.arange(2 * n), 100)
    data = draw.normal(label[:, None] % 7, 1, (len(label), 32)).astype("float32"), label
    how = {
        "model": "MLP",
        "dataset": data,
        "tasks": n,
        "strategy": "er",
        "epochs": 1,
        "batch_size": 10,
    }
    ml(**QUIET, **{**how, "tasks": 2, "dataset": (data[0][:800], label[:800]), "path": "first"})
    began = cpu()
    with memory() as held:
        ml(**QUIET, **how, path="run")
    return {"run s": cpu() - began, "peak MB": held["mb"]}


def rehearsed(n: int) -> dict[str, float]:
    """Rows of er's memory, filled on MNIST-sized rows (784 bytes)."""
    import numpy as np

    draw = np.random.default_rng(0)
    data = draw.integers(0, 256, (20_000, 784), dtype=np.uint8), draw.integers(0, 10, 20_000)
    how = {"model": "MLP", "dataset": data, "strategy": "er", "strategy.er.capacity": n}
    return run((200, 1200), batch_size=10, eval_rows=100, **how)


def capacity(n: int) -> dict[str, float]:
    """Transitions that the replay of a DQN on CartPole holds; it is filled to 4,000."""
    return run((1000, 4000), env="CartPole-v1", agent="DQN", capacity=n, eval_episodes=0)


def environments(n: int) -> dict[str, float]:
    """Copies of CartPole for a PPO; a step is one of one copy."""
    return run((2048, 8192), env="CartPole-v1", agent="PPO", num_envs=n, eval_episodes=0)


def ranks(n: int) -> dict[str, float]:
    """Processes of one run on a CPU: an MLP of 1.3 million parameters, 64 rows to each."""
    import numpy as np

    draw = np.random.default_rng(0)
    data = draw.integers(0, 256, (20_000, 784), dtype=np.uint8), draw.integers(0, 10, 20_000)
    devices = {} if n == 1 else {"devices": n}
    how = {"model": "MLP", "model.hidden": 1000, "dataset": data, "batch_size": 64 * n}
    return run((5, 65), eval_rows=100, **how, **devices)


def runs(n: int) -> dict[str, float]:
    """Tiny runs of a sweep in two kept workers, beyond the runs themselves (20 steps on digits)."""
    import antelope
    from antelope import ml

    how: dict[str, Any] = {**QUIET, "model": "MLP", "dataset": "Digits", "train_steps": 20}
    ml(**how, path="first")
    began = cpu()
    ml(**how, path="second")
    alone, began = cpu() - began, cpu()
    antelope.sweep(**{k: v for k, v in how.items() if k != "seed"}, seed=range(n), jobs=2)
    return {"sweep s": cpu() - began, "runs alone s": n * alone}


def folders(n: int) -> dict[str, float]:
    """Finished runs under one folder, read by `ml table`."""
    import shutil

    from antelope import ml
    from antelope.launcher.ml import main

    ml(**QUIET, model="MLP", dataset="Digits", train_steps=20, path="runs/many/MLP/Digits/0")
    shutil.rmtree("runs/many/MLP/Digits/0/checkpoints")
    for seed in range(1, n):
        copy = Path(shutil.copytree("runs/many/MLP/Digits/0", f"runs/many/MLP/Digits/{seed}"))
        text = (copy / "config.yaml").read_text()
        (copy / "config.yaml").write_text(text.replace("seed: 0", f"seed: {seed}"))
    began = cpu()
    with suppress(SystemExit):
        main(["table", "runs/many"])
    return {"table s": cpu() - began}


SIZES: dict[Callable[[int], dict[str, float]], tuple[int, ...]] = {
    rows: (10_000, 100_000, 1_000_000),
    tasks: (2, 5, 10, 20),
    rehearsed: (200, 2000, 10_000),
    capacity: (10_000, 1_000_000),
    environments: (1, 8, 64),
    ranks: (1, 2, 4),
    runs: (4, 8),
    folders: (10, 100, 1000),
}


def point(name: str, n: int) -> dict[str, float]:
    """Measure one point in a process of its own, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        found = subprocess.run(
            [
                sys.executable,
                "-W",
                "ignore",
                str(Path(__file__).resolve()),
                "--point",
                name,
                str(n),
            ],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(found.stdout.splitlines()[-1])


def line(sizes: list[int], values: list[float]) -> str:
    """The line through the points."""
    import numpy as np

    slope, fixed = np.polyfit(np.array(sizes, dtype=float), np.array(values), 1)
    return f"{fixed:.3g} + {slope:.3g} n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=[each.__name__ for each in SIZES])
    parser.add_argument("--point", nargs=2, metavar=("NAME", "N"), help="one point, as JSON")
    args = parser.parse_args()
    by_name = {each.__name__: each for each in SIZES}
    if args.point:
        began = time.monotonic()
        found = by_name[args.point[0]](int(args.point[1]))
        print(json.dumps({**found, "took s": time.monotonic() - began}))
        return
    for name in args.only or by_name:
        sizes = list(SIZES[by_name[name]])
        print(f"\n{name}: {(by_name[name].__doc__ or '').strip()}\n")
        points = [point(name, n) for n in sizes]
        columns = [key for key in points[0] if key != "took s"]
        print("| n | " + " | ".join(columns) + " |\n|" + "---|" * (1 + len(columns)))
        for n, found in zip(sizes, points, strict=True):
            print(f"| {n:,} | " + " | ".join(f"{found[key]:.3g}" for key in columns) + " |")
        fits = [line(sizes, [found[key] for found in points]) for key in columns]
        print("| line | " + " | ".join(fits) + " |", flush=True)


if __name__ == "__main__":
    main()
