"""Finds parameters that no loss reaches in the first updates, and warns of them once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from .parameters import in_words

_PATIENCE = 100  # Updates without a gradient after which none is expected any longer.


class Unreached:
    """Waits for a gradient of every parameter, and warns of those that never receive one.

    Args:
        agent: The module that learns.
        waits: Whether to expect gradients at all.
        forever: Whether to warn only at the end of the run, not after 100 updates: in a sequence of
            tasks, a loss may reach some parameters only in a later task.

    Attributes:
        waiting: The parameters without a gradient so far, by name.
    """

    def __init__(self, agent: nn.Module, *, waits: bool, forever: bool):
        self._name, self._waits = type(agent).__name__, waits
        self._patience = math.inf if forever else _PATIENCE
        self._looks = 0  # Updates since the first gradient.
        self.waiting: dict[str, nn.Parameter] = {}
        if waits:
            self.waiting = {n: p for n, p in agent.named_parameters() if p.requires_grad}

    def look(self) -> None:
        """Strike out the parameters that have a gradient now, and warn of the others after a while."""
        before = len(self.waiting)
        self.waiting = {n: p for n, p in self.waiting.items() if p.grad is None and p.requires_grad}
        if self._looks or len(self.waiting) < before:
            self._looks += 1
        if self._looks >= self._patience:
            self.warn()

    def follow(self, named: Mapping[str, nn.Parameter], new: Sequence[str]) -> None:
        """Expect gradients of new parameters, and none of removed ones.

        Args:
            named: All current parameters, by name.
            new: Names of those trained from now on.
        """
        self.waiting = {n: p for n, p in named.items() if self.waiting.get(n) is p}
        if self._waits and new:
            # Copies of other parameters, such as a teacher's, are not meant to be trained.
            others = [p for name, p in named.items() if name not in new]
            self.waiting |= {
                name: named[name] for name in new if not any(map(named[name].equal, others))
            }
            self._looks = min(self._looks, 1)

    def warn(self) -> None:
        """Warn, once, of parameters that no loss has reached in the updates so far."""
        names, self.waiting = list(self.waiting), {}
        if not names or not self._looks:
            return
        warnings.warn(
            f"No loss reaches {in_words(names)} of {self._name}: nothing trains them. Use them in the loss, "
            "or set requires_grad_(False) if that is intended.",
            stacklevel=2,
        )

    def state_dict(self) -> dict[str, Any]:
        return {"waiting": list(self.waiting), "looks": self._looks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.waiting = {n: p for n, p in self.waiting.items() if n in state["waiting"]}
        self._looks = state["looks"]
