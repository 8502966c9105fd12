"""Sequences of different lengths, on the embedded languages: right, as fast as a plain loop, and continual.

First `ml` and a plain loop (plain/language.py) learn the same sentences with the same weights, batches and
optimiser, in turn: their accuracies, and the ratio of their CPU times, whole calls included. Then five tasks
of two languages each, by `ml task=continual/split_language`: class-IL and task-IL accuracy, mean and standard
deviation over seeds. Run by hand:

    python benchmarks/language.py [--only plain|continual] [--seeds 3] [--epochs 10]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from antelope import ml
from antelope.envs import Language
from benchmarks.plain.language import GRU, accuracy, train

STRATEGIES = ("naive", "er", "ewc", "lwf", "packnet", "joint")
QUIET: dict[str, Any] = {"plot": False, "progress": False}


def beside_a_plain_loop(seed: int, epochs: int, folder: str) -> None:
    """Print what both reach, and what `ml` costs in units of the plain loop."""
    begun = time.process_time()
    learnt, held_out = Language(), Language(train=False)
    torch.manual_seed(seed)
    model = GRU(20, 10)
    orders = torch.Generator().manual_seed(seed)
    torch.randperm(len(learnt), generator=orders)  # `ml` has shuffled once when training begins.
    train(model, list(learnt.inputs), learnt.targets, epochs=epochs, orders=orders)
    plain = accuracy(model, list(held_out.inputs), held_out.targets)
    middle = time.process_time()
    run = ml(
        model=GRU,
        dataset="Language",
        epochs=epochs,
        seed=seed,
        eval_every=10**9,
        path=folder,
        **QUIET,
    )
    ended = time.process_time()
    weights = zip(model.state_dict().values(), run.agent.state_dict().values(), strict=True)
    apart = max(float((one - other).abs().max()) for one, other in weights)
    print(
        f"seed {seed}: accuracy {run.metrics['accuracy']:.4f}, plain loop {plain:.4f} (weights differ by "
        f"{apart:.1g}); CPU time {(ended - middle) / (middle - begun):.2f} of the plain loop's"
    )


def one_after_another(seeds: int, folder: str) -> None:
    """Print a row for each strategy."""
    print(f"{'strategy':10} {'class-IL':>15} {'task-IL':>15} {'CPU s':>7}")
    for strategy in STRATEGIES:
        found: list[tuple[float, float]] = []
        begun = time.process_time()
        for seed in range(seeds):
            run = ml(
                task="continual/split_language",
                strategy=strategy,
                seed=seed,
                path=f"{folder}/{strategy}/{seed}",
                **QUIET,
            )
            found.append((run.metrics["accuracy"], run.metrics["task_il_accuracy"]))
        spent = (time.process_time() - begun) / seeds
        both = "".join(f"{_percent(list(column)):>16}" for column in zip(*found, strict=True))
        print(f"{strategy:10}{both} {spent:7.0f}", flush=True)


def _percent(shares: list[float]) -> str:
    stddev = statistics.stdev(shares) if len(shares) > 1 else 0.0
    return f"{100 * statistics.mean(shares):.1f} +- {100 * stddev:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=("plain", "continual"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if given.only != "continual":
            for seed in range(given.seeds):
                beside_a_plain_loop(seed, given.epochs, f"{folder}/{seed}")
        if given.only != "plain":
            one_after_another(given.seeds, folder)


if __name__ == "__main__":
    main()
