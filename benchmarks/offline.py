"""Learning from a saved replay: the behaviour in it, behaviour cloning, and offline agents.

An agent learns in the environment, and its whole replay is saved, early failures included. Three learners
then learn from it without acting: a clone of the behaviour, and the agent without and with the term that
keeps it close to the behaviour (DQN's `conservative`, TD3's `imitation`). Returns are those of the last
evaluation, 20 episodes, per seed of the learner. Run by hand; it takes half an hour on one core:

    python benchmarks/offline.py [--only cartpole pendulum] [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from antelope import Run, ml
from antelope.replay import Replay, Spec


@dataclass(frozen=True)
class Case:
    """A replay to collect, and the agents that learn from it.

    Attributes:
        behaviour: Settings of the run that makes the replay.
        offline: Settings of those that learn from it.
        term: The agent's argument that keeps it near what was done.
        target: The return that the agent with it has to reach, on every seed.
    """

    behaviour: dict[str, Any]
    offline: dict[str, Any]
    term: dict[str, float]
    target: float


CASES = {
    "cartpole": Case(
        {"task": "rl/cartpole_dqn", "nstep": 1, "learn_every": 2, "train_steps": 20_000},
        {
            "env": "CartPole-v1",
            "agent": "DQN",
            "model.hidden": [128, 128],
            "model.target_every": 1,
            "model.tau": 0.05,
            "train_steps": 10_000,
            "batch_size": 128,
            "lr": 1e-3,
        },
        {"model.conservative": 0.5},
        475,
    ),
    "pendulum": Case(
        {"task": "rl/pendulum_sac", "model.hidden": [64, 64], "train_steps": 5000},
        {
            "env": "Pendulum-v1",
            "agent": "TD3",
            "model.hidden": [128, 128],
            "model.tau": 0.01,
            "train_steps": 10_000,
            "batch_size": 128,
            "lr": 1e-3,
        },
        {"model.imitation": 0.1},
        -200,
    ),
}


class Clone(nn.Module):
    """Behaviour cloning: imitates the actions of the replay."""

    def __init__(self, spec: Spec):
        super().__init__()
        self.discrete = spec.discrete
        self.network = nn.Sequential(
            *(nn.Linear(spec.obs.n, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()),
            nn.Linear(128, spec.action.n),
        )

    def forward(self, obs: Tensor) -> Tensor:
        return self.network(obs)

    def learn(self, replay: Replay) -> Tensor:
        batch = next(replay)
        if self.discrete:
            return F.cross_entropy(self(batch.obs), batch.action)
        return F.mse_loss(self(batch.obs), batch.action)


def call(settings: dict[str, Any], **more: Any) -> Run:
    shared: dict[str, Any] = {"plot": False, "progress": False, "save_every": 10**9}
    everything = {**shared, **settings, **more}
    words = [f"{key}={value}" for key, value in everything.items() if "." in key]
    return ml(*words, **{key: value for key, value in everything.items() if "." not in key})


def mean_return(run: Run) -> float:
    """Mean return of the complete episodes in the run's replay, which holds those of one environment."""
    ring = run.replay.storage
    assert run.replay.environments
    rows = torch.arange(ring.size)[torch.from_numpy(ring.drawable)].numpy()  # type: ignore[union-attr]
    steps = ring.gather(rows)  # type: ignore[union-attr]
    returns, total = [], 0.0
    over = (steps["terminated"] | steps["truncated"]).tolist()
    for reward, ended in zip(steps["reward"].tolist(), over, strict=True):
        total += reward
        if ended:
            returns.append(total)
            total = 0.0
    return statistics.mean(returns)


def last_returns(settings: dict[str, Any], folder: Path, seeds: list[int]) -> list[float]:
    """What each seed reaches from the replay in the folder."""
    returns = []
    for seed in seeds:
        places = {"offline": folder / "replay", "path": folder / "run"}
        run = call(settings, **places, seed=seed, eval_episodes=20)
        returns.append(run.metrics["return"])
    return returns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"Mean returns, seeds {arguments.seeds}")
    print(f"{'replay':<12}{'learner':<28}{'mean':>9}{'each':>28}{'target':>9}")
    for name in arguments.only:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            run = call(case.behaviour, path=folder / "behaviour", eval_every=10**9, seed=0)
            run.replay.save(folder / "replay")
            print(f"{name:<12}{'what was done':<28}{mean_return(run):>9.1f}", flush=True)
            kind, ((term, value),) = case.offline["agent"], case.term.items()
            of_agent = {k: v for k, v in case.offline.items() if not k.startswith("model.")}
            learners: dict[str, dict[str, Any]] = {
                "behaviour cloning": {**of_agent, "agent": Clone},
                kind: case.offline,
                f"{kind}, {term.partition('.')[2]}={value}": {**case.offline, **case.term},
            }
            for learner, settings in learners.items():
                began = time.perf_counter()
                returns = last_returns(settings, folder, arguments.seeds)
                each, verdict = ", ".join(f"{value:.0f}" for value in returns), ""
                if "=" in learner:
                    passed = min(returns) >= case.target
                    verdict = f"{case.target:>9.0f}  {'pass' if passed else 'FAIL'}"
                seconds = (time.perf_counter() - began) / len(returns)
                print(
                    f"{'':<12}{learner:<28}{statistics.mean(returns):>9.1f}{each:>28}{verdict}"
                    f"  ({seconds:.0f} s each)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
