"""What a checkpoint costs beside `torch.save`: peak memory, CPU time, and bytes written.

    python benchmarks/saving.py [--million 50] [--replay 1.0]

Every save is a process of its own, and the two ways take turns. Memory is the process's peak while it saves,
above what it held before, without the pages of files in the system's cache. The hash is also measured alone,
since `torch.save` computes none. The replay is mapped from a file, filled, saved, written to for 1 % of its
rows, and saved again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WAYS = ("torch.save", "ours", "hash")


def resident(what: str) -> float:
    """`VmRSS` or `VmHWM` of this process, in MB. Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1000
    raise RuntimeError(what)


def measured(call: Any) -> dict[str, float]:
    """CPU seconds of a call, and its peak memory above what was held before, in MB."""
    Path("/proc/self/clear_refs").write_text("5")  # Forgets the peak so far.
    held, began = resident("VmRSS"), time.process_time()
    call()
    return {
        "cpu": time.process_time() - began,
        "held": held,
        "peak": resident("VmHWM") - held,
    }


def save_tensors(way: str, millions: int, folder: Path) -> dict[str, float]:
    """Save that many million float32 numbers, with an optimiser's two moments of each."""
    import torch

    from antelope.launcher.record.checkpoint import Checkpoints

    layers = [torch.ones(1000, 1000) for _ in range(3 * millions)]
    state = {"weights": layers[:millions], "moments": layers[millions:]}
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save({"weights": layers[0]})  # Imports what is imported late.
    if way == "torch.save":
        torch.save({"x": layers[0]}, folder / "first.pt")
        return measured(lambda: torch.save(state, folder / "state.pt"))
    if way == "hash":
        digest = hashlib.sha256()
        return measured(lambda: [digest.update(layer.numpy().data) for layer in layers])
    return measured(lambda: checkpoints.save(state))


def save_replay(gigabytes: float, folder: Path) -> dict[str, Any]:
    """Fill a mapped replay, save it twice, and read it back."""
    import numpy as np
    import torch

    from antelope.launcher.record.checkpoint import Checkpoints
    from antelope.replay import Spec
    from antelope.replay.spec import Space
    from antelope.replay.transitions import Transitions

    spec = Spec(Space((1, 84, 84), torch.uint8), Space((4,), torch.int64, discrete=True))
    rows = int(gigabytes * 1e9 / 7100)
    made: dict[str, Any] = {"capacity": rows, "num_envs": 1, "discount": 0.99, "storage": "mmap"}
    ring = Transitions(spec, folder=str(folder), **made)
    draw = np.random.default_rng(0)
    frames = draw.integers(0, 256, (64, 1, 1, 84, 84), dtype=np.uint8)

    def play(steps: int) -> None:
        false = np.zeros(1, np.bool_)
        for i in range(steps):
            step = {"action": np.zeros(1, np.int64), "reward": np.ones(1, np.float32)}
            ends = {"terminated": false, "truncated": false}
            ring.add({**step, **ends, "next_obs": frames[i % 64]})

    ring.start(frames[0])
    play(rows)
    checkpoints = Checkpoints(folder / "checkpoints")
    found: dict[str, Any] = {}
    for name in ("first save", "save after 1 % of its rows"):
        before = used(folder / "checkpoints")
        found[name] = measured(lambda: checkpoints.save({"replay": ring.state_dict()}))
        found[name]["written"] = (used(folder / "checkpoints") - before) / 1e6
        play(rows // 100)
    columns = ring.state_dict()["columns"]
    if len(columns) and gigabytes <= 2:  # It has to hold all of them in memory.
        whole = {name: torch.from_numpy(np.asarray(column)) for name, column in columns.items()}
        found["torch.save, of copies"] = measured(lambda: torch.save(whole, folder / "replay.pt"))
        del whole
    again = Transitions(spec, folder=str(folder), **made)

    def load() -> None:
        state, problems = checkpoints.newest()
        assert state is not None, problems
        again.load_state_dict(state["replay"])

    found["read back"] = measured(load)
    return found


def used(folder: Path) -> int:
    """Bytes of all files, those with several names once."""
    files = {}
    for path in folder.rglob("*") if folder.exists() else ():
        if path.is_file():
            files[path.stat().st_ino] = path.stat().st_size
    return sum(files.values())


def run(*words: str) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument(
        "--million", type=int, default=30, help="parameters; 12 bytes each are saved"
    )
    parser.add_argument("--replay", type=float, default=1.0, help="size of the replay in GB")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            way = options.only[0]
            if way == "replay":
                print(json.dumps(save_replay(options.replay, Path(folder))))
            else:
                print(json.dumps(save_tensors(way, options.million, Path(folder))))
        return
    best: dict[str, dict[str, float]] = {}
    for _ in range(options.repeats):
        for way in WAYS:
            found = run("--million", str(options.million), "--only", way)
            best[way] = {k: min(v, best.get(way, found)[k]) for k, v in found.items()}
    print(f"{options.million} million parameters with two moments: {12 * options.million} MB")
    print("| | CPU s | peak above the run, MB | of the run |")
    print("|---|---|---|---|")
    for way, found in best.items():
        share = found["peak"] / found["held"]
        print(f"| {way} | {found['cpu']:.2f} | {found['peak']:.0f} | {share:.1%} |")
    print(f"\nA mapped replay of {options.replay} GB")
    print("| | CPU s | held before, MB | peak above it, MB | written, MB |")
    print("|---|---|---|---|---|")
    for name, found in run("--replay", str(options.replay), "--only", "replay").items():
        numbers = f"{found['cpu']:.2f} | {found['held']:.0f} | {found['peak']:.0f}"
        print(f"| {name} | {numbers} | {found.get('written', 0):.0f} |")


if __name__ == "__main__":
    main()
