"""Dark experience replay with labels."""

from __future__ import annotations

from torch import Tensor

from .der import DER


class DERPP(DER):
    """DER++: keep what the model once answered, and what would have been right.

    Source: Buzzega et al., 2020 (arXiv 2004.07211), section 3: with rows x, z and x', y' of two
    independent draws from a reservoir of the stream, z as in DER,

        L = loss + alpha * mean (f(x) - z)^2 + beta * loss(f(x'), y')

    Args:
        capacity: Rows in memory.
        batch_size: Rows of each of the two draws; None: as many as are new.
        alpha: Weight of the distillation, a float from 0.
        beta: Strength of the labels: of the model's own loss on past rows.
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
        past = self.context.augmented(self.memory.sample(rows))
        return answers + self.beta * self.context.loss(past)
