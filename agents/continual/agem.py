"""Averaged gradient episodic memory."""

from __future__ import annotations

import torch
from torch import nn

from ...replay import Batch, Memory, Replay
from .gem import draw, gradient_now, gradient_on, share_of_task, write
from .strategy import Strategy


class AGEM(Strategy):
    """Remove from the gradient the part that would raise the loss on a sample of the past.

    Source: Chaudhry et al., 2019 (arXiv 1812.00420), eq. 11. Let g be the gradient on the batch, and r the
    gradient of the model's loss on rows drawn from a memory of all earlier tasks. Where g'r < 0, g becomes

        g - (g'r / r'r) r

    Without task borders (`online=true`) the memory is a reservoir of the stream, which also holds rows of
    the current task: the A-GEM-R of Buzzega et al., 2020 (arXiv 2004.07211).

    Args:
        capacity: Rows in memory, `capacity // num_tasks` from each task, drawn when the task ends.
        batch_size: Rows per sample of the memory.
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
        # Select on the device: a Python branch would have to wait for it.
        write(torch.where(product < 0, projected, gradient), parameters)

    def after_step(self, agent: nn.Module, batch: Batch) -> None:
        if not self.borders:
            self.memory.add(self.context.rows_to_store(batch))
