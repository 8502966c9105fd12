"""Specifications of a model's inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, ClassVar, Literal, TypeAlias, Union

import torch
from torch import Tensor

from .scale import Scale

TargetKind = Literal["classes", "values", "labels", "pixels"]
"""What a data set's targets are:

- `classes`: one of n for each row, int64 `[B]`.
- `values`: float32 or float64 `[B, *shape]`.
- `labels`: several at once, float32 `[B, K]` of 0 and 1.
- `pixels`: one of n for each pixel, int64 `[B, H, W]`.
"""

_IGNORED = 255  # The label of pixels to be ignored, as in Pascal VOC and Cityscapes.
_LISTED = 4  # Largest number of parts with equally many choices that are listed one by one.


@dataclass(frozen=True, eq=False)
class Space:
    """The shape, type and statistics of one observation, action or label.

    Attributes:
        shape: One item's shape as the model receives it, without the batch: `(C, H, W)` for images,
            `(n,)` for a choice among n (the width of the layer that scores them), `(n, H, W)` for one of n
            at each pixel.
        dtype: The type as stored: uint8 images stay uint8 until a batch is made.
        low, high: Bounds, a number or a tensor of `shape`. For a discrete space, the first and the
            last value.
        mean, stddev: `(C,)` for images, `shape` for other data, None if not measured; float32, or
            float64 where float32 is too coarse for the mean (time stamps).
        discrete: Whether a value is a choice: one of `n`, or several at once (`nvec`, `binary`).
        nvec: Choices of each part of a MultiDiscrete value, int64 `[B, len(nvec)]`; its `shape` is
            `(sum(nvec),)`. For the categories of a table, the number of ids in each column, so that each
            has an embedding of its own. Empty elsewhere.
        binary: A MultiBinary value: `shape` is `(n,)`, values are int64 `[B, n]` of 0 and 1.
        ignored: The label of pixels that neither losses nor metrics count.
        names: Names of a choice's values, `("cat", "dog")`; None if they have none.
        ids: One more than the largest id, for integers that models receive unchanged, int64 `[B, *shape]`,
            to embed (a data set's tokens and categories, an environment's choices that are too many for
            one-hot rows); None elsewhere.
        scale: How a data set's numbers are stored where float32 is too coarse for them; None: in their own
            units. All other attributes are in the numbers' own units.
        ragged: Whether values are sequences of different lengths, `[T, *features]`: `shape` is that of the
            longest one, and statistics are `features`, over real steps only.
    """

    antelope_state: ClassVar[bool] = False  # Left out of what its holder saves.
    ignored: ClassVar[int] = _IGNORED

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    low: float | Tensor | None = None
    high: float | Tensor | None = None
    mean: Tensor | None = None
    stddev: Tensor | None = None
    discrete: bool = False
    nvec: tuple[int, ...] = ()
    binary: bool = False
    names: tuple[str, ...] | None = None
    ids: int | None = None
    scale: Scale | None = None
    ragged: bool = False

    @property
    def n(self) -> int:
        """The number of choices of a discrete space, or of ids; else the number of values."""
        if self.ids is not None:
            return self.ids
        return self.shape[0] if self.kind == "pixels" else prod(self.shape)

    @cached_property  # Read in every learning step.
    def kind(self) -> TargetKind:
        """What the targets of a data set are, if this is their space."""
        if not self.discrete:
            return "values"
        if self.binary:
            return "labels"
        return "pixels" if len(self.shape) == 3 else "classes"

    @property
    def numeric(self) -> bool:
        """Whether values are numbers to compute with, neither choices nor ids."""
        return not self.discrete and self.ids is None

    @property
    def value_shape(self) -> tuple[int, ...]:
        """The shape of one value: `()` for one choice, `(len(nvec),)`, `(n,)`, `(H, W)` or `shape`."""
        if not self.discrete or self.binary:
            return self.shape
        if self.kind == "pixels":
            return self.shape[1:]
        return (len(self.nvec),) if self.nvec else ()

    def __str__(self) -> str:
        if self.binary:
            return f"{self.n} of yes or no"
        if self.nvec and not self.discrete:
            return f"{len(self.nvec)} categories"
        if len(self.nvec) > _LISTED and len(set(self.nvec)) == 1:
            return f"{len(self.nvec)} times one of {self.nvec[0]}"
        if self.nvec:
            return f"one of {' and one of '.join(map(str, self.nvec))}"
        if self.kind == "pixels":
            return f"one of {self.n} for each of {'x'.join(map(str, self.value_shape))} pixels"
        if self.discrete:
            return f"one of {self.n}"
        if self.ids is not None and self.mean is None:  # An environment's choices.
            return f"{self.shape[0] if self.shape else 'one'} of {self.ids} ids"
        dtype = str(self.dtype).removeprefix("torch.")
        if self.ragged:
            features = "x".join(map(str, self.shape[1:]))
            return f"{dtype} sequences of up to {self.shape[0]}{f' times {features}' if features else ''}"
        return f"{dtype} {'x'.join(map(str, self.shape)) or 'scalar'}"


# One space, or nested dicts of them.
SpaceTree: TypeAlias = Union[Space, dict[str, "SpaceTree"]]  # noqa: UP007  (| takes no string)


@dataclass(frozen=True, eq=False)
class Spec:
    """Everything a model can be built from.

    Attributes:
        obs: Input of `forward`, `[B, *obs.shape]`. A dict of spaces for dict observations.
        action: Output of `forward`, `[B, *action.shape]`: logits or Q-values if `action.discrete`,
            values otherwise. For data sets this describes the label.
        num_tasks: The length of the task sequence.
    """

    antelope_state: ClassVar[bool] = False  # Left out of what its holder saves.

    obs: Any  # A Space, or a dict of them.
    action: Any
    num_tasks: int = 1

    @property
    def discrete(self) -> bool:
        return not isinstance(self.action, dict) and self.action.discrete

    @property
    def has_classes(self) -> bool:
        """Whether a data set's targets are one class per row, so that tasks may have classes of their own."""
        return self.discrete and self.action.kind == "classes"

    def __str__(self) -> str:
        return f"{space_words(self.obs)} -> {space_words(self.action)}"


def is_ragged(space: Space | dict[str, Any]) -> bool:
    """Whether inputs are sequences of different lengths."""
    return isinstance(space, Space) and space.ragged


def space_words(space: Space | dict[str, Any]) -> str:
    """A space, or a dict of spaces, in one line: `{eye: uint8 3x84x84, arm: {angle: float32 2}}`."""
    if isinstance(space, dict):
        return "{" + ", ".join(f"{name}: {space_words(part)}" for name, part in space.items()) + "}"
    return str(space)
