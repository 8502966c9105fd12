"""The base class of models that are written for Mammoth, and the simplest of them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...replay import ConfigError
from ..observe.observer import Counters
from ..observe.provided import make_optimizer
from ..observe.sequence import ContinualDataset
from .registry import register_model


class ContinualModel(Counters, nn.Module):
    """The base of Mammoth's models: write `observe`, and step `opt` in it.

    Args:
        backbone: The network, `net`.
        loss: Of outputs and labels.
        args: Options.
        transform: Makes of rows in [0, 1] what the network meets in training.
        dataset: The sequence of tasks; given by the run if not here.

    Attributes:
        opt: The optimiser of the network that `args` describes.
        device: Where the run's batches are.
    """

    NAME: str
    COMPATIBILITY: Sequence[str] = ("class-il", "task-il")

    def __init__(
        self,
        backbone: nn.Module,
        loss: Any,
        args: Namespace,
        transform: Any = None,
        dataset: ContinualDataset | None = None,
    ):
        super().__init__()
        if type(self).observe is ContinualModel.observe:  # Said before anything is trained.
            raise ConfigError(
                f"{type(self).__name__} has no observe. Write observe(self, inputs, labels, not_aug_inputs, "
                "epoch=None)."
            )
        self.net, self.loss, self.args = backbone, loss, args
        self.transform, self.dataset = transform, dataset
        self.device = torch.device(getattr(args, "device", "cpu"))
        self.opt = self.get_optimizer()
        if dataset is not None:
            self.num_classes, self.n_tasks = dataset.N_CLASSES, dataset.N_TASKS
            self.normalization_transform = dataset.get_normalization_transform()

    @staticmethod
    def get_parser(parser: ArgumentParser) -> ArgumentParser:
        """Declare options of one's own, which become settings `model.KEY=value`."""
        return parser

    def get_parameters(self) -> list[Tensor]:
        """What is optimised."""
        return list(self.net.parameters())

    def get_optimizer(
        self, params: list[Tensor] | None = None, lr: float | None = None
    ) -> Optimizer:
        """The optimiser that `args` describes, of `get_parameters()` unless others are given."""
        return make_optimizer(self.args, params or self.get_parameters(), lr)

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


@register_model("sgd")
class Sgd(ContinualModel):
    """Learns each task as it comes, and does nothing against forgetting."""

    NAME = "sgd"
    COMPATIBILITY = ("class-il", "domain-il", "task-il", "general-continual")

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int | None = None
    ) -> float:
        self.opt.zero_grad()
        loss: Tensor = self.loss(self.net(inputs), labels)
        loss.backward()
        self.opt.step()
        return loss.item()
