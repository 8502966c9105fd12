"""The calls that a custom loop must make for each batch, and their order."""

from __future__ import annotations

import itertools

from torch import Tensor

from ...agents.continual.context import Context
from ...replay import Batch, ConfigError
from ..learn.strategies import Strategies as Hooks

_LINES = {
    "after_loss": "loss = strategies.after_loss(batch, loss) before loss.backward()",
    "after_backward": "strategies.after_backward() between loss.backward() and optimizer.step()",
    "after_step": "strategies.after_step(batch) after optimizer.step()",
}


class Calls:
    """The calls made for the current batch; a missing call that a strategy needs is an error.

    Attributes:
        batch: The batch that is being learnt; None between batches.
        done: Names of the calls made for it.
        stepped: Whether the optimiser has stepped on it.
    """

    def __init__(self, hooks: Hooks, context: Context):
        self._hooks, self._context = hooks, context
        self.batch: Batch | None = None
        self.done: set[str] = set()
        self.stepped = False
        # Losses that were returned but not back-propagated yet. They are numbered, since Python may reuse the
        # `id` of a loss that was dropped for the next one.
        self._owed: set[int] = set()
        self._numbers = itertools.count()

    def begin_task(self) -> None:
        """Forget what an earlier task still owed."""
        self._owed.clear()

    def end_batch(self) -> None:
        """Forget the batch: it has been learnt, or was given up."""
        self.batch, self.done, self.stepped = None, set(), False

    def owe_backward(self, total: Tensor, loss: Tensor) -> Tensor:
        """A scalar loss, `[]`, that records when it is back-propagated.

        Args:
            total: `loss` plus what strategies add, float `[]`; may be the same tensor.
            loss: The caller's own loss, float `[]`.
        """
        # A new tensor: a hook on the caller's own would also fire if that alone were back-propagated.
        total = total.clone() if total is loss else total
        self._owed.add(number := next(self._numbers))
        total.register_hook(lambda _: self._owed.discard(number))
        return total

    def check(self, call: str, batch: object = None) -> None:
        """Check that a call is for the current batch, and the first of its kind.

        Raises:
            ConfigError: If there is no batch, it is another one, or the call was made already.
        """
        if batch is not None and not isinstance(batch, Batch):
            raise ConfigError(
                f"{call} needs a Batch from task.train, not a {type(batch).__name__}."
            )
        if self.batch is None:
            raise ConfigError(
                f"{call}: there is no batch to learn. Take one from task.train, and call after_step(batch) "
                "last; pass a batch from elsewhere through before_batch(batch)."
            )
        if batch is not None and batch is not self.batch and len(batch) < len(self.batch):
            raise ConfigError(
                f"{call}: this batch has {len(batch)} rows, but the strategies made one of "
                f"{len(self.batch)} rows from it. Learn from that one: batch = "
                "strategies.before_batch(batch)."
            )
        if ("after_loss" if call == "loss" else call) in self.done:
            already = " (strategies.loss already includes what the strategies add)"
            twice = already if call == "after_loss" else ""
            raise ConfigError(f"{call} was called twice for one batch{twice}.")

    def need(self, call: str) -> None:
        """Raise ConfigError if a strategy needs this call for the batch and it was not made."""
        if call in self.done or not self._hooks.having(call):
            return
        names = " and ".join(self._hooks.having(call))
        more = ""
        if call == "after_backward" and self._context.optimizer is None:
            more = (
                " To accumulate gradients over batches, pass the optimiser: begin_task(task, "
                "optimizer)."
            )
        raise ConfigError(f"strategy={names} needs {call}. Write {_LINES[call]}.{more}")

    def check_backward(self) -> None:
        """Raise ConfigError if a loss that strategies have added to was not back-propagated."""
        if self._owed:
            self._owed.clear()
            raise ConfigError(
                "The loss that strategies.after_loss returned was not back-propagated, so what the "
                f"strategies added to it is lost. Write {_LINES['after_loss']}."
            )

    def unfinished(self) -> ConfigError:
        """The error for a batch with missing calls; it names the first of them."""
        for call in ("after_loss", "after_backward"):
            if call not in self.done and self._hooks.having(call):
                return ConfigError(
                    f"A batch was not learnt completely: {call} was not called. Write {_LINES[call]}."
                )
        return ConfigError(
            f"A batch was not learnt completely: after_step was not called. Write {_LINES['after_step']}. "
            "To look at rows without learning them, use task.train.once()."
        )
