"""Experience replay with asymmetric cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...replay import Batch
from .context import HIDDEN
from .er import ER


class ERACE(ER):
    """Learn new classes without pushing the old ones away, which compete in rehearsal only.

    Source: Caccia et al., 2022 (arXiv 2104.05025): with the stream's batch B, its classes
    C(B), and a batch M drawn from a reservoir of the stream,

        L = CE(B; C(B)) + CE(M; all classes)

    where CE(.; C) is the mean cross-entropy with a softmax over the classes C only. It replaces the
    model's own loss.

    Args:
        capacity: Rows in memory.
        batch_size: Rehearsed rows per batch; None: as many as the batch has new ones.
        policy: Which rows the memory keeps: `reservoir`, `balanced` or `ring`.
    """

    owns = frozenset({"batch", "loss"})
    no_environments = "its loss is a cross-entropy over classes"
    needs_classes = True
    needs_forward = True
    labels: Tensor | None = None  # Of the batch's rows that are not rehearsed, on all devices.

    def __init__(
        self, capacity: int = 500, batch_size: int | None = None, policy: str = "reservoir"
    ):
        super().__init__(capacity, batch_size, policy)

    def before_batch(self, agent: nn.Module, batch: Batch) -> Batch:
        self.labels = batch.label
        return super().before_batch(agent, batch)

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        labels, self.labels = self.labels, None
        assert labels is not None
        # New rows come first, before and after the batch was divided among devices.
        label = batch.label
        new, rows = self.context.count(len(labels)), self.context.rows(batch)
        logits = self.context.masked(self.context.logits(batch.obs), batch.task)
        ours = among(logits[:new], labels)
        loss = self.context.mean(F.cross_entropy, ours, label[:new], len(labels))
        if rows > len(labels):
            past = rows - len(labels)
            loss = loss + self.context.mean(F.cross_entropy, logits[new:], label[new:], past)
        return loss


def among(logits: Tensor, label: Tensor) -> Tensor:
    """Logits `[B, n]` with classes that do not occur among the labels, int64 `[A]`, hidden."""
    absent = logits.new_ones(logits.shape[1], dtype=torch.bool).index_fill_(0, label, False)
    return logits.masked_fill(absent, HIDDEN)
