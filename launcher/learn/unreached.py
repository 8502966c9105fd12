"""Parameters that no loss reaches: found in the first updates, and said once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from .parameters import in_words

_PATIENCE = 100  # Updates after which a parameter without a gradient is one that gets none.


class Unreached:
    """Waits for a gradient of every parameter, and warns of those that never have one.

    Args:
        agent: The module.
        waits: Whether to expect any.
        forever: Whether to warn at the end of a run only: what no loss reaches in the first of several
            tasks may wait for a later one.

    Attributes:
        waiting: The parameters that no gradient has come to yet, by name.
    """

    def __init__(self, agent: nn.Module, *, waits: bool, forever: bool):
        self._name, self._waits = type(agent).__name__, waits
        self._patience = math.inf if forever else _PATIENCE
        self._looks = 0  # From the first update on.
        self.waiting: dict[str, nn.Parameter] = {}
        if waits:
            self.waiting = {n: p for n, p in agent.named_parameters() if p.requires_grad}

    def look(self) -> None:
        """Strike out the parameters that have a gradient now; after a while, tell which never had."""
        before = len(self.waiting)
        self.waiting = {n: p for n, p in self.waiting.items() if p.grad is None and p.requires_grad}
        if self._looks or len(self.waiting) < before:
            self._looks += 1
        if self._looks >= self._patience:
            self.warn()

    def follow(self, named: Mapping[str, nn.Parameter], new: Sequence[str]) -> None:
        """Expect a gradient of parameters that came later; ones that went need none any more.

        Args:
            named: All parameters that there are now.
            new: The names of those that have come to be trained.
        """
        self.waiting = {n: p for n, p in named.items() if self.waiting.get(n) is p}
        if self._waits and new:
            # Copies of what there is, as teachers are, are not to be trained.
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
            "or set requires_grad_(False) if that is meant.",
            stacklevel=2,
        )

    def state_dict(self) -> dict[str, Any]:
        return {"waiting": list(self.waiting), "looks": self._looks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.waiting = {n: p for n, p in self.waiting.items() if n in state["waiting"]}
        self._looks = state["looks"]
