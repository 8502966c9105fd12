"""The digits with Antelope, for benchmarks/faults.py.

It saves once per epoch, keeps the newest three checkpoints, and resumes by `resume=True`.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from antelope import ml

from .digits import Network, Options, Watch, digits, write_result

NAME = "Antelope"
CHECKPOINTS = "run/checkpoints/[0-9]*"  # Resumes from the one with the largest number.
GUARD = None


def train(options: Options, watch: Watch) -> None:
    """Train in the working directory, from its last checkpoint if there is one."""

    class Digits(Network):
        def __init__(self) -> None:
            super().__init__(options.hidden, options.kind)
            self.steps = 0

        def forward(self, obs: Tensor) -> Tensor:
            if not self.training:
                watch.evaluates(len(obs))
            return super().forward(obs)

        def learn(self, replay: Any) -> Tensor:
            batch = next(replay)
            loss = F.cross_entropy(self(batch.obs), batch.label)
            self.steps += 1
            return watch.step(self.steps - 1, loss, len(batch))

    train_set, test_set = digits(options.rows)
    epoch = -(-len(train_set[1]) // 64)
    run = ml(
        model=Digits,
        dataset=train_set,
        test_dataset=test_set,
        optim="Adam",
        lr=1e-2,
        batch_size=64,
        epochs=options.epochs,
        seed=options.seed,
        save_every=epoch,
        eval_every=options.eval_every or epoch,
        log_every=options.log_every,
        path="run",
        resume=True,
        plot=False,
        device="cpu",
    )
    write_result(run.agent, watch)
