"""How good the default agent is with no setting but what it is to learn, and what its steps cost.

Each run is `ml WORDS seed=S` in its own process, and every seed must reach the floor: accuracy at the end
of the epochs given; 95 % of the R2 of ridge regression on the same rows; or a mean return over 20 greedy
episodes, evaluated every 1,000 steps, within a number of environment steps. The last rows are AC2Agent's
steps per second of CPU time, divided by those of the same network with a user's own `learn`, and the
same for a module that has only a `forward`. Run by hand:

    python benchmarks/default_agent.py [--rows digits ...] [--seeds 5] [--jobs 1] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from antelope import ml
from antelope.agents import AC2Agent
from antelope.agents.blocks.cnn import CNN
from antelope.envs import Diabetes, read
from antelope.envs.datasets import held_out_fifth
from antelope.launcher.record.csv_file import read_csv

_RUN = Path(__file__).resolve().parent.parent / "run.py"
_QUIET: dict[str, Any] = {
    "device": "cpu",
    "threads": 1,
    "plot": False,
    "progress": False,
    "save_every": 10**9,
}
_MEASURED = {"eval_every": 1000, "eval_episodes": 20}
_SHARE_OF_RIDGE = 0.95
_LEAST_RATIO = 0.97  # Of steps per second: what repeated measurements differ by.
_WARM_UP = 20  # Steps not timed.


@dataclass(frozen=True)
class Row:
    """What a command must reach.

    Attributes:
        words: All settings of the run.
        floor: Of `metric`; None: a share of ridge regression's.
        within: Environment steps that it may take; None: judged at the end of the run.
        seeds: The most that are tried, where one takes minutes.
    """

    words: str
    metric: str
    floor: float | None
    within: int | None = None
    seeds: int = 5


ROWS = {
    "digits": Row("", "accuracy", 0.97),
    "mnist": Row("dataset=MNIST epochs=5", "accuracy", 0.985, seeds=2),
    "diabetes": Row("dataset=Diabetes", "r2", None),
    "reward": Row("rl=true", "accuracy", 0.95),
    "cartpole": Row("env=CartPole-v1", "return", 475, within=40_000),
    "pendulum": Row("env=Pendulum-v1", "return", -200, within=8000),
}


@dataclass
class Outcome:
    """What a run reached, and the environment steps (None: never) and seconds that it took."""

    value: float
    steps: int | None
    seconds: float


def reach(name: str, seed: int, floor: float, data: Path | None) -> Outcome:
    """One run, stopped once it reaches the floor in an environment.

    Raises:
        RuntimeError: If the run failed, with its last words.
    """
    row = ROWS[name]
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {**_QUIET, "seed": seed, "path": folder + "/run"}
        if row.within is not None:
            settings |= {**_MEASURED, "train_steps": row.within}
        if data is not None:
            settings["data_dir"] = data.resolve()
        words = [*row.words.split(), *(f"{key}={value}" for key, value in settings.items())]
        command = [sys.executable, str(_RUN), *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        start = time.monotonic()
        # Output goes to a file: a pipe that nobody reads would fill up.
        with open(folder + "/output", "w+") as output:
            run = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, cwd=folder, env=environment
            )
            try:
                over = False
                while not over:
                    over = run.poll() is not None  # Looked at before the last rows are read.
                    evaluations = read_csv(Path(folder, "run", "eval.csv"))
                    for evaluation in evaluations if row.within is not None else ():
                        if evaluation[row.metric] >= floor:
                            seconds = time.monotonic() - start
                            return Outcome(evaluation[row.metric], int(evaluation["step"]), seconds)
                    time.sleep(0.2)
            finally:
                if run.poll() is None:
                    run.send_signal(signal.SIGTERM)
                    run.wait()
            if run.returncode:
                output.seek(0)
                raise RuntimeError(f"{name}, seed {seed}:\n{output.read()[-2000:]}")
    return Outcome(evaluations[-1][row.metric], None, time.monotonic() - start)


def ridge_r2() -> float:
    """R2 of ridge regression on Diabetes' held-out rows.

        w = (X'X + alpha I)^-1 X'y        alpha by 5-fold cross-validation of the training rows

    Inputs and targets have zero mean and unit standard deviation over the training rows (Hoerl &
    Kennard, 1970, Technometrics 12).
    """
    arrays = read(Diabetes(), name="Diabetes")
    train, test = held_out_fifth(arrays)
    parts = []
    for values in (arrays.inputs.double(), arrays.targets.double().view(len(arrays.targets), -1)):
        mean, stddev = values[train].mean(0), values[train].std(0, correction=0)
        parts.append((values - mean) / stddev)
    x, y = parts

    def error(alpha: float, rows: Tensor, held_out: Tensor) -> float:
        penalty = alpha * torch.eye(x.shape[1], dtype=x.dtype)
        weights = torch.linalg.solve(x[rows].T @ x[rows] + penalty, x[rows].T @ y[rows])
        return float((x[held_out] @ weights - y[held_out]).square().sum())

    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    folds = train[order].chunk(5)

    def cross_validated(alpha: float) -> float:
        rest = [torch.cat([*folds[:i], *folds[i + 1 :]]) for i in range(len(folds))]
        return sum(error(alpha, *pair) for pair in zip(rest, folds, strict=True))

    alpha = min((10 ** (power / 2) for power in range(-4, 8)), key=cross_validated)
    return 1 - error(alpha, train, test) / float((y[test] - y[test].mean()).square().sum())


class Clock:
    """CPU time, read at each training step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def tick(self) -> None:
        self.times.append(time.process_time())

    def rate(self) -> float:
        """Steps per second."""
        times = self.times[_WARM_UP:]
        return (len(times) - 1) / (times[-1] - times[0])


def overhead(make: Callable[[Clock], Any], *, rounds: int, steps: int) -> float:
    """Median ratio of a model's steps per second to those of the same network with its own `learn`."""

    class Own(nn.Module):
        """The default agent's network for digits, in the hands of a user."""

        def __init__(self, in_shape: tuple[int, ...], num_classes: int, clock: Clock):
            super().__init__()
            self.network = CNN(in_shape, num_classes)
            self.clock = clock

        def forward(self, obs: Tensor) -> Tensor:
            return self.network(obs)

        def learn(self, replay: Any) -> Tensor:
            self.clock.tick()
            batch = next(replay)
            return F.cross_entropy(self(batch.obs), batch.label)

    def rate(model: Callable[[Clock], Any]) -> float:
        gc.collect()
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            ml(model=model(clock), train_steps=steps, eval_every=10**9, path=folder, **_QUIET)
        return clock.rate()

    def own(clock: Clock) -> Any:
        return {"_target_": Own, "clock": clock}

    ratios = []
    for turn in range(rounds + 1):
        # Each goes first in turn: the second finds a warmer machine.
        pair = (make, own) if turn % 2 else (own, make)
        rates = {model: rate(model) for model in pair}
        if turn:  # The first warms up.
            ratios.append(rates[make] / rates[own])
    return statistics.median(ratios)


class Timed(AC2Agent):
    """AC2Agent, which reports its steps to a clock."""

    clock: Clock

    def learn(self, replay: Any, log: Any) -> Tensor | None:
        self.clock.tick()
        return super().learn(replay, log)


def default_agent(clock: Clock) -> Any:
    return type("Timed", (Timed,), {"clock": clock})


class Forward(nn.Module):
    """The default agent's network for digits, without a `learn`."""

    def __init__(self, in_shape: tuple[int, ...], num_classes: int, clock: Clock):
        super().__init__()
        self.network = CNN(in_shape, num_classes)
        self.clock = clock

    def forward(self, obs: Tensor) -> Tensor:
        if self.training:
            self.clock.tick()
        return self.network(obs)


def forward_only(clock: Clock) -> Any:
    return {"_target_": Forward, "clock": clock}


OVERHEADS = {"AC2Agent": default_agent, "forward only": forward_only}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    choices = [*ROWS, "overhead"]
    parser.add_argument("--rows", nargs="*", default=choices, choices=choices)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs, one core each")
    parser.add_argument("--data", type=Path, help="folder that holds MNIST")
    parser.add_argument("--rounds", type=int, default=9, help="pairs of overhead runs")
    parser.add_argument("--steps", type=int, default=600, help="of each overhead run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'row':<14}{'ml ...':<26}{'floor':>20}  {'by seed':<48}{'seconds':>8}")
    failed = False
    with ThreadPoolExecutor(arguments.jobs) as pool:
        floors, runs = {}, {}
        for name in arguments.rows:
            if name in ROWS:
                row = ROWS[name]
                floors[name] = _SHARE_OF_RIDGE * ridge_r2() if row.floor is None else row.floor
                seeds = range(min(row.seeds, arguments.seeds))
                runs[name] = [
                    pool.submit(reach, name, seed, floors[name], arguments.data) for seed in seeds
                ]
        for name, futures in runs.items():
            row, floor = ROWS[name], floors[name]
            try:
                outcomes = [future.result() for future in futures]
            except RuntimeError as error:
                failed = True
                print(f"{name:<14}FAIL: {error}", flush=True)
                continue
            if row.within is None:
                listed = [f"{outcome.value:.4f}" for outcome in outcomes]
                asked, passed = f"{row.metric} {floor:.4g}", all(o.value >= floor for o in outcomes)
            else:
                listed = ["never" if o.steps is None else f"{o.steps:,}" for o in outcomes]
                asked, passed = f"{floor:g} in {row.within:,}", all(o.steps for o in outcomes)
            failed |= not passed
            seconds = statistics.median(outcome.seconds for outcome in outcomes)
            print(
                f"{name:<14}{row.words:<26}{asked:>20}  {' '.join(listed):<48}{seconds:>8.0f}"
                f"  {'pass' if passed else 'FAIL'}",
                flush=True,
            )
    if "overhead" in arguments.rows:
        for name, make in OVERHEADS.items():
            ratio = overhead(make, rounds=arguments.rounds, steps=arguments.steps)
            failed |= ratio < _LEAST_RATIO
            print(
                f"{'overhead':<14}{name:<26}{f'ratio {_LEAST_RATIO}':>20}  {ratio:<48.3f}{'':>8}"
                f"  {'pass' if ratio >= _LEAST_RATIO else 'FAIL'}",
                flush=True,
            )
    sys.exit(failed)


if __name__ == "__main__":
    main()
