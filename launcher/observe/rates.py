"""The learning rate of a model that observes, over the epochs or steps of each task."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Sequence
from typing import Any


class Rates:
    """Sets the learning rate of a model's own optimiser, as Mammoth's two schedulers do.

    Each task begins with a new optimiser, if the model can make one (`get_optimizer`).

    Args:
        kind: `cosine`, down to zero over `length`; or `multisteplr`, times `gamma` at each milestone.
        by_step: Whether milestones and length count steps, not epochs.
        length: Epochs of each task.
    """

    def __init__(
        self, kind: str, *, by_step: bool, length: int, milestones: Sequence[int], gamma: float
    ):
        self.kind, self.by_step, self.length = kind, by_step, length
        self.milestones, self.gamma = sorted(milestones), gamma
        self.step = 0  # Of the current task.

    def begin_task(self, model: Any) -> None:
        """Begin at the first learning rate."""
        self.step = 0
        if callable(make := getattr(model, "get_optimizer", None)):
            model.opt = make()

    def begin_step(self, model: Any, epoch: int) -> None:
        """Set the learning rate of the next step."""
        at = self.step if self.by_step else epoch
        self.step += 1
        for group in model.opt.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * self.factor(at)

    def factor(self, at: int) -> float:
        """Of the first learning rate, after so many epochs or steps."""
        if self.kind == "cosine":
            return (1 + math.cos(math.pi * at / self.length)) / 2
        factor: float = self.gamma ** sum(milestone <= at for milestone in self.milestones)
        return factor


def rates(args: Namespace) -> Rates | None:
    """What a model's `args` say of its learning rate."""
    kind = getattr(args, "lr_scheduler", None)
    if kind is None:
        return None
    return Rates(
        kind,
        by_step=args.scheduler_mode == "iter",
        length=args.n_epochs,
        milestones=args.lr_milestones,
        gamma=args.sched_multistep_lr_gamma,
    )
