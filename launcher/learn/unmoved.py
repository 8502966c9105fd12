"""Whether a module that is to update itself ever did: a `learn` that forgets its `return` trains nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...agents.traits import stated_traits


class Unmoved:
    """Compares a module's parameters at the end of a run with those before its first learning step.

    Attributes:
        begun: Whether the first have been looked at.
    """

    def __init__(self, agent: nn.Module):
        self._agent, self.begun = agent, False
        self._before: dict[str, Tensor] = {}

    def begin(self) -> None:
        self.begun, self._before = True, self._sums()

    def problem(self) -> str | None:
        """What to say if no parameter has changed."""
        about = stated_traits(self._agent)
        if about.on_policy:  # It may have waited for a rollout as long as the run.
            return None
        after, name = self._sums(), type(self._agent).__name__
        kept = [self._before[n].equal(s) for n, s in after.items() if n in self._before]
        if not kept or not all(kept) or len(kept) < len(after):
            return None
        do = "Return the loss, or step" if about.learns_by == "learn" else "Step"
        return (
            f"Nothing was trained: {name}.{about.learns_by} returned no loss to go by, and no parameter of "
            f"{name} changed. {do} an optimiser there; or set requires_grad_(False) if that is intended."
        )

    def _sums(self) -> dict[str, Tensor]:
        """The sum of each parameter's bytes: a copy would take as much memory as the model."""
        return {
            name: p.detach().reshape(-1).view(torch.uint8).sum(dtype=torch.int64)
            for name, p in self._agent.named_parameters()
            if p.requires_grad and not nn.parameter.is_lazy(p)
        }
