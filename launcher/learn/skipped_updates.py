"""`on_nan=skip`: skips the updates whose loss or gradient is NaN or infinite."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...replay import Diverged
from ...replay.ranks import ranks
from ..settings.warn import warn_caller
from .nan import Found, all_finite, word_for, word_of
from .own_optimizer import OwnOptimizers

_MOST = 10  # In a row: then the run diverges whatever is skipped.


class SkippedUpdates:
    """Decides which updates are skipped, and takes back what their learning steps did to buffers.

    Each update waits for the device once, to see its gradients.

    Args:
        agent: The module that learns.
        own: The optimisers that the module holds, whose steps it may skip too; or None.

    Attributes:
        count: Updates skipped so far.
        now: Why the update of this learning step is skipped; None: it is not.
    """

    def __init__(self, agent: nn.Module, own: OwnOptimizers | None):
        self._agent, self.count, self._in_a_row = agent, 0, 0
        self._updated = False  # Whether this learning step has made an update.
        self.now: Found | None = None
        self._bad_loss: Found | None = None  # Of this learning step.
        if own is not None:
            own.before_step = self.before_step
            own.look()
        # Each buffer, and what it held before the step.
        self._buffers: list[tuple[Tensor, Tensor]] = []

    def begin(self) -> None:
        """Begin a learning step."""
        self.now, self._updated = None, False
        self._buffers = [(b, b.detach().clone()) for b in self._agent.buffers()]

    def look_at_loss(self, loss: Tensor) -> None:
        """Note whether a loss is finite; if not, the update that it belongs to is skipped."""
        value = float(loss)
        if not math.isfinite(value):
            self._bad_loss = Found("returned", "loss", word_for(value))

    def refuses(self, parameters: Iterable[Tensor], *, scaled: bool = False) -> bool:
        """Whether to skip an update by the gradients of these parameters, which are dropped then.

        Called for every loss, so that no checkpoint holds such gradients.

        Args:
            scaled: Whether a loss scaler steps, which skips infinite gradients itself.
        """
        parameters = list(parameters)
        why, self._bad_loss = self._bad_loss, None
        if why is None and not scaled:
            why = self._bad_gradient(parameters)
        place = ranks()
        if place.several and place.any("update, unless it is skipped", why is not None):
            why = why or Found("loss or gradient", "of another device", "NaN or infinite")
        if why is None:
            return False
        for parameter in parameters:
            parameter.grad = None
        self.now = why
        return True

    def updated(self) -> None:
        """Call after an update."""
        self._updated = True

    def before_step(self, optimizer: Optimizer) -> None:
        """Skip a step of an optimiser that the module steps itself, if its gradients are not finite."""
        # Without gradients, `step` changes nothing.
        if not self.refuses(p for group in optimizer.param_groups for p in group["params"]):
            self.updated()

    def end(self, step: int) -> bool:
        """End a learning step: counts a skipped update, and restores the buffers.

        Args:
            step: Its number, from 1.

        Returns:
            Whether its update was skipped.

        Raises:
            Diverged: If too many updates in a row were skipped.
        """
        if self.now is not None:
            with torch.no_grad():
                for buffer, before in self._buffers:
                    if buffer.shape == before.shape:
                        buffer.copy_(before)
        self._buffers = []
        if self.now is None:
            # With `accumulate` there are steps that neither make nor skip an update. One that skips an
            # optimiser's update counts as skipped, even if it makes another's.
            if self._updated:
                self._in_a_row = 0
            return False
        self.count += 1
        self._in_a_row += 1
        if self._in_a_row >= _MOST:
            raise Diverged(
                f"{_MOST} updates in a row were skipped (on_nan=skip), the last at learning step {step}: "
                f"{self.now}.",
                tensor=self.now.name,
            )
        if self.count == 1:
            warn_caller(
                f"on_nan=skip: the update of learning step {step} was skipped, since {self.now}. Further "
                "ones are only counted."
            )
        return True

    def _bad_gradient(self, parameters: list[Tensor]) -> Found | None:
        reached = [p for p in parameters if p.grad is not None]
        if all_finite([p.grad for p in reached if p.grad is not None]):
            return None
        names = {id(p): name for name, p in self._agent.named_parameters()}
        for p in reached:
            if p.grad is not None and (word := word_of(p.grad)) is not None:
                return Found("gradient of", names.get(id(p), "a weight"), word)
        return None
