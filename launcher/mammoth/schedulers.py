"""Learning-rate schedulers under Mammoth's names."""

from __future__ import annotations

import math
from argparse import Namespace

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from ...replay import ConfigError
from ...replay.suggestions import did_you_mean
from .methods import ObservingModel

SCHEDULERS = ("multisteplr", "cosine")


def get_scheduler(
    model: ObservingModel, args: Namespace, reload_optim: bool = True
) -> LRScheduler | None:
    """The scheduler of `model.opt` that `args.lr_scheduler` names; None without a name.

    Args:
        model: Has `opt`, or constructs it in `get_optimizer()`.
        args: Has `lr_scheduler`, and what that needs: `n_epochs`, or `lr_milestones` in epochs.
        reload_optim: Construct `model.opt` again first, so that it starts from the initial learning rate.

    Raises:
        ConfigError: If the scheduler is unknown, or lacks its milestones.
    """
    said = vars(args)
    name = said.get("lr_scheduler")
    if name is None:
        return None
    if reload_optim or not hasattr(model, "opt"):
        model.opt = model.get_optimizer()
    if name.lower() == "multisteplr":
        if not (milestones := said.get("lr_milestones")):
            raise ConfigError("lr_scheduler=multisteplr needs lr_milestones, a list of epochs.")
        gamma = said.get("sched_multistep_lr_gamma", 0.1)
        return MultiStepLR(model.opt, milestones=milestones, gamma=gamma)
    if name.lower() == "cosine":
        return CosineAnnealingLR(model.opt, T_max=args.n_epochs)
    raise ConfigError(
        f"lr_scheduler={name} must be one of {', '.join(SCHEDULERS)}.{did_you_mean(name, SCHEDULERS)}"
    )


class CosineSchedule(LRScheduler):
    """Falls from the first learning rate along a cosine, to nearly 0 after `K - 1` steps.

    Args:
        K: int, at least 2, number of steps.
    """

    def __init__(self, optimizer: Optimizer, K: int):
        if K < 2:
            raise ConfigError(f"CosineSchedule: K={K} must be at least 2.")
        self.K = K
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        # Not quite a quarter of a wave, so that it does not end at 0.
        factor = math.cos(0.99 * math.pi / 2 * self.last_epoch / (self.K - 1))
        return [base * factor for base in self.base_lrs]


class CosineSchedulerWithLinearWarmup(LRScheduler):
    """Rises for `warmup_length` steps, then falls along a cosine to 0 at step `steps`.

    Args:
        base_lrs: float, the highest learning rate of all groups, or a list with one for each group.
        warmup_length: int, steps until the highest learning rate.
        steps: int, steps until 0.
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

    def get_lr(self) -> list[float | Tensor]:
        if self.last_epoch < self.warmup_length:
            factor = (self.last_epoch + 1) / self.warmup_length
        else:
            done = (self.last_epoch - self.warmup_length) / (self.steps - self.warmup_length)
            factor = 0.5 * (1 + math.cos(math.pi * done))
        return [highest * factor for highest in self._highest]
