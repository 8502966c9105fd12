"""Checks that a module that should update itself did so: a `learn` without its `return` trains nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...agents.traits import stated_traits


class Unmoved:
    """Compares a module's parameters with those before its first learning step.

    Attributes:
        begun: Whether the initial parameters have been recorded.
    """

    def __init__(self, agent: nn.Module):
        self._agent, self.begun = agent, False
        self._before: dict[str, Tensor] = {}

    def begin(self) -> None:
        self.begun, self._before = True, self._sums()

    def problem(self, *, so_far: bool = False) -> str | None:
        """The message if no parameter has changed; else None.

        Args:
            so_far: Whether the run goes on.
        """
        about = stated_traits(self._agent)
        if about.on_policy:  # The run may have been shorter than its first rollout.
            return None
        after, name = self._sums(), type(self._agent).__name__
        kept = [self._before[n].equal(s) for n, s in after.items() if n in self._before]
        if not kept or not all(kept) or len(kept) < len(after):
            return None
        do = "Return the loss, or step" if about.learns_by == "learn" else "Step"
        what = "Nothing was trained so far" if so_far else "Nothing was trained"
        return (
            f"{what}: {name}.{about.learns_by} returned no loss, and no parameter of {name} changed. "
            f"{do} an optimiser there; or set requires_grad_(False) if that is intended."
        )

    def _sums(self) -> dict[str, Tensor]:
        """The sum of each parameter's bytes, int64 `[]`: a copy would take as much memory as the model."""
        return {
            name: p.detach().reshape(-1).view(torch.uint8).sum(dtype=torch.int64)
            for name, p in self._agent.named_parameters()
            if p.requires_grad and not nn.parameter.is_lazy(p)
        }
