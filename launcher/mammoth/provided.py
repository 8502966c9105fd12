"""What a model with `observe` receives from the run: its arguments, and an optimiser."""

from __future__ import annotations

import copy
import inspect
import os
from argparse import Namespace
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ...agents.continual.context import HIDDEN
from ...replay import ConfigError
from ..assembly.device import build_device
from ..settings.compose import did_you_mean
from ..settings.plan import Plan
from .tasks.sequence import ContinualDataset

_LEARNING_RATE = 0.03  # Buzzega et al. (2020, arXiv 2004.07211), for SGD on Split-MNIST.


def run_arguments(
    plan: Plan, dataset: ContinualDataset, *, epochs: int | None, device: torch.device
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `args` holds of the run: what a model may have other values for, and what is decided."""
    usual = {"optimizer": "sgd", "lr": _LEARNING_RATE, "minibatch_size": plan.batch_size}
    usual |= {"optim_wd": 0.0, "optim_mom": 0.0, "optim_nesterov": False, "optim": {}}
    return usual, {
        **_optimizer_asked(plan),
        "batch_size": plan.batch_size,
        "n_epochs": epochs,
        "seed": plan.seed,
        "device": str(device),
        "dataset": dataset.NAME,
        "num_classes": dataset.N_CLASSES,
    }


# What such models call an optimiser's arguments.
_OPTIM = {"lr": "lr", "weight_decay": "optim_wd", "momentum": "optim_mom"}
_OPTIM |= {"nesterov": "optim_nesterov"}


def _optimizer_asked(plan: Plan) -> dict[str, Any]:
    """What the settings say of the optimiser."""
    shorthands = {"lr": plan.lr, "weight_decay": plan.weight_decay}
    given = {_OPTIM[key]: value for key, value in shorthands.items() if value is not None}
    if "optim" not in plan.given:
        return given
    target, arguments = plan.optim.target, plan.optim.arguments
    if not plan.optim.constructs:
        return given  # An instance, which is given as it is.
    own = {p.name: p.default for p in inspect.signature(target).parameters.values()}
    values = {new: own[key] for key, new in _OPTIM.items() if key in own}
    values |= {_OPTIM[key]: value for key, value in arguments.items() if key in _OPTIM} | given
    rest = {key: value for key, value in arguments.items() if key not in _OPTIM}
    known = getattr(torch.optim, target.__name__, None) is target
    return {"optimizer": target.__name__.lower() if known else target, **values, "optim": rest}


def make_optimizer(
    args: Namespace, parameters: Iterable[Tensor], lr: float | None = None
) -> Optimizer:
    """The optimiser that `args` describes: `optimizer`, `lr`, `optim_wd`, `optim_mom`, ...

    Raises:
        ConfigError: If torch has none of that name, or it refuses the arguments.
    """
    named = {
        name.lower(): kind
        for name, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer
    }
    kind = getattr(args, "optimizer", "sgd")
    if isinstance(kind, str):
        if kind.lower() not in named:
            raise ConfigError(
                f"optimizer={kind}: torch.optim has none of that name.{did_you_mean(kind, named)}"
            )
        kind = named[kind.lower()]
    takes = inspect.signature(kind).parameters
    values = {
        key: getattr(args, name)
        for key, name in _OPTIM.items()
        if key in takes and hasattr(args, name)
    }
    values |= {"lr": args.lr if lr is None else lr, **getattr(args, "optim", {})}
    if "nesterov" in values:
        values["nesterov"] = bool(values["nesterov"])
    try:
        optimizer: Optimizer = kind(parameters, **values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{kind.__name__} cannot be made of {values}: {error}") from error
    return optimizer


def fitted(output: Tensor, n: int) -> Tensor:
    """Outputs for all n classes, of a model that has some for those it has seen alone."""
    if output.dim() != 2 or output.shape[1] >= n:
        return output
    return F.pad(output, (0, n - output.shape[1]), value=HIDDEN)


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
