"""A sequence with every strategy, as one rank of several: `strategies_on_ranks.py RANK WORLD FOLDER`.

Run by test_distributed_strategies.py, once for all: starting a process takes longer than all its runs.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import Batch, Log, Memory, Replay, Strategy, ml
from antelope.agents.continual import NAMES
from antelope.launcher.distributed import Place, group_of
from antelope.replay.ranks import joined

TASKS, WIDTH = 3, 5


class Mine(Strategy):
    """A user's strategy that knows nothing of ranks but how many rows a batch has in all."""

    def __init__(self) -> None:
        self.memory, self.second = Memory(40), Memory(30, "balanced")
        self.seen = torch.zeros(2 * TASKS, dtype=torch.int64)

    def before_batch(self, agent: nn.Module, batch: Batch) -> Batch:
        if not len(self.memory):
            self.memory.add(batch)
            return batch
        past = self.memory.sample(len(batch))
        self.memory.add(batch)
        both = {name: torch.cat((batch[name], past[name])) for name in batch}
        return Batch(**both)

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        if len(self.second):
            past = self.second.sample(self.context.rows(batch))
            loss = loss + (agent(past.obs) - past.logits).square().mean()
        self.second.add(batch, logits=self.context.logits(batch.obs))
        return loss

    def after_step(self, agent: nn.Module, batch: Batch) -> None:
        self.seen += batch.label.bincount(minlength=len(self.seen))


class Clips(nn.Module):
    """Clips its gradients and steps an optimiser of its own."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        self.optimizer = torch.optim.SGD(self.parameters(), 0.1)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs)

    def learn(self, replay: Replay, log: Log) -> None:
        batch = next(replay)
        self.optimizer.zero_grad()
        log.loss = loss = F.cross_entropy(self(batch.obs), batch.label)
        loss.backward()
        replay.sum_gradients(self.optimizer)
        nn.utils.clip_grad_norm_(self.parameters(), 0.1)
        self.optimizer.step()


RUNS: dict[str, dict[str, Any]] = {
    **{name: {} for name in NAMES["strategy"]},
    **{name: {f"strategy.{name}.importance": 0.1} for name in ("ewc", "ewc_online", "mas")},
    "gdumb": {"strategy.gdumb.passes": 2},
    "er by task": {"strategy": "er", "strategy.er.weight": "tasks"},
    "er weighted": {"strategy": "er", "strategy.er.weight": 0.3},
    "agem online": {"strategy": "agem", "online": True, "epochs": 1},
    "derpp, 7 rows": {"strategy": "derpp", "strategy.derpp.batch_size": 7},
    "er_ace, 7 rows": {"strategy": "er_ace", "strategy.er_ace.batch_size": 7},
    "er, accumulated, clipped": {"strategy": "er", "accumulate": 3, "clip_grad": 0.1},
    "er, task-incremental": {"strategy": "er", "scenario": "task"},
    "mine": {"strategy": Mine},
    "clips by itself": {
        "strategy": "er",
        "model": Clips,
        "model.hidden": None,
        "optim": None,
        "lr": None,
    },
}


def data() -> tuple[Tensor, Tensor]:
    """Rows around a centre for each class."""
    generator = torch.Generator().manual_seed(3)
    label = torch.arange(2 * TASKS).repeat_interleave(30)
    centres = 2 * torch.randn(2 * TASKS, WIDTH, generator=generator)
    return centres[label] + torch.randn(len(label), WIDTH, generator=generator), label


def run(name: str, path: Path) -> dict[str, Tensor]:
    """The weights at a run's end."""
    more = RUNS[name]
    shared: dict[str, Any] = {"tasks": TASKS, "optim": "SGD", "lr": 0.05, "epochs": 2, "seed": 1}
    # 17 rows are not divided evenly, and the last batch of an epoch has 9.
    shared |= {"batch_size": 17, "model": "MLP", "model.hidden": [12], "dataset": data()}
    settings = {"strategy": name, **shared, "plot": False, "progress": False, **more}
    settings = {key: value for key, value in settings.items() if value is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        agent = ml(path=path, **settings).agent
    return {key: value.clone() for key, value in agent.state_dict().items()}


def main(rank: int, world: int, folder: Path) -> None:
    """Learn everything as one rank, and save the weights."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / f"store-{world}"), world)
    found = {}
    with group_of(Place(rank, world, rank), store) as group:
        for name in RUNS:
            with joined(group):  # A run's end parts the ranks.
                found[name] = run(name, folder / f"{world}" / name)
    torch.save(found, folder / f"{rank}-of-{world}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
