"""What `run.predict` costs beside a bare forward in batches, and how long `ml eval` takes to start.

    OMP_NUM_THREADS=1 python -W ignore benchmarks/inference.py

`predict` reads, checks, lays out and standardises raw uint8 images, runs the model in batches and returns
classes. The bare loop does the same by hand for arrays that are known to be right: standardise, forward,
argmax. Both use the same batches. Times are CPU seconds, the median of alternating repetitions.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from antelope import ml
from antelope.envs.held_out import rows_at_once

REPETITIONS = 9


class MLP(nn.Module):
    """A perceptron of two layers."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(in_features, 256), nn.ReLU(), nn.Linear(256, out_features)
        )

    def forward(self, obs: Tensor) -> Tensor:
        output: Tensor = self.layers(obs)
        return output


class CNN(nn.Module):
    """Two convolutions and a head."""

    def __init__(self, in_channels: int, out_features: int):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(in_channels, 16, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, out_features)),
        )

    def forward(self, obs: Tensor) -> Tensor:
        output: Tensor = self.layers(obs)
        return output


def bare(run: Any, images: Tensor) -> np.ndarray:
    """Classes `[N]` of uint8 images `[N, C, H, W]`, by hand."""
    space, model = run.spec.obs, run.agent
    mean, factor = space.mean.view(-1, 1, 1), 1 / space.stddev.view(-1, 1, 1)
    size = rows_at_once([space.shape], torch.device("cpu"))
    with torch.inference_mode():
        parts = [model((x.float() - mean) * factor).argmax(1) for x in images.split(size)]
    return torch.cat(parts).numpy()


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def compare(name: str, model: type[nn.Module], shape: tuple[int, ...], rows: int) -> None:
    """Print what predicting costs beside the bare loop."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (rows, *shape), dtype=torch.uint8, generator=generator)
    labels = torch.arange(rows) % 10
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"plot": False, "progress": False, "train_steps": 5}
        data = (images[:1000], labels[:1000])
        run = ml(model=model, dataset=data, path=Path(folder) / "run", **options)
        ours, theirs = (lambda: run.predict(images)), (lambda: bare(run, images))
        assert np.array_equal(run.predict(images), bare(run, images))
        pairs = [(seconds(ours), seconds(theirs)) for _ in range(REPETITIONS)]
    one, other = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{name:24} predict {one:6.3f} s   bare {other:6.3f} s   ratio {ratio:.3f}")


def starting() -> None:
    """Print how long `ml eval` takes beside `import torch`."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "run")
        ml(dataset="Digits", train_steps=5, plot=False, progress=False, path=path)
        main = "import sys; from antelope.launcher.ml import main; main(sys.argv[1:])"
        commands = {
            "import torch": [sys.executable, "-c", "import torch"],
            "ml eval RUN": [sys.executable, "-W", "ignore", "-c", main, "eval", path],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(3):
            for name, command in commands.items():
                began = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                times[name].append(time.perf_counter() - began)
    torch_alone, evaluating = (statistics.median(found) for found in times.values())
    print(
        f"ml eval {evaluating:.2f} s, import torch {torch_alone:.2f} s: {evaluating / torch_alone:.2f}"
    )


if __name__ == "__main__":
    compare("MLP, 60,000 x 784", MLP, (1, 28, 28), 60_000)
    compare("CNN, 10,000 x 3x32x32", CNN, (3, 32, 32), 10_000)
    starting()
