"""Runs in environments as one rank of two: `environments_on_ranks.py RANK FOLDER`.

Run by test_distributed_environments.py, once for all: starting a process takes longer than all its runs.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import torch
import torch.distributed as dist

from antelope import ml
from antelope.launcher.distributed import Place, group_of
from antelope.replay.ranks import joined

WORLD, STOP_AT = 2, 130
SHARED: dict[str, Any] = {"env": "CartPole-v1", "seed": 1, "eval_episodes": 1, "eval_every": 100}
DQN = {"agent": "DQN", "seed_steps": 32, "batch_size": 9, "normalize_obs": True}
AGENTS: dict[str, dict[str, Any]] = {
    "PPO": {"agent": "PPO", "num_envs": 2, "model.steps": 16, "model.epochs": 2},
    "DQN": {**DQN, "replay.prioritized": True, "model.hidden": [16]},
}


class Stop:
    """Sends a process a signal in mid-run, unless it is rank 0."""

    def __init__(self, rank: int):
        self.rank = rank

    def on_step(self, run: Any) -> None:
        if self.rank and run.step >= STOP_AT:
            os.kill(os.getpid(), signal.SIGTERM)


def learn(folder: Path, **settings: Any) -> dict[str, Any]:
    """A run's weights, or its `error`."""
    shared = {**SHARED, "train_steps": 260, "log_every": 50, "plot": False, "progress": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = ml(path=folder, **{**shared, **settings})
    except BaseException as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {key: value.clone() for key, value in run.agent.state_dict().items()}


def wrapped() -> Any:
    """An environment with statistics of its own."""
    return gymnasium.wrappers.NormalizeObservation(gymnasium.make("CartPole-v1"))


def main(rank: int, folder: Path) -> None:
    """Learn everything as one of the ranks, and save what was found."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}

    def run(name: str, path: str, **settings: Any) -> None:
        with joined(group):
            group.own = False
            found[name] = learn(folder / path, **settings)

    with group_of(Place(rank, WORLD, rank), dist.FileStore(str(folder / "store"), WORLD)) as group:
        for agent, settings in AGENTS.items():
            run(agent, agent, **settings)
            run(f"{agent} stopped", f"{agent}-2", **settings, callbacks=[Stop(rank)])
            run(f"{agent} resumed", f"{agent}-2", **settings, resume=True)
        run("statistics of its own", "wrapped", env=wrapped, agent="DQN")
    torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
