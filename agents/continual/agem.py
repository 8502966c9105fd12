"""Averaged gradient episodic memory."""

from __future__ import annotations

import torch
from torch import nn

from ...replay import Batch, Memory, Replay
from .gem import draw, gradient_now, gradient_on, share_of_task, write
from .strategy import Strategy


class AGEM(Strategy):
    """Take from the gradient what would raise the loss on a draw of the past.

    Source: Chaudhry et al., 2019 (arXiv 1812.00420), eq. 11: with the gradient g of the batch and r
    of the model's loss on rows drawn from those kept of all earlier tasks, where g'r < 0,

        g - (g'r / r'r) r

    Without borders (`online=true`) what is kept is a reservoir of the stream, the current task's rows
    among them: the A-GEM-R of Buzzega et al., 2020 (arXiv 2004.07211).

    Args:
        capacity: Rows in memory: of each task `capacity // num_tasks`, drawn at its end.
        batch_size: Rows of a draw.
    """

    owns = frozenset({"gradient"})
    no_environments = "it projects the gradient by the loss of labelled rows of earlier tasks"
    needs_all_tasks = True
    borders = True  # Whether it knows where a task ends.

    def __init__(self, capacity: int = 500, batch_size: int = 128):
        self.memory = Memory(capacity)
        self.batch_size = batch_size

    def setup(self, agent: nn.Module) -> None:
        share_of_task(self.memory.capacity, self.context)

    def begin_task(self, agent: nn.Module, replay: Replay) -> None:
        self.borders = replay.borders

    def end_task(self, agent: nn.Module, replay: Replay) -> None:
        if self.borders:
            share = share_of_task(self.memory.capacity, self.context)
            chosen = Memory(share, seed=self.context.seed + self.context.task)
            draw(chosen, replay, self.context)
            if len(chosen):  # `joint` leaves nothing for later tasks.
                self.memory.add(chosen.all())

    def after_backward(self, agent: nn.Module) -> None:
        if not len(self.memory):
            return
        parameters, gradient = gradient_now(agent)
        reference = gradient_on(self.memory.sample(self.batch_size), parameters, self.context)
        product = gradient @ reference
        projected = gradient - product / (reference @ reference) * reference
        # Chosen on the device: to branch here would be to wait for it.
        write(torch.where(product < 0, projected, gradient), parameters)

    def after_step(self, agent: nn.Module, batch: Batch) -> None:
        if not self.borders:
            self.memory.add(self.context.rows_to_store(batch))
