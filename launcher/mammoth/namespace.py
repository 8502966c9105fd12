"""The `args` that Mammoth's models read: the run's settings, and Mammoth's defaults."""

from __future__ import annotations

import copy
import os
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..assembly.device import build_device

if TYPE_CHECKING:
    from .tasks.sequence import ContinualDataset

# Mammoth's defaults for arguments without a counterpart here.
GENERAL: dict[str, Any] = {
    "backbone": None,
    "code_optimization": 0,
    "custom_class_order": None,
    "custom_task_order": None,
    "debug_mode": False,
    "distributed": "no",
    "drop_last": False,
    "eval_epochs": None,
    "eval_future": False,
    "fitting_mode": "epochs",
    "inference_only": False,
    "joint": False,
    "label_perc": 1.0,
    "label_perc_by_class": 1.0,
    "loadcheck": None,
    "lr_milestones": (),
    "lr_scheduler": None,
    "n_iters": None,
    "noise_rate": 0.0,
    "noise_type": None,
    "non_verbose": True,
    "nowand": True,
    "num_workers": 0,
    "permute_classes": False,
    "savecheck": None,
    "sched_multistep_lr_gamma": 0.1,
    "scheduler_mode": "epoch",
    "start_from": None,
    "stop_after": None,
    "validation": None,
    "validation_mode": "current",
}


class Arguments(Namespace):
    """A namespace that also knows the run's sequence and how its network is made.

    These two are not arguments, and not in `vars(args)`.

    Attributes:
        sequence: The sequence of tasks.
        make_backbone: Gives a new network of the run's kind, on the run's device.
    """

    __slots__ = ("make_backbone", "sequence")

    sequence: ContinualDataset
    make_backbone: Callable[[], nn.Module]

    def __getstate__(self) -> dict[str, Any]:
        return dict(vars(self))

    def __deepcopy__(self, memo: Any) -> Arguments:
        other = type(self)(**copy.deepcopy(vars(self), memo))
        for name in type(self).__slots__:
            if hasattr(self, name):
                setattr(other, name, getattr(self, name))
        return other


_device: torch.device | None = None


def use_device(device: torch.device) -> None:
    """Set the device that `get_device` returns."""
    global _device
    _device = device


def get_device(avail_devices: Any = None) -> torch.device:
    """The device of the run built last; before that, the default device.

    Args:
        avail_devices: Without effect: the setting `device` says where.
    """
    return _device or build_device(os.environ.get("ANTELOPE_DEVICE") or None)
