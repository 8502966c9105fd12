"""A trained model by itself: what an estimator keeps after `fit`, predicts with, and pickles."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from ...envs.held_out import rows_at_once
from ...envs.reading import Reading
from ...replay import Spec, Standardize
from ..assembly.model import Model
from ..inference.trained import Trained


@dataclass(frozen=True)
class Fitted:
    """A module in evaluation mode, and how it is called on raw inputs.

    Attributes:
        module: The module that learnt.
        standardize: The run's setting.
        layout: The memory format of images, as `Standardize` has it.
        reading: Turns raw inputs into stored rows.
        spec: The spaces of its inputs and outputs.
        device: Where it is.
        precision: The run's setting.
    """

    module: nn.Module
    standardize: bool
    layout: torch.memory_format | None
    reading: Reading
    spec: Spec
    device: torch.device
    precision: str

    @classmethod
    def of(cls, trained: Trained) -> Self:
        """The trained module of a finished run, without the run.

        Raises:
            ConfigError: If the model's outputs do not follow from its inputs alone.
        """
        trained.check("{} cannot be an estimator: {}.")
        model, reading = trained.learner.model, trained.reading
        assert reading is not None
        return cls(
            model.agent,
            trained.plan.standardize,
            trained.transform.layout,
            reading,
            model.spec,
            model.device,
            model.precision,
        )

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        """Logits or values `[N, *action.shape]` for raw inputs `[N, *shape]`, in their order.

        Raises:
            DataError: If they are not what the model was trained on.
        """
        space = self.spec.obs
        model = Model(self.module, self.spec, self.device, self.precision)
        transform = Standardize(space, standardize=self.standardize, device=self.device)
        transform.layout = self.layout
        size = rows_at_once([space.shape], self.device)
        found: list[Tensor] = []
        with model.evaluating():
            for rows in self.reading.rows(inputs, space, name="X").parts(size):
                output = model.predict(transform.observe(rows, self.device))
                assert output is not None
                found.append(output.cpu())
        return torch.cat(found).numpy()

    def __getstate__(self) -> dict[str, Any]:
        """On the CPU, so that a machine without the device can read it."""
        state = dict(vars(self))
        if self.device.type != "cpu":
            state["module"] = copy.deepcopy(self.module).cpu()
            state["device"] = torch.device("cpu")
        return state
