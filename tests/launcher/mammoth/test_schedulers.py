"""Learning-rate schedulers under Mammoth's names."""

from __future__ import annotations

import math
from argparse import Namespace

import pytest
import torch

from antelope import ConfigError
from antelope.launcher import mammoth as m


def test_learning_rates_rise_and_fall() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    rates = []
    schedule = m.CosineSchedulerWithLinearWarmup(optimizer, 1.0, warmup_length=2, steps=6)
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.8536, 0.5, 0.1464], abs=1e-4)
    other = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    cosine = m.CosineSchedule(other, K=3)
    other.step()
    cosine.step()
    assert other.param_groups[0]["lr"] == pytest.approx(2 * math.cos(0.99 * math.pi / 4))
    with pytest.raises(ConfigError, match="K=1 must be at least 2"):
        m.CosineSchedule(other, K=1)


def test_a_scheduler_is_made_by_its_name() -> None:
    class Model:
        def __init__(self) -> None:
            self.opt = self.get_optimizer()

        def get_optimizer(self) -> torch.optim.Optimizer:
            return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)

    model = Model()
    assert m.get_scheduler(model, Namespace(lr_scheduler=None)) is None
    before = model.opt
    args = Namespace(lr_scheduler="multisteplr", lr_milestones=[1], sched_multistep_lr_gamma=0.5)
    scheduler = m.get_scheduler(model, args)
    assert model.opt is not before
    model.opt.step()
    scheduler.step()
    assert model.opt.param_groups[0]["lr"] == 0.5
    with pytest.raises(ConfigError, match=r"lr_scheduler=cosin.*Did you mean `cosine`"):
        m.get_scheduler(model, Namespace(lr_scheduler="cosin"))
    with pytest.raises(ConfigError, match="needs lr_milestones"):
        m.get_scheduler(model, Namespace(lr_scheduler="multisteplr", lr_milestones=[]))
