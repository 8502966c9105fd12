"""A trained module and what it learnt from: what an export starts from."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...agents.traits import has_forward
from ...envs.reading import Reading
from ...envs.transform import Transform
from ...envs.world import WorldSpec
from ...replay import ConfigError
from ...replay.batch import Tensors
from ...replay.spec import is_ragged
from ...replay.tree import leaves, map_tree
from ..learn.learner import Learner
from ..settings.plan import Plan
from .predicting import Learnt


@dataclass(frozen=True)
class Trained:
    """A model in evaluation mode, and everything that tells what it receives and returns.

    Attributes:
        module: The user's module.
        learner: Predicts with the module, as evaluations do.
        transform: Turns stored rows into the module's inputs.
        world: What it learnt from.
        plan: The run's settings.
        path: The run directory.
    """

    module: nn.Module
    learner: Learner
    transform: Transform
    world: WorldSpec
    plan: Plan
    path: Path

    @property
    def name(self) -> str:
        """The name of the module's class."""
        return type(self.module).__name__

    @property
    def reading(self) -> Reading | None:
        """How raw inputs became rows; None in environments."""
        return None if self.world.acts else cast(Learnt, self.world).reading

    def check(self, sentence: str) -> None:
        """Refuse a module whose outputs do not follow from its inputs alone.

        Args:
            sentence: What it then cannot do, with places for its name and the reason.

        Raises:
            ConfigError: Saying why.
        """
        traits = self.learner.traits
        reason = None
        if not has_forward(self.module):
            reason = "it has no `forward`"
        elif self.world.acts and traits.recurrent:
            reason = "its `forward` carries a state from step to step"
        elif self.world.told or traits.task_told:
            reason = "its predictions depend on the task (scenario=task)"
        elif is_ragged(self.world.spec.obs):
            reason = "it was trained on sequences of different lengths"
        elif predicting := self.learner.strategies.having("predict"):
            reason = f"strategy={predicting[0]} predicts in place of its `forward`"
        if reason is not None:
            raise ConfigError(sentence.format(self.name, reason))

    def on_cpu(self) -> nn.Module:
        """The module itself if it is on the CPU, else a copy that is.

        Raises:
            ConfigError: If it cannot be copied.
        """
        if self.learner.device.type == "cpu":
            return self.module
        try:
            return copy.deepcopy(self.module).cpu()
        except Exception as error:  # The user's module may hold anything.
            raise ConfigError(
                f"Cannot export {self.name}: it cannot be copied to the CPU ({error}). Load the run there: "
                f"antelope.load({str(self.path)!r}, device='cpu')."
            ) from error

    def observed(self, stored: Tensors) -> Tensors:
        """Stored rows `[B, *shape]` as the module receives them, on its device."""
        received: Tensors = self.transform.observe(stored, self.learner.device)
        return received

    def outputs(self, received: Tensors) -> Tensors:
        """The module's outputs `[B, ...]` on the CPU, for observations as it receives them.

        Raises:
            ConfigError: If they are not tensors.
        """
        output: Any
        with torch.no_grad():
            output = self.module(received) if self.world.acts else self.learner.predict(received)
        for leaf in leaves(output):
            if not isinstance(leaf, Tensor):
                raise ConfigError(
                    f"Cannot export {self.name}: its `forward` returns a {type(leaf).__name__}. Return a "
                    "tensor or a dict of tensors."
                )
        on_cpu: Tensors = map_tree(Tensor.cpu, output)
        return on_cpu
