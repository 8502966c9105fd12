"""Every kind of `learn`, as one rank of several: `kinds_on_ranks.py RANK WORLD FOLDER`.

Run by test_distributed.py, once for all: starting a process takes longer than all its runs.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import Log, Replay, ml
from antelope.envs import held_out
from antelope.launcher.distributed import Place, group_of
from antelope.replay.ranks import Ranks, joined, ranks


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(5, 8), nn.Linear(8, 4)
        self.unused = nn.Linear(5, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x)))

    def learn(self, replay: Replay, log: Log) -> Tensor | None:
        batch = next(replay)
        log.size = float(batch.label.float().mean())
        return F.cross_entropy(self(batch.obs), batch.label)


class TwoForwards(Net):
    def learn(self, replay: Replay, log: Log) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self(batch.obs) + self(-batch.obs), batch.label)


class TwoBatches(Net):
    def learn(self, replay: Replay, log: Log) -> Tensor:
        batch, other = next(replay), next(replay)
        loss = F.cross_entropy(self(batch.obs), batch.label)
        return loss + F.cross_entropy(self(other.obs), other.label)


class PartsOnly(Net):
    def learn(self, replay: Replay, log: Log) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self.head(self.body(batch.obs).relu()), batch.label)


class BareParameter(Net):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def learn(self, replay: Replay, log: Log) -> Tensor:
        batch = next(replay)
        penalty = 0.1 * sum(p.square().sum() for p in self.parameters())
        return F.cross_entropy(self(batch.obs) * self.scale, batch.label) + penalty


class Target(Net):
    def __init__(self) -> None:
        super().__init__()
        self.target = copy.deepcopy(self.body).requires_grad_(False)

    def learn(self, replay: Replay, log: Log) -> Tensor:
        batch = next(replay)
        for slow, fast in zip(self.target.parameters(), self.body.parameters(), strict=True):
            slow.data.lerp_(fast.data, 0.1)
        apart = (self.body(batch.obs) - self.target(batch.obs)).square().mean()
        return F.cross_entropy(self(batch.obs), batch.label) + apart


class Branches(Net):
    """Uses `unused` only for rows of class 0, which a rank may have none of."""

    def learn(self, replay: Replay, log: Log) -> Tensor:
        batch = next(replay)
        losses = []
        for part, chosen in ((self.unused, batch.label == 0), (self.body, batch.label != 0)):
            if chosen.any():
                logits = self.head(torch.tanh(part(batch.obs[chosen])))
                losses.append(F.cross_entropy(logits, batch.label[chosen], reduction="sum"))
        return torch.stack(losses).sum() / len(batch)


class OwnOptimiser(Net):
    def __init__(self) -> None:
        super().__init__()
        self.optim = torch.optim.Adam(self.parameters(), 0.02)

    def learn(self, replay: Replay, log: Log) -> None:
        batch = next(replay)
        loss = F.cross_entropy(self(batch.obs), batch.label)
        self.optim.zero_grad()
        loss.backward()
        self.optim.step()
        log.loss = loss


class TwoOptimisers(Net):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.optim.SGD(self.body.parameters(), 0.1)
        self.second = torch.optim.Adam(self.head.parameters(), 0.02)

    def learn(self, replay: Replay, log: Log) -> None:
        batch = next(replay)
        for optimiser in (self.first, self.second):
            self.zero_grad()
            F.cross_entropy(self(batch.obs), batch.label).backward()
            optimiser.step()


class LateOptimiser(Net):
    """Makes an optimiser in each step, which no attribute holds."""

    def learn(self, replay: Replay, log: Log) -> None:
        batch = next(replay)
        self.zero_grad()
        F.cross_entropy(self(batch.obs), batch.label).backward()
        torch.optim.SGD(self.parameters(), 0.1).step()


class HeldOptimiser(Net):
    def __init__(self) -> None:
        super().__init__()
        self.optim = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


class Dropout(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(torch.tanh(self.body(x)), training=self.training))


class Normalised(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.body(x)))


class Plain(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4))


class MoreUpdates(OwnOptimiser):
    def learn(self, replay: Replay, log: Log) -> None:
        for _ in range(1 + ranks().rank):
            super().learn(replay, log)


class SometimesNone(Net):
    def learn(self, replay: Replay, log: Log) -> Tensor | None:
        loss = super().learn(replay, log)
        return None if ranks().rank and replay.step == 3 else loss


class ByHand(Net):
    def learn(self, replay: Replay, log: Log) -> None:
        batch = next(replay)
        self.zero_grad()
        F.cross_entropy(self(batch.obs), batch.label).backward()
        with torch.no_grad():
            for p in self.parameters():
                if p.grad is not None:
                    p -= 0.1 * p.grad


class Fails(Net):
    def learn(self, replay: Replay, log: Log) -> Tensor | None:
        if ranks().rank and replay.step == 3:
            raise ValueError("no such row")
        return super().learn(replay, log)


class BecomesNaN(Net):
    def learn(self, replay: Replay, log: Log) -> Tensor | None:
        loss = super().learn(replay, log)
        return loss * float("nan") if ranks().rank and replay.step == 3 else loss


class Kill:
    """Sends a signal to the last rank in mid-run."""

    def on_step(self, run: Any) -> None:
        if run.step == 7 and ranks().rank == ranks().world - 1:
            os.kill(os.getpid(), signal.SIGTERM)


class Stop:
    def __init__(self, step: int):
        self.step = step

    def on_step(self, run: Any) -> str | None:
        last = ranks().rank == ranks().world - 1
        return "stop" if last and run.step == self.step else None


# Those that one process and two must learn alike.
SAME: dict[str, dict[str, Any]] = {
    "one layer unused": {"model": Net},
    "two forwards": {"model": TwoForwards},
    "two batches": {"model": TwoBatches, "batch_size": 16},
    "parts only": {"model": PartsOnly},
    "bare parameter, penalty": {"model": BareParameter},
    "target moved in learn": {"model": Target},
    "parameters used differ": {"model": Branches},
    "own optimiser": {"model": OwnOptimiser},
    "two optimisers": {"model": TwoOptimisers},
    "late optimiser": {"model": LateOptimiser},
    "held optimiser": {"model": HeldOptimiser},
    "without learn": {"model": Plain},
    "accumulated, clipped": {"model": Net, "accumulate": 3, "clip_grad": 0.1},
    "averaged": {"model": Net, "ema": 0.9},
    "small batches": {"model": Net, "batch_size": 3},
    "bf16": {"model": Net, "precision": "bf16"},
    "restored, early stopping": {
        "model": Net,
        "early_stopping.patience": 1,
        "early_stopping.restore": True,
        "lr": 2.0,
        "epochs": 6,
    },
}
# Whose ranks agree with one another alone: what they draw, or normalise by, are their own rows.
ALIKE: dict[str, dict[str, Any]] = {
    "dropout": {"model": Dropout},
    "BatchNorm": {"model": Normalised},
}
SKIPS: dict[str, dict[str, Any]] = {"skipped": {"model": BecomesNaN, "on_nan": "skip"}}
BACK: dict[str, dict[str, Any]] = {
    "rolled back": {"model": BecomesNaN, "on_nan": "rollback", "save_every": 1}
}
FAILS: dict[str, dict[str, Any]] = {
    "more updates": {"model": MoreUpdates},
    "sometimes None": {"model": SometimesNone},
    "by hand": {"model": ByHand},
    "fails": {"model": Fails},
    "NaN": {"model": BecomesNaN},
    "other settings": {"model": Net},
}


def data(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    label = torch.arange(4).repeat(rows // 4)
    centres = 2 * torch.randn(4, 5, generator=generator)
    return centres[label] + torch.randn(len(label), 5, generator=generator), label


def run(settings: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The weights at a run's end."""
    # 17 rows are not divided evenly, and the last batch of an epoch has 9.
    shared = {"dataset": data(60), "test_dataset": data(80), "batch_size": 17, "optim": "SGD"}
    shared |= {"lr": 0.1, "epochs": 3, "log_every": 3, "seed": 1, "plot": False, "progress": False}
    if {"optim", "first"} & vars(settings["model"]()).keys():
        del shared["optim"], shared["lr"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        agent = ml(path=path, **{**shared, **settings}).agent
    return {key: value.clone() for key, value in agent.state_dict().items()}


def main(rank: int, world: int, folder: Path) -> None:
    """Learn everything as one rank, and save the weights and what was raised."""
    torch.set_num_threads(1)
    held_out._ROWS = 16  # So that an evaluation has batches for every rank.
    store = dist.FileStore(str(folder / f"store-{world}"), world)
    found: dict[str, Any] = {}
    raised: dict[str, str] = {}
    mine = folder / f"{world}"
    with group_of(Place(rank, world, rank), store) if world > 1 else nullcontext() as group:

        def learn(name: str, settings: dict[str, Any], path: Path | None = None) -> None:
            try:
                with joined(group) if group else nullcontext():  # A run's end parts the ranks.
                    found[name] = run(settings, path or mine / name)
            except (Exception, SystemExit) as error:
                raised[name] = f"{type(error).__name__}: {error}"
                if group:
                    group.tell(error)

        for name, settings in (SAME | ALIKE).items():
            learn(name, settings)
        if world > 1:
            for name, settings in (SKIPS | BACK | FAILS).items():
                more = {"seed": rank} if name == "other settings" else {}
                learn(name, settings | more)
            there = mine / "continued"
            kept = {"model": Net, "accumulate": 2, "save_every": 1000}
            learn("killed", {**kept, "callbacks": Kill()}, there)
            found["killed at"] = json.loads((there / "status.json").read_text())
            dist.barrier()
            if rank == 0:
                with joined(Ranks()):
                    run({**kept, "resume": True, "callbacks": Stop(9)}, there)
            dist.barrier()
            learn("continued", {**kept, "resume": True}, there)
            learn("stopped", {**kept, "callbacks": Stop(5)})
        else:
            learn("continued", {"model": Net, "accumulate": 2})
    torch.save({"found": found, "raised": raised}, folder / f"{rank}-of-{world}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
