"""A module and how to call it: one object for the forward check, the learner, actors and evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from ...agents.calling import call
from ...agents.policy.states import Recurrence
from ...agents.traits import Traits, traits
from ...replay import Spec
from ...replay.batch import Tensors

_AUTOCAST = {"bf16": torch.bfloat16, "16": torch.float16}


@dataclass(frozen=True, eq=False)
class Model:
    """A module and how to call it: the device, the arithmetic, and the state it carries.

    Attributes:
        agent: The module that learns, on `device`.
        spec: The spaces of its inputs and outputs.
        device: Where its batches are.
        precision: `"bf16"` or `"16"`: the dtype of autocast; `"32"` and `"tf32"`: no autocast.
        recurrence: Carries its state in environments; None for a module without state.
    """

    agent: nn.Module
    spec: Spec
    device: torch.device
    precision: str = "32"
    recurrence: Recurrence | None = None

    @cached_property
    def traits(self) -> Traits:
        """What the module can do, looked up once."""
        return traits(self.agent)

    @property
    def scales_losses(self) -> bool:
        """Whether losses are scaled up: small gradients become 0 in float16, but not in bfloat16."""
        return self.precision == "16"

    @cached_property
    def autocast(self) -> Callable[[], AbstractContextManager[Any]]:
        """Makes a context in which the module computes with `precision`; `nullcontext` for full precision."""
        dtype = _AUTOCAST.get(self.precision)
        # The learning step compares with `nullcontext` itself, to save the cost of entering it.
        return nullcontext if dtype is None else partial(torch.autocast, self.device.type, dtype)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Run the block in evaluation mode, without gradients, and with autocast."""
        modes = {module: module.training for module in self.agent.modules()}
        self.agent.eval()
        try:
            with torch.no_grad(), self.autocast():
                yield
        finally:
            # Module by module: a part that the user keeps in eval mode stays in it.
            for module, training in modes.items():
                module.training = training

    def predict(self, obs: Tensors, task: int | None = None) -> Tensor | None:
        """Logits or values `[B, *action.shape]`, float32 or float64; None without a `forward`.

        Args:
            obs: `[B, *obs.shape]`, or a dict of such tensors.
            task: The task of the rows, where the model may know it.
        """
        if self.traits.task_told:
            return widened(call(self.agent, obs, task))
        return widened(call(self.agent, obs)) if self.traits.forward else None


def widened(output: Tensor) -> Tensor:
    """The output as float32, from autocast's bfloat16 or float16; float64 stays float64."""
    return output if output.dtype == torch.float64 else output.float()
