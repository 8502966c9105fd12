"""What all worlds of data share, and all worlds of environments, both open and loaded ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from ..replay import Normalizer, Observations, Space, Spec
from ..replay.tree import map_tree
from .stored_labels import standardizing
from .transform import Augment, Transform
from .wishes import ENV_STEPS, Lengths

_EPOCHS = 10  # Default if neither `epochs` nor `train_steps` is given.
_EVAL_EVERY = 10_000  # Default, in environment steps.


class OfData:
    """Rows with labels, on which a module without `learn` can be trained."""

    kind: Literal["data", "env"] = "data"
    labelled, acts, closed = True, False, False
    normalizer: Normalizer | None = None
    task_names: list[str] | None = None
    spec: Spec
    scenario: str | None

    @property
    def told(self) -> bool:
        return self.scenario == "task"

    def transforms(
        self, *, standardize: bool, device: torch.device, augment: Callable[[], Augment] | None
    ) -> tuple[Transform, Transform]:
        make = partial(standardizing, self.spec.obs, self.spec.action, device=device)
        plain = make(standardize=standardize)
        if augment is None:
            return plain, plain
        made = augment()
        return make(standardize=standardize, augment=made), plain

    def facts(self) -> dict[str, Any]:
        return {"environment": False}

    def lengths(self, asked: Lengths) -> Lengths:
        epochs = asked.epochs
        if epochs is None and asked.train_steps is None:
            epochs = _EPOCHS
        return Lengths(epochs, asked.train_steps, asked.eval_every)


class OfEnvironments:
    """Episodes in which a model acts."""

    kind: Literal["data", "env"] = "env"
    labelled, acts, validates = False, True, False
    scenario: str | None = None  # Environments have no classes.
    told = False
    normalizer: Normalizer | None
    spec: Spec

    def transforms(
        self, *, standardize: bool, device: torch.device, augment: Callable[[], Augment] | None
    ) -> tuple[Transform, Transform]:
        transform = Observations(self.spec.obs, self.normalizer)
        return transform, transform

    def example(self, n: int, device: torch.device) -> Any:
        """`n` stored observations, random within the space."""
        return random_obs(self.spec.obs, n)

    def facts(self) -> dict[str, Any]:
        return {"environment": True}

    def lengths(self, asked: Lengths) -> Lengths:
        return Lengths(
            epochs=None,
            train_steps=asked.train_steps or ENV_STEPS,
            eval_every=asked.eval_every or _EVAL_EVERY,
            learn_every=asked.learn_every,
            seed_steps=asked.seed_steps,
        )


def random_obs(space: Any, n: int) -> Any:
    """Stored values within each leaf of a tree of spaces, `[n, *value_shape]`, of the leaf's dtype."""
    return map_tree(lambda part: _random(part, n), space)


def _random(space: Space, n: int) -> Tensor:
    shape = (n, *space.value_shape)
    if space.binary or space.dtype == torch.bool:
        return torch.randint(2, shape).to(space.dtype)
    if space.ids is not None:  # With the largest one, which an embedding may lack a row for.
        last = torch.as_tensor(space.high).expand(shape)
        first = (torch.rand(shape) * last).long()
        return torch.cat([last[:1], first[1:]])
    if space.discrete:
        highest = torch.tensor(space.nvec or space.n)
        return (torch.rand(shape) * highest).long()
    low, high = (torch.as_tensor(bound).double() for bound in (space.low, space.high))
    # Near zero if the bounds allow it: numbers as large as an unbounded space allows would overflow.
    first, last = torch.minimum(low.clamp(-1, None), high), high.clamp(None, 1)
    last = torch.maximum(first, last).expand(shape)
    return (first + torch.rand(shape) * (last - first)).to(space.dtype)
