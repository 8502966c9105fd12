"""Conversion of rows in [0, 1] to a model's inputs, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ....replay import Spec


class Transform:
    """Converts rows in [0, 1] to the model's training inputs: augmented, then standardised.

    For rows of a memory, which keeps them as `not_aug_inputs` are. A single row will do as well.

    Args:
        spec: Of the data.
        plain: Makes `obs` of stored rows, without augmentation.
        augment: Maps rows in [0, 1] to the same, or None.
    """

    takes_batches = True

    def __init__(self, spec: Spec, plain: Any, augment: Any, device: torch.device):
        self.plain, self.device = plain, device
        self.augment, self.dims = augment, len(spec.obs.shape)
        self.as_they_are = spec.obs.ids is not None  # Integers have no [0, 1].
        # An affine map is determined by the images of 0 and 1.
        # On the host, in float64, which not every device has.
        low, high = (end.cpu().double() for end in plain.ends())
        width = torch.where(high > low, high - low, 1.0)
        self.shift, self.scale, self.scale_back = (
            _one_if_alike(values, device) for values in (low, width, 1 / width)
        )
        self.normalise = Normalise(spec, low, width, device)

    def __call__(self, rows: Tensor) -> Tensor:
        if self.augment is not None:
            single = rows.dim() == self.dims
            rows = self.augment(rows[None])[0] if single else self.augment(rows)
        return self.normalise(rows)

    def undone(self, obs: Tensor) -> Tensor:
        """Rows in [0, 1] from unaugmented inputs of the model."""
        if self.as_they_are:
            return obs
        # In this order black is exactly 0.
        return (obs - self.shift).mul_(self.scale_back).clamp_(0, 1)

    def stored(self, rows: Tensor) -> Tensor:
        """Rows in [0, 1] as the data set stores them, but for the dtype."""
        if self.as_they_are:
            return rows
        return self.plain.stored(self.normalise(rows.to(self.device)))


class Normalise:
    """Standardises rows in [0, 1], a single one or a batch; it changes nothing where the run does not.

    Args:
        spec: Of the data.
        low, width: Where 0 comes to lie, and how far from it 1 does, float64 `[*obs.shape]`.

    Attributes:
        mean, std: What is taken off, and what it is divided by then: of each channel of images, and of
            each number of other data.
    """

    takes_batches = True

    def __init__(self, spec: Spec, low: Tensor, width: Tensor, device: torch.device):
        self._nothing = spec.obs.ids is not None  # Integers have no [0, 1].
        self._shift, self._scale = (_one_if_alike(values, device) for values in (low, width))
        mean, std = (values.float() for values in (0 - low / width, 1 / width))
        if len(spec.obs.shape) == 3 and bool((low == low[:, :1, :1]).all()):
            mean, std = mean[:, 0, 0], std[:, 0, 0]
        self.mean: tuple[float, ...] = tuple(mean.tolist())
        self.std: tuple[float, ...] = tuple(std.tolist())

    def __call__(self, rows: Tensor) -> Tensor:
        if self._nothing:
            return rows
        return rows * self._scale + self._shift


class Denormalise:
    """Makes rows in [0, 1] of standardised ones, `[B, *obs.shape]` or a single one.

    Attributes:
        mean, std: Of each channel of images, float32.
    """

    takes_batches = True

    def __init__(self, mean: Any, std: Any):
        self.mean, self.std = torch.as_tensor(mean), torch.as_tensor(std)

    def __call__(self, rows: Tensor) -> Tensor:
        mean, std = (values.to(rows.device) for values in (self.mean, self.std))
        if rows.dim() >= 3 and mean.dim() == 1:
            mean, std = mean[:, None, None], std[:, None, None]
        return rows * std + mean


def transformed(rows: Tensor, transform: Any) -> Tensor:
    """Rows `[B, *shape]` with a transform: one of ours meets all of them at once, any other one by one.

    Args:
        transform: None: rows as they are.
    """
    if transform is None:
        return rows
    function = getattr(transform, "__self__", transform)  # `Transform.normalise` may be its method.
    if getattr(function, "takes_batches", False):
        whole: Tensor = transform(rows)
        return whole
    if not len(rows):
        return rows
    return torch.stack([torch.as_tensor(transform(row)) for row in rows]).to(rows.device)


def _one_if_alike(values: Tensor, device: torch.device) -> float | Tensor:
    """A number, where it is the same for all places: twice as fast as a tensor."""
    if bool((values == values.flatten()[0]).all()):
        return float(values.flatten()[0])
    return values.float().to(device)


class Rows:
    """Batches of a sequence's rows, in the place of `Standardize`.

    Args:
        train: Makes of a row in [0, 1] what a model learns from.
        ends: What 0 and 1 become where a row is not augmented.
        augments: Whether `train` is random.

    Attributes:
        augment: None where it does not.
        layout: How images lie in memory; None: channels first.
    """

    layout: torch.memory_format | None = None
    as_stored = False

    def __init__(
        self,
        train: Callable[[Tensor], Tensor],
        ends: tuple[Tensor, Tensor],
        *,
        augments: bool,
        bytes_only: bool,
    ):
        self.train, self._ends, self.bytes_only = train, ends, bytes_only
        self.augment = self.augmented if augments else None

    def __call__(self, fields: dict[str, Any]) -> dict[str, Any]:
        if "raw" in fields:
            fields["raw"] = self.normalise(fields["raw"])
        return self._laid_out(fields)

    def without_augmentation(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The same without augmentation."""
        if "raw" in fields:
            fields["obs"] = self.normalise(fields.pop("raw"))
        return self._laid_out(fields)

    def observe(self, stored: Tensor, device: torch.device | None = None) -> Tensor:
        """Stored rows alone, `[B, *shape]`, as a model is evaluated on them."""
        rows = stored if device is None else stored.to(device)
        return self._laid_out({"obs": rows})["obs"]

    def normalise(self, rows: Tensor) -> Tensor:
        """Rows in [0, 1] as a model is evaluated on them."""
        low, high = (end.to(rows.device) for end in self._ends)
        return rows * (high - low) + low

    def unit(self, obs: Tensor) -> Tensor:
        """Rows as they were before they were normalised."""
        low, high = (end.to(obs.device) for end in self._ends)
        rows = (obs - low) / torch.where(high > low, high - low, 1.0)
        # To the bit what they were: a byte by 255, as torchvision makes floats of pictures.
        return (rows * 255).round_().div_(255) if self.bytes_only else rows

    def augment_again(self, raw: Tensor) -> Tensor:
        """Stored rows (`batch.raw`), augmented again."""
        obs = self.augmented(self.unit(raw))
        return self._laid_out({"obs": obs})["obs"]

    def ends(self) -> tuple[Tensor, Tensor]:
        """What 0 and 1 become, each `[*obs.shape]`."""
        return self._ends

    def augmented(self, rows: Tensor) -> Tensor:
        """Rows in [0, 1], `[B, *shape]`, one after another as the class's transform makes them."""
        host = rows.cpu()
        return torch.stack([self.train(row) for row in host]).to(rows.device)

    def _laid_out(self, fields: dict[str, Any]) -> dict[str, Any]:
        if self.layout is not None and fields["obs"].dim() == 4:
            fields["obs"] = fields["obs"].contiguous(memory_format=self.layout)
        return fields


class Plain:
    """The same rows, to evaluate with."""

    layout: torch.memory_format | None = None
    augment = None
    as_stored = False

    def __init__(self, rows: Rows):
        self.rows = rows

    def __call__(self, fields: dict[str, Any]) -> dict[str, Any]:
        return self.rows.without_augmentation(fields)

    plain = __call__

    def observe(self, stored: Tensor, device: torch.device | None = None) -> Tensor:
        """Stored rows alone, `[B, *shape]`."""
        return self.rows.observe(stored, device)

    def ends(self) -> tuple[Tensor, Tensor]:
        return self.rows.ends()


class OwnTransform(Transform):
    """As every `Transform`, of a sequence that has its own."""

    def __init__(self, spec: Spec, rows: Rows, device: torch.device):
        super().__init__(spec, rows, rows.augment, device)
        self.rows = rows

    def __call__(self, rows: Tensor) -> Tensor:
        single = rows.dim() == self.dims
        made = self.rows.augmented(rows[None] if single else rows)
        return made[0] if single else made

    def undone(self, obs: Tensor) -> Tensor:
        return self.rows.unit(obs)
