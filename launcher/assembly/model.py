"""The model as it is called: one object for the forward check, the learner, actors and evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from ...agents.policy.states import Recurrence
from ...agents.traits import Traits, traits
from ...replay import Spec

_AUTOCAST = {"bf16": torch.bfloat16, "16": torch.float16}


@dataclass(frozen=True, eq=False)
class Model:
    """A module, and how it is called: on which device, in which arithmetic, with which state.

    Attributes:
        agent: What learns, on `device`.
        spec: What it receives and returns.
        device: Where its batches are.
        precision: `"bf16"` or `"16"`: the dtype of autocast; `"32"` and `"tf32"`: no autocast.
        recurrence: How its state is carried in environments; None for one without state.
    """

    agent: nn.Module
    spec: Spec
    device: torch.device
    precision: str = "32"
    recurrence: Recurrence | None = None

    @cached_property
    def traits(self) -> Traits:
        """What the module can do."""
        return traits(self.agent)

    @property
    def scales_losses(self) -> bool:
        """Whether gradients are so small in its arithmetic (float16) that losses are scaled up."""
        return self.precision == "16"

    @cached_property
    def autocast(self) -> Callable[[], AbstractContextManager[Any]]:
        """Inside, the module computes with `precision`; `nullcontext` where that changes nothing."""
        dtype = _AUTOCAST.get(self.precision)
        return nullcontext if dtype is None else partial(torch.autocast, self.device.type, dtype)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside: evaluation mode, no gradients, and autocast."""
        modes = {module: module.training for module in self.agent.modules()}
        self.agent.eval()
        try:
            with torch.no_grad(), self.autocast():
                yield
        finally:
            # Module by module: a part that the user froze in eval mode stays so.
            for module, training in modes.items():
                module.training = training

    def predict(self, obs: Any, task: int | None = None) -> Tensor | None:
        """Logits or values `[B, *action.shape]`, at least float32; None without a `forward`.

        Args:
            obs: `[B, *obs.shape]`, or a dict of such.
            task: The task that the rows belong to, where that may be known.
        """
        if self.traits.task_told:
            return widened(self.agent(obs, task))
        return widened(self.agent(obs)) if self.traits.forward else None


def widened(output: Tensor) -> Tensor:
    """At least float32; values far from zero come as float64, and stay so."""
    return output if output.dtype == torch.float64 else output.float()
