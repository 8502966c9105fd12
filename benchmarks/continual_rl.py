"""Continual reinforcement learning: three small tasks in a row, with each strategy for environments.

A room of 5 x 5 cells, with the reward in another corner in each task. The observation says where the
agent is and which task it is in, so one network can hold all three; the return is 1 if the corner was
reached within 16 steps, else 0. DQN, 3,000 steps per task. Prints, after the last task, the mean return
over the tasks, the mean return directly after learning each task, and forgetting (in units of return):
mean and standard error over the seeds.

    python benchmarks/continual_rl.py [--seeds 0 1 2 3 4] [--rows naive ewc ...]

It fails unless every strategy forgets less than `naive` and ends with a higher return. The strengths in
`ROWS` were chosen on seeds 10 to 12, from powers of ten (and 0.03). A run takes some ten seconds of one
CPU core.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from antelope import ml

_SIZE, _LIMIT = 5, 16
_MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))
_CORNERS = ((0, 0), (_SIZE - 1, 0), (_SIZE - 1, _SIZE - 1))

ROWS: dict[str, dict[str, float]] = {
    "naive": {},
    "ewc": {"importance": 100.0},
    "ewc_online": {"importance": 100.0},
    "si": {"importance": 10_000.0},
    "mas": {"importance": 100.0},
    "lwf": {"importance": 0.03},
    "cumulative": {},
}


class Room(gymnasium.Env[np.ndarray, Any]):
    """Walk to a corner.

    Args:
        task: Which corner, 0 to 2.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - as gymnasium declares it.

    def __init__(self, task: int):
        self.task, self.goal = task, _CORNERS[task]
        self.observation_space = spaces.Box(0, 1, (2 * _SIZE + len(_CORNERS),), np.float32)
        self.action_space = spaces.Discrete(len(_MOVES))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed)
        self.steps, self.at = 0, self.goal
        while self.at == self.goal:
            self.at = tuple(self.np_random.integers(_SIZE, size=2).tolist())
        return self._obs(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, Any]:
        self.at = tuple(
            min(max(x + dx, 0), _SIZE - 1) for x, dx in zip(self.at, _MOVES[action], strict=True)
        )
        self.steps += 1
        there = self.at == self.goal
        return self._obs(), float(there), there, self.steps >= _LIMIT and not there, {}

    def _obs(self) -> np.ndarray:
        """float32 `[13]`: column, row and task, one-hot."""
        obs = np.zeros(2 * _SIZE + len(_CORNERS), np.float32)
        obs[[self.at[0], _SIZE + self.at[1], 2 * _SIZE + self.task]] = 1
        return obs


def learn(row: str, seed: int, **strengths: float) -> dict[str, float]:
    """The metrics of one run."""
    options = {f"strategy.{name}": value for name, value in (strengths or ROWS[row]).items()}
    with tempfile.TemporaryDirectory() as folder:
        run = ml(
            *(f"{name}={value}" for name, value in options.items()),
            "model.explore_steps=1500", "model.target_every=1", "model.tau=0.02",
            env=[{"_target_": Room, "task": task} for task in range(len(_CORNERS))],
            agent="DQN", strategy=row, seed=seed, discount=0.9, batch_size=64, learn_every=2, lr=1e-3,
            train_steps=3000, seed_steps=200, eval_every=10**6, eval_episodes=40,
            path=folder, plot=False, progress=False, loggers=[], save_every=10**9,
            **{"model.hidden": [64, 64]},
        )  # fmt: skip
    return run.metrics


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--importance", type=float, help="replaces that in ROWS")
    arguments = parser.parse_args()
    names = ("return", "learning_return", "forgetting")
    print(f"{'':12}" + "".join(f"{name:>18}" for name in names) + f"{'seconds':>10}")
    means: dict[str, dict[str, float]] = {}
    for row in dict.fromkeys(["naive", *arguments.rows]):
        began = time.perf_counter()
        strengths = (
            {"importance": arguments.importance} if arguments.importance and ROWS[row] else {}
        )
        results = [learn(row, seed, **strengths) for seed in arguments.seeds]
        means[row] = {name: statistics.mean(r[name] for r in results) for name in names}
        each = (time.perf_counter() - began) / len(results)
        print(
            f"{row:12}" + "".join(_cell([r[n] for r in results]) for n in names) + f"{each:10.1f}"
        )
    naive = means["naive"]
    worse = [
        row
        for row, mean in means.items()
        if row != "naive"
        and not (mean["forgetting"] < naive["forgetting"] and mean["return"] > naive["return"])
    ]
    if worse:
        print(f"No better than naive: {', '.join(worse)}.")
    return bool(worse)


def _cell(values: list[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{f'{statistics.mean(values):.2f} +- {error:.2f}':>18}"


if __name__ == "__main__":
    sys.exit(main())
