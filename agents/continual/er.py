"""Experience replay."""

from __future__ import annotations

import torch
from torch import nn

from ...replay import Batch, Memory
from .strategy import Strategy


class ER(Strategy):
    """Learn every batch together with rows of the past.

    Source: Rolnick et al., 2019 (arXiv 1811.11682); Chaudhry et al., 2019 (arXiv 1902.10486):
    with the stream's batch B and a batch M drawn from a reservoir of the stream,

        L = mean over B u M of l(f(x), y)

    Args:
        capacity: Rows in memory.
        batch_size: Rows of a batch that are rehearsed; None: as many as are new.
        policy: Which rows the memory keeps: `reservoir`, `balanced` or `ring`.
    """

    owns = frozenset({"batch"})

    def __init__(
        self, capacity: int = 500, batch_size: int | None = None, policy: str = "reservoir"
    ):
        self.memory = Memory(capacity, policy)
        self.batch_size = batch_size

    def before_batch(self, agent: nn.Module, batch: Batch) -> Batch:
        past = self.memory.sample(self.batch_size or len(batch)) if len(self.memory) else None
        # After the draw: a row is not rehearsed in the step that it is new in.
        self.memory.add(self.context.kept(batch))
        return batch if past is None else joined(batch, self.context.augmented(past))


def joined(batch: Batch, past: Batch) -> Batch:
    """The rows of two batches, in this order, in every field that both have."""
    fields, held = vars(batch), vars(past)  # Met at every step: a Batch's own access costs more.
    return Batch(**{name: torch.cat((fields[name], held[name])) for name in fields if name in held})
