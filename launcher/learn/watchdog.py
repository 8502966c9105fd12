"""Notices that a run diverges: checks losses at each step, and everything else on request."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from ...replay import Diverged, Normalizer
from ..record.log import as_floats
from .finite import Finiteness, bad_loss, bad_statistics
from .nan import Found, word_for
from .updates import Updates

# On a GPU losses are checked many at once, so that few steps wait for the device.
_CHECK_EVERY = {"cpu": 1}
_CHECK_EVERY_ELSEWHERE = 50


class Watchdog:
    """Raises Diverged once a loss, or a part of what learns, is NaN or infinite.

    Args:
        updates: Holds the model's parameters, and what trains them.
        device: The type of the model's device, such as "cuda".
    """

    def __init__(self, updates: Updates, device: str):
        self._updates, self._finiteness = updates, Finiteness(updates)
        self._skips = updates.skipped is not None
        self._finite_until = 0  # The last learning step at which everything was finite.
        self._unchecked: list[tuple[int, Tensor | float]] = []  # Steps and their losses.
        self._check_every = _CHECK_EVERY.get(device, _CHECK_EVERY_ELSEWHERE)

    def begin(self, step: int) -> None:
        """Note what is not finite before the first learning step of this process.

        Args:
            step: Its number, from 1.
        """
        self._finiteness.begin()
        self._finite_until = step - 1

    def note_finite(self, step: int) -> None:
        """Note that everything is finite after a step."""
        self._finite_until = step

    def loss(self, step: int, loss: Tensor | float | None) -> None:
        """Check that a loss is finite; on a GPU only every 50 steps, since each check waits for it."""
        if loss is None or self._skips or (self._check_every == 1 and math.isfinite(loss)):
            return
        self._unchecked.append((step, loss))
        if len(self._unchecked) >= self._check_every:
            self.check_losses()

    def check_losses(self) -> None:
        """Check the losses since the last check.

        Raises:
            Diverged: Naming the first step whose loss was not finite, and the first weight that is not.
        """
        losses, self._unchecked = self._unchecked, []
        values = as_floats([loss for _, loss in losses])
        for (step, _), value in zip(losses, values, strict=True):
            if not math.isfinite(value):
                what = f"The loss became {word_for(value)} at learning step {step}{self._at_lr}"
                if (found := self._finiteness.first(closely=True)) is None:
                    what += "; all weights and buffers are finite."
                    raise Diverged(what, tensor="loss", lr=self.lr)
                raise Diverged(f"{what}: {found}.", tensor=found.name, lr=self.lr)

    def check(
        self,
        step: int,
        row: Mapping[str, float] | None = None,
        *,
        closely: bool = False,
        normalizer: Normalizer | None = None,
    ) -> None:
        """Check that losses, weights and buffers are finite; on a GPU, waits for it.

        Args:
            step: The newest learning step.
            row: What was logged since the last row.
            closely: Also check averages, waiting gradients, and the optimisers' states.
            normalizer: An environment's running statistics, to be checked as well.

        Raises:
            Diverged: Naming the first that is not.
        """
        self.check_losses()
        found = self._finiteness.first(closely=closely)
        if found is None and row is not None:
            found = bad_loss(row)
        if found is not None:
            raise self._diverged(found, step)
        self._finite_until = step
        if (found := bad_statistics(normalizer)) is not None:
            raise self._diverged(found, step)

    def _diverged(self, found: Found, step: int) -> Diverged:
        first = self._finite_until + 1
        when = f"in learning steps {first} to {step}"
        if first >= step:
            when = f"at learning step {step}"
        what = f"The {found.what} `{found.name}` became {found.word} {when}{self._at_lr}."
        if self._skips:
            what += " on_nan=skip could not skip the update that caused it."
        return Diverged(what, tensor=found.name, lr=self.lr)

    @property
    def _at_lr(self) -> str:
        return "" if self.lr is None else f" (lr={self.lr:.3g})"

    @property
    def lr(self) -> float | None:
        """The learning rate of the last update, by the run's optimiser or one that the module steps."""
        lr, own = self._updates.lr, self._updates.own
        if lr is not None or own is None or own.only is None:
            return lr
        return float(own.only.param_groups[0]["lr"])
