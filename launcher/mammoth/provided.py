"""The arguments and the optimiser that a run provides to a model with `observe`."""

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
from ...replay.suggestions import did_you_mean
from ..assembly.device import build_device
from ..settings.plan import Plan
from .tasks.sequence import ContinualDataset

_LEARNING_RATE = 0.03  # Buzzega et al. (2020, arXiv 2004.07211), for SGD on Split-MNIST.


def run_arguments(
    plan: Plan, dataset: ContinualDataset, *, epochs: int | None, device: torch.device
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments that come from the run: those that a model may override, and those that are fixed.

    Args:
        epochs: Passes over each task; None where `train_steps` bounds it.
    """
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


# Mammoth's names of an optimiser's arguments.
_OPTIM = {"lr": "lr", "weight_decay": "optim_wd", "momentum": "optim_mom"}
_OPTIM |= {"nesterov": "optim_nesterov"}


def _optimizer_asked(plan: Plan) -> dict[str, Any]:
    """The arguments that `optim=`, `lr=` and `weight_decay=` decide, by Mammoth's names."""
    shorthands = {"lr": plan.lr, "weight_decay": plan.weight_decay}
    given = {_OPTIM[key]: value for key, value in shorthands.items() if value is not None}
    if "optim" not in plan.given:
        return given
    target, arguments = plan.optim.target, plan.optim.arguments
    if not plan.optim.constructs:
        return given  # An optimiser that is already constructed.
    own = {p.name: p.default for p in inspect.signature(target).parameters.values()}
    values = {new: own[key] for key, new in _OPTIM.items() if key in own}
    values |= {_OPTIM[key]: value for key, value in arguments.items() if key in _OPTIM} | given
    # Mammoth has no names for the others, such as Adam's betas: `make_optimizer` finds them in `optim`.
    rest = {key: value for key, value in arguments.items() if key not in _OPTIM}
    known = vars(torch.optim).get(target.__name__) is target
    return {"optimizer": target.__name__.lower() if known else target, **values, "optim": rest}


def make_optimizer(
    args: Namespace, parameters: Iterable[Tensor], lr: float | None = None
) -> Optimizer:
    """The optimiser that `args` describes: `optimizer`, `lr`, `optim_wd`, `optim_mom`, ...

    Args:
        args: Must have `lr`; `optimizer` is a name of `torch.optim` or a class.
        parameters: The parameters that it steps.
        lr: float, the learning rate; None: that of `args`.

    Raises:
        ConfigError: If torch has no such optimiser, or it refuses the arguments.
    """
    named = {
        name.lower(): kind
        for name, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer
    }
    said = vars(args)
    kind = said.get("optimizer", "sgd")
    if isinstance(kind, str):
        if kind.lower() not in named:
            raise ConfigError(
                f"optimizer={kind}: torch.optim has no such optimiser.{did_you_mean(kind, named)}"
            )
        kind = named[kind.lower()]
    # Adam has no momentum, which Mammoth's `args` always has: passing it on would be an error.
    accepted = inspect.signature(kind).parameters
    values = {key: said[name] for key, name in _OPTIM.items() if key in accepted and name in said}
    values |= {"lr": args.lr if lr is None else lr, **said.get("optim", {})}
    if "nesterov" in values:
        values["nesterov"] = bool(values["nesterov"])  # Mammoth's flags are 0 and 1.
    try:
        optimizer: Optimizer = kind(parameters, **values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{kind.__name__} does not accept {values}: {error}") from error
    return optimizer


def fitted(output: Tensor, n: int) -> Tensor:
    """Outputs for all `n` classes, from a model that has outputs only for those it has seen.

    Args:
        output: `[B, m]`; if m < n, the missing outputs become so low that none is ever the largest.
    """
    if output.dim() != 2 or output.shape[1] >= n:
        return output
    return F.pad(output, (0, n - output.shape[1]), value=HIDDEN)


class Arguments(Namespace):
    """A namespace that also knows the run's sequence and how its network is made.

    These two are slots: models list, save and print `vars(args)`, which must hold arguments only.

    Attributes:
        sequence: The sequence of tasks; None before there is one.
        make_backbone: Makes a new network of the run's kind, on the run's device; None before a run.
    """

    __slots__ = ("make_backbone", "sequence")

    sequence: ContinualDataset | None
    make_backbone: Callable[[], nn.Module] | None

    def __init__(self, **values: object):
        super().__init__(**values)
        self.sequence = self.make_backbone = None

    # Neither the data nor the network belongs into a pickled model: slots are left out.
    def __getstate__(self) -> dict[str, Any]:
        return dict(vars(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __deepcopy__(self, memo: dict[int, Any]) -> Arguments:
        # A copied model stays in the same run, and shares its sequence.
        other = type(self)(**copy.deepcopy(vars(self), memo))
        other.sequence, other.make_backbone = self.sequence, self.make_backbone
        return other


# Mammoth's models call `get_device()` without arguments, so that the run's device has to be global.
_device: torch.device | None = None


def use_device(device: torch.device) -> None:
    """Set the device that `get_device` returns."""
    global _device
    _device = device


def get_device(avail_devices: object = None) -> torch.device:
    """The device of the run that was built last; before any run, the default device.

    Args:
        avail_devices: Has no effect: the setting `device` decides.
    """
    return _device or build_device(os.environ.get("ANTELOPE_DEVICE") or None)


def get_dataset(args: Namespace) -> ContinualDataset:
    """The sequence of tasks of the run that `args` belongs to.

    Raises:
        ConfigError: If the run has none.
    """
    sequence = args.sequence if isinstance(args, Arguments) else None
    if sequence is None:
        raise ConfigError(
            "get_dataset(args) needs the args that a model receives. Elsewhere, load_runner(model, "
            "dataset, args) returns the model and its sequence of tasks."
        )
    return sequence
