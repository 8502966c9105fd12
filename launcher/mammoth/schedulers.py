"""Learning-rate schedulers by the names of Mammoth."""

from __future__ import annotations

import math
from argparse import Namespace
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from ...replay import ConfigError
from ..settings.compose import did_you_mean

SCHEDULERS = ("multisteplr", "cosine")


def get_scheduler(model: Any, args: Namespace, reload_optim: bool = True) -> LRScheduler | None:
    """The scheduler that `args.lr_scheduler` names, of `model.opt`; None without a name.

    Args:
        reload_optim: Make `model.opt` again first, so that its learning rate is the first one.

    Raises:
        ConfigError: If there is none of that name, or it lacks its milestones.
    """
    name = getattr(args, "lr_scheduler", None)
    if name is None:
        return None
    if reload_optim or not hasattr(model, "opt"):
        model.opt = model.get_optimizer()
    if name.lower() == "multisteplr":
        if not (milestones := getattr(args, "lr_milestones", None)):
            raise ConfigError("lr_scheduler=multisteplr needs lr_milestones, a list of epochs.")
        gamma = getattr(args, "sched_multistep_lr_gamma", 0.1)
        return MultiStepLR(model.opt, milestones=milestones, gamma=gamma)
    if name.lower() == "cosine":
        return CosineAnnealingLR(model.opt, T_max=args.n_epochs)
    raise ConfigError(
        f"lr_scheduler={name} must be one of {', '.join(SCHEDULERS)}.{did_you_mean(name, SCHEDULERS)}"
    )


class CosineSchedule(LRScheduler):
    """From the first learning rate along a cosine to nearly 0 after `K - 1` steps."""

    def __init__(self, optimizer: Optimizer, K: int):
        if K < 2:
            raise ConfigError(f"CosineSchedule: K={K} must be at least 2.")
        self.K = K
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        # Not quite a quarter of a wave, so that it does not end at 0.
        factor = math.cos(0.99 * math.pi / 2 * self.last_epoch / (self.K - 1))
        return [base * factor for base in self.base_lrs]


class CosineSchedulerWithLinearWarmup(LRScheduler):
    """Rises for `warmup_length` steps, then falls along a cosine to 0 at step `steps`.

    Args:
        base_lrs: The highest learning rate, of each group or of all.
    """

    def __init__(
        self, optimizer: Optimizer, base_lrs: list[float] | float, warmup_length: int, steps: int
    ):
        groups = len(optimizer.param_groups)
        self._highest = base_lrs if isinstance(base_lrs, list) else [base_lrs] * groups
        if len(self._highest) != groups:
            raise ConfigError(
                f"CosineSchedulerWithLinearWarmup: {len(self._highest)} base_lrs for {groups} groups."
            )
        self.warmup_length, self.steps = warmup_length, steps
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        if self.last_epoch < self.warmup_length:
            factor = (self.last_epoch + 1) / self.warmup_length
        else:
            done = (self.last_epoch - self.warmup_length) / (self.steps - self.warmup_length)
            factor = 0.5 * (1 + math.cos(math.pi * done))
        return [highest * factor for highest in self._highest]
