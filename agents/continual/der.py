"""Dark experience replay."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ...replay import Batch, Memory
from .strategy import Strategy


class DER(Strategy):
    """Keep the model's outputs for past rows near those it gave when the rows were new.

    Source: Buzzega et al., 2020 (arXiv 2004.07211), section 3: with rows x drawn from a reservoir of the
    stream, and z the logits that the model returned for x when it was new,

        L = loss + alpha * mean (f(x) - z)^2

    where the mean is over rows and outputs.

    Args:
        capacity: Rows in memory.
        batch_size: Rehearsed rows per step; None: as many as the batch has new ones.
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
        # The outputs that learning has just computed, read before the rehearsal's forward replaces them.
        logits = self.context.logits(batch.obs).detach()
        if len(self.memory):
            loss = loss + self.rehearsal(self.batch_size or self.context.rows(batch))
        self.memory.add(self.context.rows_to_store(batch), logits=logits)
        return loss

    def rehearsal(self, rows: int) -> Tensor:
        """The term added to the loss, a scalar, on `rows` rows of the memory."""
        past = self.context.augmented(self.memory.sample(rows, whole=True))
        return self.alpha * F.mse_loss(self.context.logits(past.obs), past.logits)
