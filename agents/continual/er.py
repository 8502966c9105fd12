"""Experience replay."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...replay import Batch, ConfigError, Memory, Replay
from ...replay.padding import padded_alike
from ...replay.tree import zip_trees
from .importance import checked
from .strategy import Strategy

TASKS = "tasks"


class ER(Strategy):
    """Learn every batch together with rows from the past.

    Source: Rolnick et al., 2019 (arXiv 1811.11682); Chaudhry et al., 2019 (arXiv 1902.10486):
    with the stream's batch B and a batch M drawn from a reservoir of the stream,

        L = mean over B u M of l(f(x), y)

    With a weight w the model's own losses on the two are computed one after the other, and

        L = (1 - w) loss(B) + w loss(M)

    `tasks` sets w = 1 - 1/k in the k-th task, so that every task so far counts the same: van de Ven et al.,
    2022 (https://doi.org/10.1038/s42256-022-00568-3). As there, rows enter the memory when their task
    ends, so that only earlier tasks are rehearsed.

    Args:
        capacity: Rows in memory.
        batch_size: Rehearsed rows per batch; None: as many as the batch has new ones.
        policy: Which rows the memory keeps: `reservoir`, `balanced` or `ring`.
        weight: Weight of the rehearsed rows' loss, 0 to 1, or `tasks`; None: every row counts the same.
    """

    owns = frozenset({"batch"})
    no_environments = (
        "there, the replay is the memory, and strategy=cumulative draws from all tasks so far"
    )

    def __init__(
        self,
        capacity: int = 500,
        batch_size: int | None = None,
        policy: str = "reservoir",
        weight: float | str | None = None,
    ):
        self.memory = Memory(capacity, policy)
        self.batch_size = batch_size
        if isinstance(weight, str) and weight != TASKS:
            raise ConfigError(
                f"er.weight is {weight!r}; it must be a number from 0 to 1, or `{TASKS}`."
            )
        if weight is not None and not isinstance(weight, str):
            checked("er.weight", weight, high=1)
        self.weight = weight
        self.needs_borders = weight == TASKS
        self.past: Batch | None = None  # Sampled for this step, if its loss is computed separately.

    def before_batch(self, agent: nn.Module, batch: Batch) -> Batch:
        past = self.memory.sample(self.batch_size or len(batch)) if len(self.memory) else None
        if self.weight != TASKS:
            # After sampling, so that no row is rehearsed in the step in which it is new.
            self.memory.add(self.context.rows_to_store(batch))
        if past is None:
            return batch
        past = self.context.augmented(past)
        if self.weight is None:
            return joined(batch, past)
        self.past = past
        return batch

    def end_task(self, agent: nn.Module, replay: Replay) -> None:
        if self.weight == TASKS:
            for batch in replay.once():
                self.memory.add(self.context.rows_to_store(batch))

    @property
    def after_loss(self) -> Callable[[nn.Module, Batch, Tensor], Tensor] | None:
        """A hook only if `weight` is set: without it, models that update themselves can rehearse too."""
        return None if self.weight is None else self.weighted

    def weighted(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        """The weighted sum of the losses of new and rehearsed rows."""
        past, self.past = self.past, None
        if past is None:
            return loss
        weight = 1 - 1 / (self.context.task + 1) if self.weight == TASKS else self.weight
        assert isinstance(weight, (int, float))
        return (1 - weight) * loss + weight * self.context.loss(self.context.part(past))


def joined(batch: Batch, past: Batch) -> Batch:
    """The rows of two batches, in this order, in every field that both have."""
    # Runs at every step: access through the Batch's own methods costs more.
    fields, held = vars(batch), vars(past)
    if "length" in fields:
        fields, held = padded_alike([fields, held])
    return Batch(
        **{
            name: torch.cat((field, held[name]))
            if isinstance(field, Tensor)
            else zip_trees(_cat, field, held[name])
            for name, field in fields.items()
            if name in held
        }
    )


def _cat(rows: Tensor, more: Tensor) -> Tensor:
    return torch.cat((rows, more))
