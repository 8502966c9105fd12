"""Dark experience replay with labels."""

from __future__ import annotations

from torch import Tensor

from .der import DER


class DERPP(DER):
    """DER++: rehearse the model's earlier outputs, and the right labels as well.

    Source: Buzzega et al., 2020 (arXiv 2004.07211), section 3: with rows (x, z) and (x', y') from two
    independent draws from a reservoir of the stream, and z as in DER,

        L = loss + alpha * mean (f(x) - z)^2 + beta * loss(f(x'), y')

    Args:
        capacity: Rows in memory.
        batch_size: Rows in each of the two draws; None: as many as the batch has new ones.
        alpha: Weight of the distillation, a float from 0.
        beta: Weight of the model's own loss on past rows, a float from 0.
    """

    def __init__(
        self,
        capacity: int = 500,
        batch_size: int | None = None,
        alpha: float = 0.5,
        beta: float = 0.5,
    ):
        super().__init__(capacity, batch_size, alpha)
        self.beta = beta

    def rehearsal(self, rows: int) -> Tensor:
        answers = super().rehearsal(rows)
        past = self.context.augmented(self.memory.sample(rows, whole=True))
        return answers + self.beta * self.context.loss(past)
