"""The base class of models that are written for Mammoth, and the simplest of them."""

from __future__ import annotations

import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...replay import ConfigError
from .provided import Arguments, make_optimizer
from .tasks.counters import Counters
from .tasks.sequence import ContinualDataset


class ContinualModel(Counters, nn.Module):
    """The base of Mammoth's models: write `observe`, and step `opt` in it.

    Args:
        backbone: The network: rows `[B, *obs.shape]` to logits `[B, n]`.
        loss: From logits `[B, n]` and labels, int64 `[B]`, to their mean loss.
        args: The run's arguments, and the model's options.
        transform: Converts rows in [0, 1] `[B, *obs.shape]` to the network's training inputs.
        dataset: The sequence of tasks; the run's, if the constructor does not pass it on.

    Attributes:
        opt: The network's optimiser as described by `args`, constructed again for each task unless there is a
            `custom_scheduler`.
        custom_scheduler: Set it, and the run steps it after each epoch, or after each step if
            `args.scheduler_mode` is `iter`.
        device: The device of the run's batches.
        current_task, n_classes_current_task, n_past_classes, n_seen_classes, n_remaining_classes: Progress
            of the run; numbers of classes are -1 before the first task.
        task_iteration, epoch_iteration: Calls of `observe` so far in this task and in this pass.
        cpt: Classes per task: a number, or a list where they differ.
        num_classes, N_CLASSES, n_tasks, N_TASKS: Total number of classes, and of tasks.
    """

    NAME: str
    AVAIL_OPTIMS = ("sgd", "adam", "adamw")
    COMPATIBILITY: Sequence[str] = ("class-il", "task-il")

    def __init__(
        self,
        backbone: nn.Module,
        loss: Callable[..., Tensor],
        args: Namespace,
        transform: Callable[[Tensor], Tensor] | None = None,
        dataset: ContinualDataset | None = None,
    ):
        super().__init__()
        if type(self).observe is ContinualModel.observe:  # Reported before training.
            raise ConfigError(
                f"{type(self).__name__} has no observe. Write observe(self, inputs, labels, not_aug_inputs, "
                "epoch=None)."
            )
        self.net, self.loss, self.args = backbone, loss, args
        self.transform = self.original_transform = transform
        # Models of Mammoth Lite may not pass `dataset` on; the arguments know it, too.
        own = args.sequence if isinstance(args, Arguments) else None
        self.dataset: Any = own if dataset is None else dataset
        self.device = torch.device(vars(args).get("device", "cpu"))
        self.opt = self.get_optimizer()
        if self.dataset is not None:
            self.SETTING = self.dataset.SETTING
            self.normalization_transform = self.dataset.get_normalization_transform()

    @staticmethod
    def get_parser(parser: ArgumentParser) -> ArgumentParser:
        """Declare the model's options, which become settings `model.KEY=value`."""
        return parser

    def get_parameters(self) -> list[Tensor]:
        """The parameters that are optimised."""
        return list(self.net.parameters())

    def get_optimizer(
        self, params: list[Tensor] | None = None, lr: float | None = None
    ) -> Optimizer:
        """The optimiser described by `args`, for `get_parameters()` unless others are passed."""
        return make_optimizer(self.args, self.get_parameters() if params is None else params, lr)

    def get_offsets(self, task: int) -> tuple[int, int]:
        """The first class of a task, and the one after its last."""
        offsets: tuple[int, int] = self.dataset.get_offsets(task)
        return offsets

    def get_debug_iters(self) -> int:
        """Steps of a pass in Mammoth's `debug_mode`, which Antelope does not have."""
        return 5

    def forward(self, x: Tensor) -> Tensor:
        """`[B, *obs.shape]` to logits `[B, classes]`."""
        output: Tensor = self.net(x)
        return output

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int | None = None
    ) -> float:
        """Learn from a batch, and return its loss."""
        raise NotImplementedError

    def begin_task(self, dataset: ContinualDataset) -> None:
        """Before each task."""

    def end_task(self, dataset: ContinualDataset) -> None:
        """After each task, while its data is still there."""

    def begin_epoch(self, epoch: int, dataset: ContinualDataset) -> None:
        """Before each pass."""

    def end_epoch(self, epoch: int, dataset: ContinualDataset) -> None:
        """After each pass."""

    def autolog_wandb(self, locals: dict[str, Any], extra: dict[str, Any] | None = None) -> None:
        """Log nothing: what `observe` returns is logged, to W&B too with `loggers=[csv,wandb]`."""


class Sgd(ContinualModel):
    """Learns one task after another without any measure against forgetting."""

    NAME = "sgd"
    COMPATIBILITY = ("class-il", "domain-il", "task-il", "general-continual")

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int | None = None
    ) -> float:
        self.opt.zero_grad()
        loss: Tensor = self.loss(self.net(inputs), labels)
        loss.backward()
        self.opt.step()
        # Waits for the GPU at every step, as every model of Mammoth does: `observe` returns a float there.
        return loss.item()


_said: set[str] = set()


def warn_once(*words: object) -> None:
    """Warn once per process."""
    text = " ".join(map(str, words))
    if text not in _said:
        _said.add(text)
        warnings.warn(text, stacklevel=2)


def progress_bar(
    i: int, max_iter: int | None, epoch: int | str, task_number: int | str, loss: float
) -> None:
    """Accepts a model's own progress and shows nothing: the run's bar is the only one."""
