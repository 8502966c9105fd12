"""What one run on several devices costs: `python benchmarks/devices.py [--devices 2] [--device cpu]`.

Prints the milliseconds of a learning step in one process and in several, for models whose step is short and
long, and how far the weights of the two runs are apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from antelope import ml


class Clock:
    """Measures the steps after the first ten, which compile and fill caches."""

    def __init__(self) -> None:
        self.began, self.steps = 0.0, 0

    def on_step(self, run: Any) -> None:
        if run.step == 10:
            self.began = time.perf_counter()
        self.steps = run.step

    def on_end(self, run: Any) -> None:
        self.seconds = (time.perf_counter() - self.began) / max(1, self.steps - 10)


def measure(hidden: int, devices: int, device: str, folder: Path, **more: Any) -> tuple[float, Any]:
    """Seconds per step, and the weights."""
    clock = Clock()
    generator = torch.Generator().manual_seed(0)
    data = (torch.randn(4096, 256, generator=generator), torch.arange(4096) % 10)
    settings = {
        "model": "MLP",
        "model.hidden": [hidden, hidden],
        "dataset": data,
        "callbacks": clock,
    }
    settings |= {"batch_size": 256, "train_steps": 60, "device": device, "devices": devices}
    settings |= {"plot": False, "progress": False, "eval_every": 1000, "optim": "SGD", "lr": 0.1}
    run = ml(path=folder / f"{hidden}-{devices}", **settings, **more)
    return clock.seconds, {k: v.cpu() for k, v in run.agent.state_dict().items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="32")
    parser.add_argument("--compile", action="store_true")
    asked = parser.parse_args()
    more = {"precision": asked.precision, "compile": asked.compile}
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for hidden in (64, 1024, 4096):
            one, before = measure(hidden, 1, asked.device, Path(folder), **more)
            several, after = measure(hidden, asked.devices, asked.device, Path(folder), **more)
            apart = max(float((before[k] - after[k]).abs().max()) for k in before)
            print(
                f"hidden {hidden}: 1 process {one * 1e3:.2f} ms a step, {asked.devices} processes "
                f"{several * 1e3:.2f} ms, weights {apart:.1e} apart"
            )


if __name__ == "__main__":
    main()
