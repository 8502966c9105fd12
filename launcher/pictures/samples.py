"""Samples of a generative model during training: a grid at every evaluation."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...agents.generative.bounds import Bounds
from ...agents.traits import stated_traits, traits
from ...replay import Space, Spec
from ...replay.files import make_folder, replacing
from ...replay.randomness import forked_randomness

_COLUMNS = 8
_ROWS = 8
_MOST_CLASSES = 10  # Classes with a row of their own.
_TILE = 64  # Pixels, the approximate side to which small images are enlarged.


class Samples:
    """Draws samples of a model to `<folder>/step-N.png`, from the same noise each time.

    Eight by eight, or for a conditional model a row for each of the first ten classes.

    Args:
        folder: Folder of the pictures, created when the first one is written.
        spec: Spec of the data.
        standardize: bool, whether the model receives, and generates, standardised observations.
        seed: int, seed of the noise; other random streams stay untouched.
    """

    def __init__(self, folder: Path, spec: Spec, *, standardize: bool, seed: int):
        self.folder, self.spec, self.seed = folder, spec, seed
        self.standardize = standardize
        self._bounds: Bounds | None = None  # Made when there is something to draw.

    def __call__(self, agent: nn.Module, step: int) -> None:
        """Draw the picture of a step, if the model `makes_images`.

        Call it in evaluation mode, without gradient.

        Args:
            agent: The model that is trained.
            step: int, learning steps so far.
        """
        if not makes_images(agent, self.spec.obs):
            return
        label = None
        if stated_traits(agent).conditional and self.spec.discrete:
            device = next((p.device for p in agent.parameters()), torch.device("cpu"))
            label = torch.arange(min(self.spec.action.n, _MOST_CLASSES), device=device)
            label = label.repeat_interleave(_COLUMNS)
        n = _COLUMNS * _ROWS if label is None else len(label)
        # The same noise at every step: what changes between two pictures is what was learnt.
        with forked_randomness(self.seed):
            # Only conditional models accept labels.
            obs = agent.sample(n) if label is None else agent.sample(n, label)  # type: ignore[operator]
        if not isinstance(obs, Tensor) or obs.shape != (n, *self.spec.obs.shape):
            given = list(obs.shape) if isinstance(obs, Tensor) else f"a {type(obs).__name__}"
            warnings.warn(
                f"{type(agent).__name__}.sample({n}) returned {given} instead of samples "
                f"{[n, *self.spec.obs.shape]}; no picture of them is drawn.",
                stacklevel=2,
            )
            return
        if self._bounds is None:
            self._bounds = Bounds(self.spec.obs, standardize=self.standardize)
        bounds = self._bounds.to(obs.device)
        unit = bounds.unit(obs.float()).nan_to_num().clamp(0, 1)
        save_grid(unit.cpu(), self.folder / f"step-{step}.png")


def makes_images(agent: nn.Module, space: Space | dict[str, Any]) -> bool:
    """Whether a model generates, and its samples are grey or colour images."""
    if not isinstance(space, Space) or len(space.shape) != 3 or space.shape[0] not in (1, 3):
        return False
    return space.ids is None and traits(agent).generates


def save_grid(images: Tensor, path: Path) -> None:
    """Write images `[N, 1 or 3, H, W]` float32 in [0, 1], eight in a row, as a PNG."""
    from torchvision.utils import save_image

    enlarged = max(1, _TILE // max(images.shape[2:]))
    images = images.repeat_interleave(enlarged, 2).repeat_interleave(enlarged, 3)
    make_folder(path.parent)
    with replacing(path, "wb") as file:
        save_image(images, file, format="png", nrow=_COLUMNS, padding=2, pad_value=1.0)
