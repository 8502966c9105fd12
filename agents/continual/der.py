"""Dark experience replay."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ...replay import Batch, Memory
from .strategy import Strategy


class DER(Strategy):
    """Keep what the model once answered to rows of the past.

    Source: Buzzega et al., 2020 (arXiv 2004.07211), section 3: with rows x drawn from a reservoir of the
    stream, and the outputs z that the model had for each when it was new, before any softmax,

        L = loss + alpha * mean (f(x) - z)^2

    the mean over rows and outputs.

    Args:
        capacity: Rows in memory.
        batch_size: Rows that are rehearsed; None: as many as are new.
        alpha: Weight of the distillation, a float from 0.
    """

    owns = frozenset({"batch"})
    no_environments = (
        "it rehearses outputs for labelled rows; strategy=lwf keeps the outputs of the last task"
    )
    needs_forward = True

    def __init__(self, capacity: int = 500, batch_size: int | None = None, alpha: float = 0.5):
        self.memory = Memory(capacity)
        self.batch_size, self.alpha = batch_size, alpha

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        # Those that learning has just computed; the rehearsal may forget them.
        logits = self.context.logits(batch.obs).detach()
        if len(self.memory):
            loss = loss + self.rehearsal(self.batch_size or len(batch))
        self.memory.add(self.context.rows_to_store(batch), logits=logits)
        return loss

    def rehearsal(self, rows: int) -> Tensor:
        """What is added to the loss: of so many rows of the memory."""
        past = self.context.augmented(self.memory.sample(rows))
        return self.alpha * F.mse_loss(self.context.logits(past.obs), past.logits)
