"""Greedy sampler and dumb learner."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...replay import Batch, ConfigError, Memory, Replay
from .strategy import Strategy
from .substitution import tensors_of


class GDumb(Strategy):
    """Keep a balanced memory of the stream, and learn from scratch, from that memory only.

    Source: Prabhu et al., 2020 (https://doi.org/10.1007/978-3-030-58536-5_31). Training starts from the
    weights before the first task, and is SGD on the model's own loss. The first pass uses a tenth of `lr`;
    then the learning rate falls from `lr` to `min_lr` along half a cosine, over and over, in cycles of 1,
    2, 4, 8, ... passes (Loshchilov & Hutter, 2017, arXiv 1608.03983): `passes` should be a power of 2.

    Tasks that share their classes are refused: the first task would fill the memory for good.

    The authors' augmentation is not built in: for MNIST it is `aug=RandomCrop`; CutMix, which they use on
    other data, is left out. They report the best pass; this is the last.

    Args:
        capacity: Rows in memory, equally many from each class.
        when: Train at the end of each `task`, or once, at the `end` of the run; until then the model is
            not trained.
        passes: Passes over the rows in memory.
        batch_size: Largest number of rows per step.
        lr, min_lr, momentum, weight_decay, clip_grad: Floats, for this training; the run's own settings of
            these names have no effect.
    """

    owns = frozenset({"batch", "weights", "output", "data"})
    no_environments = "it trains from scratch on a memory balanced by class"
    needs_classes = True
    scenarios = ("class", "task")

    def __init__(
        self,
        capacity: int = 500,
        passes: int = 128,
        batch_size: int = 16,
        lr: float = 0.05,
        min_lr: float = 5e-4,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        clip_grad: float = 10.0,
        when: str = "task",
    ):
        if when not in ("task", "end"):
            raise ConfigError(f"gdumb.when is {when!r}; it must be `task` or `end`.")
        self.when = when
        self.memory = Memory(capacity, "balanced")
        self.passes, self.batch_size, self.clip_grad = passes, batch_size, clip_grad
        self.lr, self.min_lr = lr, min_lr
        self.momentum, self.weight_decay = momentum, weight_decay
        self.orders = torch.Generator()
        self.initial: dict[str, Tensor] = {}  # Parameters and buffers before the first task.
        self.buffers: dict[str, Tensor] = {}  # As the last training left them.

    def begin_task(self, agent: nn.Module, replay: Replay) -> None:
        if self.context.task == 0:
            self.orders.manual_seed(self.context.seed)
            self.initial = self.context.snapshot()
        self.buffers = {name: buffer.clone() for name, buffer in agent.named_buffers()}

    def parameters_changed(self, agent: nn.Module) -> None:
        """Training from scratch starts new parameters and buffers from their current values."""
        tensors = tensors_of(agent)
        for kept in (self.initial, self.buffers):
            for name, tensor in list(kept.items()):
                if name not in tensors or tensors[name].shape != tensor.shape:
                    del kept[name]
        if self.initial:
            self.initial = {n: t.detach().clone() for n, t in tensors.items()} | self.initial
        self.buffers = {n: b.clone() for n, b in agent.named_buffers()} | self.buffers

    def after_backward(self, agent: nn.Module) -> None:
        for parameter in agent.parameters():
            parameter.grad = None  # An optimiser passes over it, weight decay and momentum too.

    def after_step(self, agent: nn.Module, batch: Batch) -> None:
        self.memory.add(self.context.rows_to_store(batch))
        for name, buffer in agent.named_buffers():
            buffer.copy_(self.buffers[name])  # BatchNorm's have moved in the forward.

    def end_task(self, agent: nn.Module, replay: Replay) -> None:
        last = self.context.task == self.context.num_tasks - 1
        if self.when == "end" and replay.borders and not last:
            return
        with torch.no_grad():
            for name, tensor in tensors_of(agent).items():
                tensor.copy_(self.initial[name])
        parameters = [p for p in agent.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(
            parameters, self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )
        rows = self.memory.all()
        for done in range(self.passes):
            optimizer.param_groups[0]["lr"] = self.learning_rate(done)
            order = torch.randperm(len(rows), generator=self.orders).to(self.context.device)
            # Of equal size, but for one: BatchNorm cannot train on a remainder of a single row.
            for index in order.tensor_split(math.ceil(len(rows) / self.batch_size)):
                loss = self.context.loss(self.context.augmented(rows[index]))
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, self.clip_grad)
                optimizer.step()

    def learning_rate(self, done: int) -> float:
        """The learning rate of the next pass, after `done` passes."""
        if done == 0:
            return self.lr / 10
        cycle = 1 << (done.bit_length() - 1)  # A cycle of so many passes begins after as many.
        height = (1 + math.cos(math.pi * (done - cycle) / cycle)) / 2
        return self.min_lr + (self.lr - self.min_lr) * height
